#!/bin/bash
# What runs on the login node: munge and Slurm's controller, both in the folder SLURM, as children of this script.
set -euo pipefail
slurm=$1
mkdir -p "$slurm"/{munge,state}
dd if=/dev/urandom of="$slurm/munge/key" bs=128 count=1 status=none
chown -R munge: "$slurm/munge"
chmod 400 "$slurm/munge/key"
chmod 755 "$slurm/munge"
cd /
setpriv --reuid=munge --regid=munge --clear-groups munged --foreground --force --key-file="$slurm/munge/key" \
    --socket="$slurm/munge/socket" --pid-file="$slurm/munge/pid" --log-file="$slurm/munge/log" \
    --seed-file="$slurm/munge/seed" &
for ((i = 0; i < 200; i++)); do [ -S "$slurm/munge/socket" ] && break; sleep 0.05; done
exec slurmctld -D -c -f "$slurm/slurm.conf"
