#!/usr/bin/env bash
# Generative Trajectory Policies on D4RL locomotion beside their closest relatives, five seeds: the tables of "Offline RL
# with Generative Trajectory Policies".
# Words of your own go to both sweeps, in place of words here that say the same:
#   launch/gtp.sh cluster=mine launch.dry_run=true
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/sweep.bash"
common=(study=gtp env=locomotion "seed=range(5)" launch.runs_per_gpu=5)
sweep "${common[@]}" algo=gtp,gtp_bc "eval.steps=[1,2,5,10]"
sweep "${common[@]}" algo=bc,consistency_ac,diffusion_ql,iql,td3_bc
