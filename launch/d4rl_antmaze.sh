#!/usr/bin/env bash
# GMPO, GMPG and the policies they are compared with on D4RL AntMaze (v0), five seeds: the AntMaze table of "Revisiting
# Generative Policies" (Zhang et al.).
# Words of your own go to all sweeps, as in: launch/d4rl_antmaze.sh cluster=mine launch.dry_run=true
set -euo pipefail
sweep=(genpolicy -m hydra/launcher=slurm study=d4rl-antmaze env=antmaze "seed=range(5)" launch.runs_per_gpu=5)
"${sweep[@]}" algo=gmpo model=gvp "$@"
"${sweep[@]}" algo=gmpg model=vpsde "$@"
"${sweep[@]}" algo=sfbc,diffusion_ql,qgpo,idql,srpo "$@"
