#!/usr/bin/env bash
# A one-machine SLURM for development and tests: Debian, root, no systemd, no GPU.
#
#   launch/slurm-dev.sh up                    start what does not run, restart what has other settings; installs the packages once
#   launch/slurm-dev.sh restart-controller    slurmctld alone; jobs run on, the queue is kept
#   launch/slurm-dev.sh status                nodes and jobs; exit code 1 if it is not up
#   launch/slurm-dev.sh down                  cancel the jobs, stop the daemons; job ids go on after the next up
#
#   SLURM_DEV_DIR=/tmp/genpolicy-slurm        configuration, state, logs, pid files, fake GPUs
#   SLURM_DEV_SIGNAL=user                     term: a preempted job gets SIGTERM only, not the signal that it asked for
#   SLURM_DEV_MAX_ARRAY=1001                  MaxArraySize: one more than the highest index of an array
#   SLURM_DEV_ACCOUNTING=                     1: sacct works, by slurmdbd and mariadb
set -euo pipefail

DIR=$(realpath -m "${SLURM_DEV_DIR:-/tmp/genpolicy-slurm}")
ACCOUNTING=${SLURM_DEV_ACCOUNTING:-}
NODE=$(hostname -s)
LINK=/etc/slurm/slurm.conf                        # where clients look, so that they need no SLURM_CONF
export SLURM_CONF=$DIR/etc/slurm.conf             # ours, whatever the caller's says
export MYSQL_UNIX_PORT=$DIR/run/mariadbd.sock     # slurmdbd has no setting for the socket, libmariadb takes it from here

fail() { echo "slurm-dev: $*" >&2; exit 1; }

# --- daemons: each is known by its own pid file ---

running() {    # NAME; after a crash the pid may be a stranger's, who has another name, or a zombie's, who has no program
  local pid
  pid=$(cat "$DIR/run/$1.pid" 2>/dev/null) && [[ -e /proc/$pid/exe && $(cat "/proc/$pid/comm") == "$1" ]]
}

stop() {    # NAME...; each is gone before the next, and before its port is wanted again
  local name pid
  for name; do
    if running "$name"; then
      pid=$(cat "$DIR/run/$name.pid")
      kill "$pid"
      within 20 ended "$pid" || kill -9 "$pid"
    fi
    rm -f "$DIR/run/$name.pid"
  done
}

start() {    # NAME CHECK COMMAND...; a daemon that kept our standard output would hang a caller that reads it to the end
  running "$1" || "${@:3}" >"$DIR/log/$1.out" 2>&1 </dev/null || fail "$1 does not start: see $DIR/log"
  { within 60 "$2" && running "$1"; } || fail "$1 does not answer: see $DIR/log"
}

within() {    # SECONDS COMMAND...; true once the command is
  local end=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do ((SECONDS < end)) || return 1; sleep 0.1; done
}

ended() { [[ ! -e /proc/$1/exe ]]; }    # a daemon removes its pid file before it frees its port
authenticating() { munge -S "$DIR/run/munged.sock" -n | unmunge -S "$DIR/run/munged.sock"; }
database_open() { mariadb-admin --no-defaults --user=root ping; }
accounting() { sacctmgr -n list cluster; }
controlling() { scontrol ping | grep 'is UP'; }
node_ready() {    # a node that the saved state has as down or drained comes back by RESUME only
  sinfo -h -o %T | grep -E '^(idle|mixed|allocated|completing|planned)-?$' ||
    { scontrol update NodeName="$NODE" State=RESUME; false; }
}
no_jobs() { [[ ! $(squeue -h) ]]; }
link_ours() { [[ $(readlink "$LINK") == "$SLURM_CONF" ]]; }

# --- settings ---

write() {    # FILE NAME...; standard input into FILE. Its readers stop before it changes: up cannot leave one with the old text
  local text
  text=$(cat)
  [[ $text == "$(cat "$DIR/etc/$1" 2>/dev/null)" ]] && return
  stop "${@:2}"
  echo "$text" >"$DIR/etc/$1"
}

configure() {
  local gpu preempt
  case ${SLURM_DEV_SIGNAL:-user} in
    user) preempt=SlurmctldParameters=preempt_send_user_signal ;;
    term) preempt='' ;;    # no line at all: a key without a value is a parse error, in every client too
    *) fail "SLURM_DEV_SIGNAL is user or term, not $SLURM_DEV_SIGNAL" ;;
  esac

  # A GPU without a device file counts as 0 and makes the node invalid; any character device will do: these are /dev/null.
  for gpu in 0 1; do [[ -c $DIR/dev/gpu$gpu ]] || mknod "$DIR/dev/gpu$gpu" c 1 3; done
  write gres.conf slurmd slurmctld <<<"Name=gpu Type=null File=$DIR/dev/gpu[0-1]"

  write slurm.conf slurmd slurmctld <<EOF
