# shellcheck shell=bash disable=SC2034
# What the commands of this folder share: names, addresses, and what is said when something fails. Read, never run.
#
# A cluster has a name and a number. Its one node is a set of namespaces of the kernel (processes, mounts, network, host
# name, cgroups): whatever runs, listens or is mounted in there ends with the node's first process and leaves nothing.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

clusters=${PVFERRY_CLUSTER_DIR:-/var/tmp/pvferry-cluster}
net=${PVFERRY_CLUSTER_NET:-10.213}
highest_number=50

# Folders of this machine that a node has its own mounted on. One that was made for that is marked, and removed again.
places=(/var/lib/kubelet /var/lib/cni)
made_here=.made-by-tests-cluster-up

# die SENTENCE [LOG]: ends the command; of a log, the end is shown, where the reason is.
die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    if [[ -n ${2:-} && -s $2 ]]; then
        printf -- '--- the end of %s\n' "$2" >&2
        tail -n 10 "$2" | cut -c -300 >&2
    fi
    exit 1
}

say() {
    printf '[%3d s] %s\n' "$SECONDS" "$*"
}

need_root() {
    ((EUID == 0)) || die "namespaces, mounts and network links of a node need root"
}

# The name becomes part of host names, paths and Kubernetes objects.
use_cluster() {
    name=$1
    [[ $name =~ ^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$ ]] || die "'$name' is no name of a cluster: small letters, digits and dashes"
    dir=$clusters/$name
}

# Where a cluster of this number is found. Numbers do not overlap, so that any two clusters may run side by side.
use_number() {
    number=$1
    host_ip=$net.$number.1
    node_ip=$net.$number.2
    pod_net=$net.$((100 + number)).0/24
    service_net=$net.$((200 + number)).0/24
    service_ip=$net.$((200 + number)).1
    host_link=pvferry$number
    server=https://$node_ip:6443
}

# node_pid DIR: the node's first process, where it lives. The number alone could belong to someone else by now.
node_pid() {
    local pid words=()
    [[ -s $1/pid ]] && read -r pid <"$1/pid" || return 1
    mapfile -d '' -t words 2>/dev/null <"/proc/$pid/cmdline" || return 1
    [[ ${words[*]} == *"/node-init $1" ]] || return 1
    printf '%s\n' "$pid"
}

use_running_cluster() {
    use_cluster "$1"
    pid=$(node_pid "$dir") || die "cluster $name is not up: tests/cluster/up $name"
    use_number "$(<"$dir/number")"
    export KUBECONFIG=$dir/kubeconfig
}

# in_node COMMAND...: as if it were typed on the node.
in_node() {
    nsenter --target "$pid" --all -- "$@"
}

# wait_for SECONDS WHAT LOG COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what=$2 log=$3
    shift 3
    until "$@" >/dev/null 2>&1; do
        node_pid "$dir" >/dev/null || die "the node ended while waiting for $what" "$dir/log/node.log"
        ((SECONDS < until)) || die "waited in vain for $what" "$log"
        sleep 0.3
    done
}

# Held until the command ends, and not by what it leaves running. Numbers and links of two clusters must not cross.
take_lock() {
    install -d -m 700 "$clusters"
    [[ -O $clusters ]] || die "$clusters belongs to someone else: choose another place with PVFERRY_CLUSTER_DIR"
    while :; do
        exec {lock}>"$clusters/lock"
        flock "$lock"
        # The last cluster to go has taken the lock's file along: it then guards nothing.
        [[ ! $clusters/lock -ef /proc/self/fd/$lock ]] || return 0
        exec {lock}>&-
        install -d -m 700 "$clusters"
    done
}

# remove_cluster NAME: with all that was its own. The lock must be held.
remove_cluster() {
    local pid cgroup attempt
    use_cluster "$1"
    if [[ ! -d $dir ]]; then
        say "cluster $name is not there"
        return
    fi
    # With its first process the kernel ends every other one of the node, and then drops the mounts, links and rules
    # that only they could see. Links to other nodes go as well: a pair of veths lives and dies together.
    if pid=$(node_pid "$dir"); then
        kill -KILL "$pid"
        for ((attempt = 0; attempt < 300; attempt++)); do
            node_pid "$dir" >/dev/null || break
            sleep 0.1
        done
        ! node_pid "$dir" >/dev/null || die "the node of cluster $name does not end (process $pid)"
    fi
    if [[ -s $dir/cgroups ]]; then
        while read -r cgroup; do
            remove_cgroup "$cgroup"
        done <"$dir/cgroups"
    fi
    rm -rf --one-file-system "$dir" || die "$dir cannot be removed: is something mounted in it?"
    say "cluster $name is gone"
}

# The kernel lets go of the ended processes a little later than it reports their end.
remove_cgroup() {
    local attempt
    for ((attempt = 0; attempt < 50; attempt++)); do
        [[ -d $1 ]] || return 0
        find "$1" -depth -type d -exec rmdir {} + 2>/dev/null && return
        sleep 0.1
    done
    die "cgroup $1 cannot be removed: who is still in it? $(find "$1" -name cgroup.procs -exec cat {} + | tr '\n' ' ')"
}

# hand_on_controllers CGROUP: of version 2, to the cgroups in it. One that is in use elsewhere may refuse.
hand_on_controllers() {
    local each
    for each in $(<"$1/cgroup.controllers"); do
        echo "+$each" >"$1/cgroup.subtree_control" || true
    done
}
