#!/usr/bin/env bash
# Trains an experiment on a fresh TPU VM, or the same way on N virtual devices of this machine.
#
#   ./run_tpu.sh [--dry-run] [--local N] [EXPERIMENT [ARGUMENT…]]
#
# Sets up a virtual environment, installs the package (with TPU support unless --local), and runs
# `sf-jax train EXPERIMENT`; a run that was stopped goes on from its newest checkpoint.
set -euo pipefail
cd "$(dirname "$0")"

dry=0 local_devices=0
while [[ ${1:-} == --* ]]; do
  case $1 in
    --dry-run) dry=1; shift ;;
    --local) local_devices=${2:?--local needs a number of devices}; shift 2 ;;
    *) sed -n '2,8p' "$0"; [[ $1 == --help ]] && exit 0 || exit 2 ;;
  esac
done
experiment=${1:-builtin_model}
shift || true

run() { printf '+ %s\n' "$*"; if (( !dry )); then "$@"; fi; }

run make install
if (( local_devices )); then
  run export JAX_PLATFORMS=cpu XLA_FLAGS="--xla_force_host_platform_device_count=$local_devices"
else
  run .venv/bin/python -m pip install --quiet -c requirements.txt -e '.[tpu]'
  run .venv/bin/python -c 'import jax; assert jax.default_backend() == "tpu", "no TPU found"; print(jax.devices())'
fi
run .venv/bin/sf-jax train "$experiment" "$@"
