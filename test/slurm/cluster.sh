#!/usr/bin/env bash
# A Slurm cluster of three nodes on one machine, as root, in one folder, on loopback:
# cn1 and cn2 in the partition cpu, gn1 with two stand-ins for GPUs in the partition gpu.
#
#   cluster.sh install            the Debian packages, where they are missing
#   cluster.sh start FOLDER PID   idempotent: starts what does not run; stops it when PID is gone
#   cluster.sh stop FOLDER        stops what was started there; removes the folder
#
# Until it is stopped two things outside the folder are changed: /etc/slurm/slurm.conf is a link to the
# one in the folder (a job clears its environment of SLURM_CONF, so there is no other way to tell
# srun), and where the name of this machine is no loopback address, /etc/hosts has it.
set -euo pipefail

CONF=/etc/slurm/slurm.conf
HOSTS=/etc/hosts
MARK="# cluster.sh"
NODES=(cn1 cn2 gn1)
PROGRAMS=(munged slurmctld slurmd sbatch)

fail() { echo "cluster.sh: $*" >&2; exit 1; }

running() { # PID-FILE PROGRAM: the process is that program and no zombie
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] &&
        ! grep -q '^State:.*Z' "/proc/$pid/status"
}

await() { # SECONDS COMMAND...
    local left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        ((left-- > 0)) || return 1
        sleep 0.2
    done
}

start_unless_running() { # PID-FILE COMMAND...
    running "$1" "$(basename "$2")" || "${@:2}"
}

install_packages() {
    command -v "${PROGRAMS[@]}" >/dev/null && return
    [ "$(id -u)" = 0 ] || fail "Slurm is not installed, and installing it needs root"
    command -v apt-get >/dev/null || fail "Slurm is not installed, and there is no apt-get"
    local policy=/usr/sbin/policy-rc.d
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::http::Timeout=20)
    # The packages start services of their own unless this file says no.
    [ -e $policy ] || {
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    }
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" update || true # what is known already may do
    "${apt[@]}" install -y --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null ||
        fail "apt-get cannot install Slurm"
}

configure() { # FOLDER
    local folder=$1 host=$2 port=17001 node more
    cat >"$folder/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
MailProg=/bin/true
# No cgroups: processes are found by their parents, memory is sampled and a job above it is killed.
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
# The nodes have more CPUs than the machine.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
# A dead node is found soon, a finished job is remembered.
SlurmdTimeout=6
MessageTimeout=3
KillWait=2
MinJobAge=600
ReturnToService=2
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs.txt
GresTypes=gpu
PartitionName=cpu Nodes=cn1,cn2 Default=YES MaxTime=1-0
PartitionName=gpu Nodes=gn1 MaxTime=1-0
CONF
    for node in "${NODES[@]}"; do
        # Jobs go to cn2 first, unless they want a node that stays up.
        case $node in
            cn1) more="Weight=2 Feature=stays" ;;
            cn2) more="Weight=1" ;;
            gn1) more="Weight=1 Feature=stays Gres=gpu:2" ;;
        esac
        echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port++))" \
            "CPUs=8 RealMemory=16000 $more" >>"$folder/slurm.conf"
    done
    echo "NodeName=gn1 Name=gpu File=$folder/gpu[0-1]" >"$folder/gres.conf"
    # Newer versions ask for cgroups unless told otherwise; older ones do not know the word.
    echo "# not used" >"$folder/cgroup.conf"
    [[ $(slurmctld -V) =~ \ (2[012]|23.02) ]] || echo "CgroupPlugin=disabled" >"$folder/cgroup.conf"
}

idle() { [ "$(sinfo -h -N -o '%T %N' | sort -u | grep -cE '^(idle|mixed|allocated) ')" = ${#NODES[@]} ]; }

no_jobs() { [ -z "$(timeout 5 squeue -h)" ]; }

start() { # FOLDER PID
    local folder=$1 host i node
    [ "$(id -u)" = 0 ] || fail "starting Slurm needs root"
    command -v "${PROGRAMS[@]}" >/dev/null || fail "Slurm is not installed: cluster.sh install"
    [ ! -e $CONF ] || [ $CONF -ef "$folder/slurm.conf" ] || fail "$CONF: this machine has a Slurm of its own"
    umask 022
    mkdir -p "$folder/state" "$folder/munge" "$(dirname $CONF)"
    host=$(hostname -s)
    [[ $(getent ahostsv4 "$host" || true) = 127.* ]] || echo "127.0.0.1 $host $MARK" >>$HOSTS
    [ -e "$folder/slurm.conf" ] || configure "$folder" "$host"
    ln -sfn "$folder/slurm.conf" $CONF
    if ! running "$folder/keeper.pid" cluster.sh; then
        setsid "$0" keep "$folder" "$2" </dev/null >/dev/null 2>&1 &
    fi
    # The null device stands for a GPU: Slurm wants a character device.
    for i in 0 1; do
        [ -e "$folder/gpu$i" ] || mknod -m 666 "$folder/gpu$i" c 1 3 || fail "no device can be made here"
    done
    [ -e "$folder/munge/key" ] || (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
    # Forced: only root has to get at the socket.
    start_unless_running "$folder/munge/pid" munged --force --socket="$folder/munge/socket" \
        --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    await 10 munge -S "$folder/munge/socket" -n || fail "munged does not answer: $folder/munge/log"
    start_unless_running "$folder/slurmctld.pid" slurmctld -f "$folder/slurm.conf"
    await 20 scontrol ping || fail "slurmctld does not answer: $folder/slurmctld.log"
    for node in "${NODES[@]}"; do
        start_unless_running "$folder/slurmd-$node.pid" slurmd -f "$folder/slurm.conf" -N "$node"
    done
    await 20 idle || fail "the nodes are not idle: $(sinfo -h -N -o '%N %T')"
}

keep() { # FOLDER PID: whatever ends the process that wanted the cluster, no daemon stays behind
    echo $$ >"$1/keeper.pid"
    while [ -e "$1" ] && grep -qs '^State:.*[^Z] (' "/proc/$2/status"; do sleep 1; done
    stop "$1"
}

stopped() { ! running "$@"; }

stop() { # FOLDER
    local folder=$1 file program
    [ $CONF -ef "$folder/slurm.conf" ] || return 0
    timeout 10 scancel --user "$(id -un)" || true
    await 10 no_jobs || true
    for file in "$folder"/slurmd-*.pid "$folder/slurmctld.pid" "$folder/munge/pid"; do
        for program in slurmd slurmctld munged; do
            running "$file" $program || continue
            kill "$(cat "$file")"
            await 10 stopped "$file" $program || kill -9 "$(cat "$file")"
        done
    done
    ! grep -q "$MARK\$" $HOSTS || {
        grep -v "$MARK\$" $HOSTS >"$folder/hosts"
        cat "$folder/hosts" >$HOSTS # which may be mounted, so not to be replaced
    }
    rm -rf $CONF "$folder"
}

case "${1:-}" in
    install) install_packages ;;
    start | keep) [ $# = 3 ] || fail "which folder, for which process?"; "$1" "$(realpath -m "$2")" "$3" ;;
    stop) [ $# = 2 ] || fail "which folder?"; stop "$(realpath -m "$2")" ;;
    *) fail "install, start FOLDER PID or stop FOLDER" ;;
esac
