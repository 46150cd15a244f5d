#!/usr/bin/env bash
# Installs a fresh checkout and starts a training run; started again, the run resumes.
#
#   ./run_tpu.sh [OPTION…] [EXPERIMENT [ARGUMENT…]]        sf-jax train EXPERIMENT ARGUMENT…
#
#   ./run_tpu.sh --local 8 sft builtin --steps 20          on 8 virtual devices of this machine
#   ./run_tpu.sh sft 2b-lora --model DIR --data DIR        on the TPU VM where it is started
#   ./run_tpu.sh --name TPU --zone ZONE sft 4b-full …      on all hosts of a pod slice, from anywhere
#
#   --dry-run      prints the commands without running them
#   --local N      N virtual devices of this machine instead of TPUs
#   --name TPU --zone ZONE [--project P]     the pod slice, reached by `gcloud compute tpus tpu-vm ssh`
#   --retries N    restarts a crashed run up to N times (default 0)
#
# EXPERIMENT is builtin_model by default. The paths of --data, --held-out and --model are checked
# first; where they are gs://, their bucket is mounted. Exit codes: 2 for invalid input or a run that
# cannot resume, 143 for one interrupted by a signal (SIGTERM, Ctrl-C) after saving a checkpoint;
# neither is retried.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

report() { echo "run_tpu.sh: $*" >&2; }
refuse() { report "$*"; exit 2; }

quoted() {  # arguments, quoted for a shell
  local argument out=()
  for argument; do
    [[ $argument =~ ^[[:alnum:]_./:=,@%+-]+$ ]] || argument=${argument@Q}
    out+=("$argument")
  done
  echo "${out[*]}"
}

run() { echo "+ $(quoted "$@")"; ((dry)) || "$@"; }

# Runs a command and returns its exit code. A signal to this script calls `stop` meanwhile.
stop() { kill -TERM "$child" 2> /dev/null || true; }
stopped=0
attend() {
  local code child='' interrupted
  trap 'interrupted=1 stopped=1; stop' "${signals[@]}"
  "$@" & child=$!
  if ((stopped)); then stop; fi
  while :; do
    interrupted=0 code=0
    wait "$child" || code=$?
    ((interrupted)) || break  # else it was the signal that ended `wait`
  done
  trap - "${signals[@]}"
  return "$code"
}
signals=(TERM INT HUP)

# --- options -------------------------------------------------------------------------------------

