#!/usr/bin/env bash
# GMPO, GMPG and the policies they are compared with on D4RL AntMaze (v0), five seeds: the AntMaze table of "Revisiting
# Generative Policies" (Zhang et al.).
# Words of your own go to all sweeps, in place of words here that say the same:
#   launch/d4rl_antmaze.sh cluster=mine launch.dry_run=true
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/sweep.bash"
common=(study=d4rl-antmaze env=antmaze "seed=range(5)" launch.runs_per_gpu=5)
sweep "${common[@]}" algo=gmpo model=gvp
sweep "${common[@]}" algo=gmpg model=vpsde
sweep "${common[@]}" algo=sfbc,diffusion_ql,qgpo,idql,srpo
