#!/usr/bin/env bash
# GMPO and GMPG on three paths, and the policies they are compared with, on D4RL locomotion, five seeds: the table of
# "Revisiting Generative Policies" (Zhang et al.).
# Words of your own go to both sweeps, in place of words here that say the same:
#   launch/d4rl_locomotion.sh cluster=mine launch.dry_run=true
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/sweep.bash"
common=(study=d4rl-locomotion env=locomotion "seed=range(5)" launch.runs_per_gpu=5)
sweep "${common[@]}" algo=gmpo,gmpg model=vpsde,gvp,icfm
sweep "${common[@]}" algo=sfbc,diffusion_ql,qgpo,idql,srpo