dry=0 role=
declare -A option=([local]=0 [retries]=0 [name]='' [zone]='' [project]='')
while [[ ${1:-} == -* ]]; do
  case $1 in
    --dry-run) dry=1 ;;
    --on-host | --detached) role=$1 ;;  # how the script starts itself on the hosts of a pod slice
    --local | --retries | --name | --zone | --project)
      [[ ${2:-} && $2 != -* ]] || refuse "$1 needs a value (see --help)"
      option[${1#--}]=$2; shift ;;
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) refuse "there is no option $1 (see --help)" ;;
  esac
  shift
done
for name in local retries; do
  [[ ${option[$name]} =~ ^(0|[1-9][0-9]*)$ ]] || refuse "--$name ${option[$name]}: expected a whole number"
done
[[ -z ${option[name]} || ${option[zone]} ]] || refuse "--name needs --zone"
[[ -z ${option[name]} || ${option[local]} == 0 ]] || refuse "--name does not go with --local"
(($#)) || set -- builtin_model
experiment=$1

# --- all hosts of a pod slice --------------------------------------------------------------------

on_slice() {
  local where=("--zone=${option[zone]}" --worker=all)
  [[ -z ${option[project]} ]] || where+=("--project=${option[project]}")
  local ssh=(gcloud compute tpus tpu-vm ssh "${option[name]}" "${where[@]}")
  # shellcheck disable=SC2016  # expanded on the host
  stop() { "${ssh[@]}" --command='kill -TERM $(cat sf_jax/runs/host.pid)'; }
  signals=(TERM INT)  # closing the terminal does not stop the run
  run mkdir -p runs || return
  run tar -czf runs/code.tar.gz --exclude=./.git --exclude='./.venv*' --exclude=./runs \
    --exclude=./demo --exclude=__pycache__ . || return
  run gcloud compute tpus tpu-vm scp runs/code.tar.gz "${option[name]}:" "${where[@]}" || return
  # Where a run is in progress, its code is not replaced and its log is followed.
  local start='mkdir -p sf_jax/runs'
  start+=' && flock -nE 0 sf_jax/runs/host.lock tar -xzf code.tar.gz -C sf_jax'
  start+=" && sf_jax/run_tpu.sh --on-host --retries ${option[retries]} $(quoted "$@")"
  echo "+ $(quoted "${ssh[@]}" "--command=$start")"
  ((dry)) || attend "${ssh[@]}" "--command=$start"
}

# Starts the run unless one is in progress, and follows its log. The run is detached from the
# connection, which it outlives; gcloud reconnects by itself after some failures.
on_host() {
  mkdir -p runs
  exec 9> runs/host.lock  # held by the run while it lives; mounts that outlive it must not hold it
  if flock -n 9; then
    rm -f runs/host.code
    setsid ./run_tpu.sh --detached --retries "${option[retries]}" "$@" \
      > runs/host.log 2>&1 < /dev/null &
    echo $! > runs/host.pid
  else
    report "a run is in progress here; following its log"
  fi
  exec 9>&-
  tail -n 100 -f --pid="$(cat runs/host.pid)" runs/host.log
  return "$(cat runs/host.code 2> /dev/null || echo 1)"
}

hosts=1
if [[ ${option[name]} ]]; then
  code=0
  on_slice "$@" || code=$?
  if ((!dry)); then
    report "exit code $code; each host's output is in its sf_jax/runs/host.log"
    exit "$code"
  fi
  echo "# on each host, where there are several:"
  hosts=2
elif [[ $role == --on-host ]]; then
  code=0
  on_host "$@" || code=$?
  exit "$code"
elif [[ $role == --detached ]]; then
  trap 'echo $? > runs/host.code' EXIT
fi

# --- one host ------------------------------------------------------------------------------------

metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes
if ((!dry && !option[local])); then
  peers=$(curl -sf -m 5 -H 'Metadata-Flavor: Google' $metadata/worker-network-endpoints || true)
  peers=${peers//[^,]/}
  hosts=$((${#peers} + 1))
fi
if ((hosts > 1 && !dry)); then
  [[ $role ]] ||
    refuse "this is one of $hosts hosts; --name and --zone start a run on all of them"
  [[ $experiment == sft ]] ||
    refuse "$experiment runs on one host only, and here are $hosts; sft runs on all"
  [[ " $*" == *' --out'* ]] ||
    refuse "$hosts hosts need --out gs://…, or a folder that all of them share"
fi

declare -A mounted
mount_bucket() {  # gs://BUCKET/PATH; sets `path` to its local path
  local bucket=${1#gs://} cache=$HOME/.cache/gcsfuse free
  bucket=${bucket%%/*}
  local point=$HOME/gcs/$bucket
  path=$point${1#"gs://$bucket"}
  if [[ ${mounted[$bucket]:-} ]] || mountpoint -q "$point"; then return; fi
  mounted[$bucket]=1
  free=$(df -Pm "$HOME" | awk 'NR == 2 { print $4 }')
  local mount=(gcsfuse -o ro --implicit-dirs --cache-dir "$cache"
    --file-cache-max-size-mb $((free / 2))  # half of the free space
    --file-cache-cache-file-for-range-read "$bucket" "$point")
  if ((!dry)) && ! command -v gcsfuse > /dev/null; then
    refuse "$1: records and weights are read from local files. Copy them, and name the copy:
  gcloud storage rsync --recursive $1 DIR
or install gcsfuse (https://cloud.google.com/storage/docs/gcsfuse-install) and start again, which runs
  mkdir -p $(quoted "$point" "$cache") && $(quoted "${mount[@]}")"
  fi
  run mkdir -p "$point" "$cache"
  run "${mount[@]}" 9>&- || refuse "$1: cannot be mounted: see above"
}

# The arguments, with local paths instead of gs:// for what is read.
arguments=()
while (($#)); do
  case $1 in
    --data=* | --held-out=* | --model=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
  esac
  arguments+=("$1")
  case $1 in
    --data | --held-out | --model)
      path=${2:-}
      wanted='*.array_record'
      [[ $1 != --model ]] || wanted=config.json
      [[ $path != gs://* ]] || mount_bucket "$path"
      echo "+ ls $path/$wanted"
      ((dry)) || compgen -G "$path/$wanted" > /dev/null ||
        refuse "$1 ${2:-}: contains no $wanted, seen from $PWD"
      arguments+=("$path")
      shift $(($# > 1)) ;;
  esac
  shift
done

find_python() {  # a supported version that can create a virtual environment
  local needed='import ensurepip, sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])'
  for python in "${PYTHON:-python3}" python3.12 python3.11; do
    if "$python" -c "$needed" 2> /dev/null; then return; fi
  done
  python=
  return 1
}

if ! find_python && ((!option[local])); then
  apt=(sudo apt-get -qq -o DPkg::Lock::Timeout=600)  # a fresh machine runs its own updates first
  run "${apt[@]}" update
  run "${apt[@]}" install -y make python3.12-venv || run "${apt[@]}" install -y make python3.11-venv
  find_python || ((dry)) || refuse "no Python 3.11 or 3.12 found; set PYTHON=…"
fi
run make install ${python:+"PYTHON=$python"}

if ((option[local])); then
  flags="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=${option[local]}"
  train=(env JAX_PLATFORMS=cpu "XLA_FLAGS=$flags")
else
  train=()
  run .venv/bin/python -m pip install --quiet -c requirements.txt -e '.[tpu]'
  together=
  if ((hosts > 1)); then together='jax.distributed.initialize(); '; fi
  probe="import jax; ${together}"'assert jax.default_backend() == "tpu", "JAX sees no TPU"; '
  probe+='print(jax.local_device_count(), "of", jax.device_count(), "TPU devices found")'
  run .venv/bin/python -c "$probe" ||
    refuse "no usable TPU here: see above (--local N uses virtual devices)"
fi

if ((hosts > 1)) && [[ $experiment == sft ]]; then arguments+=(--distributed); fi
train+=(.venv/bin/sf-jax train "${arguments[@]}")

for ((left = option[retries]; ; left--)); do
  echo "+ $(quoted "${train[@]}")"
  ((!dry)) || exit 0
  code=0
  attend "${train[@]}" || code=$?
  case $code in
    0) exit 0 ;;
    2) report "the run cannot resume, for the reason above"; exit 2 ;;
    143) report "interrupted; the same command resumes from the newest checkpoint"; exit 143 ;;
  esac
  if ((stopped || !left)); then break; fi
  retry=$((option[retries] - left + 1))
  report "exit code $code; restarting in 10 s, retry $retry of ${option[retries]}"
  sleep 10  # until the TPU is released
done
report "exit code $code, a crash; the same command resumes from the newest checkpoint, if there is one"
exit "$code"
