#!/usr/bin/env bash
# A throw-away SLURM of one node on this machine's loopback, for tests: real daemons, pretended GPUs.
#
#   slurm.sh up FOLDER     starts munged, slurmctld and slurmd; all they write lies in FOLDER (but /etc/slurm)
#   slurm.sh down FOLDER   stops them and removes their configuration
#
# Needs root and the packages slurmctld, slurmd, slurm-client and munge. Exit code 77: cannot be had here, the reason is
# on stderr. A SLURM that is configured already is left alone: then too the exit code is 77.
# Environment: GPUS (2), MIN_MEMORY_MB (left for others, 1000).
set -euo pipefail

usage() { sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'; }
cannot() {
  echo "no throw-away SLURM here: $1" >&2
  exit 77
}

# Where Debian's packages look. The executor's inner step drops SLURM_CONF, so it must be this place.
etc=/etc/slurm
mark="# written by a test, may be removed"

configure() {
  local mem
  mem=$(awk -v left="${MIN_MEMORY_MB:-1000}" '/MemTotal/ { print int($2 / 1024 - left) }' /proc/meminfo)
  local track=linuxproc task=none gather=none
  if [ -w /sys/fs/cgroup/memory ] && [ -w /sys/fs/cgroup/devices ]; then # version 1: memory and devices are enforced
    track=cgroup task=cgroup,task/affinity gather=cgroup
    cat > "$etc/cgroup.conf" << END
$mark
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainCores=yes
ConstrainRAMSpace=yes
ConstrainDevices=yes
END
  fi
  # Any character device that exists will do as a GPU.
  cat > "$etc/gres.conf" << END
$mark
AutoDetect=off
NodeName=localhost Name=gpu Type=fake File=/dev/tty[0-$((${GPUS:-2} - 1))]
END
  cat > "$etc/slurm.conf" << END
$mark
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/$track
TaskPlugin=task/$task
JobAcctGatherType=jobacct_gather/$gather
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=1,bf_interval=5,batch_sched_delay=1
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs.txt
MinJobAge=300
KillWait=20
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$mem Gres=gpu:fake:${GPUS:-2} State=UNKNOWN
PartitionName=cpu Nodes=localhost Default=YES MaxTime=240 DefaultTime=10 State=UP
PartitionName=gpu Nodes=localhost MaxTime=240 DefaultTime=10 State=UP
END
}

up() {
  [ "$(id -u)" = 0 ] || cannot "it needs root"
  for program in slurmctld slurmd squeue munged; do
    command -v "$program" > /dev/null || cannot "$program is not installed (packages: slurmctld slurmd slurm-client munge)"
  done
  if [ -e "$etc/slurm.conf" ] && ! grep -q "^$mark" "$etc/slurm.conf"; then
    cannot "$etc/slurm.conf is there and not ours"
  fi
  mkdir -p "$folder"/{state,spool} "$etc"
  configure
  (umask 077 && head -c 128 /dev/urandom > "$folder/munge.key")
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
  slurmctld -c
  slurmd
  for _ in $(seq 60); do
    if [ "$(timeout 5 sinfo --noheader --format=%T 2> /dev/null | sort -u)" = idle ]; then
      sinfo --format='%P %T %c cores %m MB %G'
      return
    fi
    sleep 0.5
  done
  tail -n 20 "$folder"/slurmctld.log "$folder"/slurmd.log >&2
  down
  cannot "the daemons did not come up (their logs are above)"
}

down() {
  timeout 10 scancel --user=root 2> /dev/null || true
  for daemon in slurmd slurmctld munged; do
    [ -s "$folder/$daemon.pid" ] || continue
    pid=$(cat "$folder/$daemon.pid")
    kill "$pid" 2> /dev/null || continue
    for _ in $(seq 40); do
      kill -0 "$pid" 2> /dev/null || break
      sleep 0.25
    done
    kill -9 "$pid" 2> /dev/null || true
  done
  for file in slurm gres cgroup; do
    if grep -qs "^$mark" "$etc/$file.conf"; then rm "$etc/$file.conf"; fi
  done
  find /sys/fs/cgroup -depth -type d -path '*slurm_localhost*' -exec rmdir {} + 2> /dev/null || true
}

case ${1:-} in
  up | down)
    folder=$(realpath -m "${2:?a folder}")
    "$1"
    ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