ClusterName=dev
SlurmctldHost=$NODE(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$DIR/run/munged.sock,cred_expire=5    # a requeued job waits until its old credential expires: 120 s by default
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
StateSaveLocation=$DIR/state
SlurmdPidFile=$DIR/run/slurmd.pid
SlurmdLogFile=$DIR/log/slurmd.log
SlurmdSpoolDir=$DIR/spool
SlurmdParameters=config_overrides    # the node may claim more CPUs and memory than there are
ProctrackType=proctrack/linuxproc    # no cgroups: nothing enforces what a job asked for
AccountingStorageType=accounting_storage/$([[ $ACCOUNTING ]] && echo slurmdbd || echo none)
AccountingStoragePass=$DIR/run/munged.sock    # no password: the socket again, for those who talk to slurmdbd
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=200000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$preempt
EnforcePartLimits=ALL    # a job that can never run is refused, not pending for ever
ReturnToService=2
MaxArraySize=${SLURM_DEV_MAX_ARRAY:-1001}
MinJobAge=86400    # without accounting only slurmctld remembers a finished job
OverTimeLimit=0
KillWait=5
DefMemPerCPU=1024
GresTypes=gpu
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=8 RealMemory=32768 Gres=gpu:null:2 Feature=dev
PartitionName=low Nodes=$NODE Default=YES DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=$NODE DefaultTime=60 PriorityTier=10 PreemptMode=OFF
EOF

  write slurmdbd.conf slurmdbd <<EOF
DbdHost=localhost
SlurmUser=root
AuthInfo=socket=$DIR/run/munged.sock
StorageType=accounting_storage/mysql
StorageUser=root
PidFile=$DIR/run/slurmdbd.pid
LogFile=$DIR/log/slurmdbd.log
EOF
  chmod 600 "$DIR/etc/slurmdbd.conf"    # slurmdbd refuses any other mode
}

# --- commands ---

install_packages() {
  local packages=(slurm-wlm munge) programs=(slurmctld slurmd munged)
  [[ $ACCOUNTING ]] && packages+=(slurmdbd mariadb-server) programs+=(slurmdbd mariadbd)
  type "${programs[@]}" >/dev/null 2>&1 && return
  echo "slurm-dev: installing ${packages[*]}"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "${packages[@]}"; } >"$DIR/log/apt.out" 2>&1 ||
    fail "cannot install ${packages[*]}: see $DIR/log/apt.out"
}

open_database() {    # own data and socket, no port: the machine's own database is not touched; root comes in by the socket
  [[ -d $DIR/db/mysql ]] || mariadb-install-db --no-defaults --user=root --datadir="$DIR/db" --skip-test-db
  setsid mariadbd --no-defaults --user=root --datadir="$DIR/db" --skip-networking --socket="$MYSQL_UNIX_PORT" \
    --pid-file="$DIR/run/mariadbd.pid" --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 &
}

up() {
  ((EUID == 0)) || fail "needs root"
  [[ ! -e $LINK ]] || link_ours || fail "$LINK is another SLURM's: remove it to use this one"
  mkdir -p "$DIR"/{etc,run,log,spool,state,dev,db} /etc/slurm
  install_packages
  configure
  ln -sfn "$SLURM_CONF" "$LINK"
  [[ -e $DIR/etc/munge.key ]] || mungekey --create --keyfile="$DIR/etc/munge.key"
  start munged authenticating munged --key-file="$DIR/etc/munge.key" --socket="$DIR/run/munged.sock" \
    --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log" --seed-file="$DIR/state/munged.seed"
  if [[ $ACCOUNTING ]]; then
    start mariadbd database_open open_database
    start slurmdbd accounting slurmdbd
  else
    stop slurmdbd mariadbd
  fi
  start slurmctld controlling slurmctld
  start slurmd node_ready slurmd
}

down() {
  if running slurmctld; then    # jobs outlive the daemons, so they go first
    squeue -h -o %A | xargs -r scancel --quiet || true
    within 20 no_jobs || echo "slurm-dev: jobs are left: see $DIR/log"
  fi
  stop slurmd slurmctld slurmdbd mariadbd munged
  if link_ours; then rm "$LINK"; fi
}

case ${1:-} in
  up) up ;;
  restart-controller) running slurmctld || fail "not up"; stop slurmctld; start slurmctld controlling slurmctld ;;
  status) controlling >/dev/null 2>&1 || fail "not up"; sinfo; squeue ;;
  down) down ;;
  *) fail "usage: ${0##*/} up|down|status|restart-controller" ;;
esac
