# To be sourced by the scripts of sweeps: `sweep WORDS...` trains on SLURM what these words say and, in their place where
# they say the same, the words that the script was given.
given=("$@")

sweep() {
  local word words=() own=" ${given[*]%%=*} "
  for word in hydra/launcher=slurm "$@"; do
    [[ $own == *" ${word%%=*} "* ]] || words+=("$word")
  done
  genpolicy -m "${words[@]}" "${given[@]}"
}
