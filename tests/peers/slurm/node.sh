#!/bin/bash
# One machine of the test's cluster, as PID 1 of its own PID namespace: own /tmp, /run, /dev/shm, host name and boot id, and
# a user database with the test's users. Only BASE, which plays the shared file system, and the network are common.
#
#   unshare --mount --uts --pid --fork --kill-child --mount-proc node.sh NAME BASE VISIBLE... -- COMMAND...
#
# VISIBLE are folders that other users than root must reach, though they may be below a closed one such as /root.
# COMMAND runs in the background; `ready` appears in BASE/NAME when the machine is furnished. It ends when it is killed.
set -euo pipefail
name=$1 base=$2
shift 2
visible=()
while [ "$1" != -- ]; do visible+=("$1"); shift; done
shift
own=$base/$name
mkdir -p "$own"

mount --make-rprivate /
hostname "$name"
cat /proc/sys/kernel/random/uuid >"$own/boot_id"
mount --bind "$own/boot_id" /proc/sys/kernel/random/boot_id
mount --bind "$base/passwd" /etc/passwd
mount --bind "$base/group" /etc/group

# Each closed folder above what must be seen becomes an empty one with nothing else in it.
holds=/mnt
mount -t tmpfs -o mode=755 tmpfs $holds
mkdir "$holds/base"
mount --rbind "$base" "$holds/base"
count=0
for folder in "${visible[@]}"; do
    mkdir "$holds/$count"
    mount --rbind "$folder" "$holds/$count"
    count=$((count + 1))
done
closed=()
for folder in "${visible[@]}"; do
    above=$folder topmost=
    while [ "$above" != / ]; do
        above=$(dirname "$above")
        [ $((0$(stat -c %a "$above") & 1)) = 1 ] || topmost=$above
    done
    [ -z "$topmost" ] || closed+=("$topmost")
done
for folder in "${closed[@]}"; do
    mountpoint -q "$folder" || mount -t tmpfs -o mode=755 tmpfs "$folder"
done
for folder in /tmp /dev/shm /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/user
count=0
for folder in "${visible[@]}"; do
    mkdir -p "$folder"
    mountpoint -q "$folder" || mount --rbind "$holds/$count" "$folder"
    count=$((count + 1))
done
mkdir -p "$base"
mount --rbind "$holds/base" "$base"
umount -l $holds

"$@" </dev/null >"$own/log" 2>&1 &
touch "$own/ready"
# Reaps what is left to PID 1, for as long as this machine is up.
while :; do wait -n 2>/dev/null || sleep 0.2; done
