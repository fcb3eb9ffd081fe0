#!/bin/sh
# Slurm's Epilog: removes what wandb-cred's daemons of the ended job left on this node, if they were killed before they could.
#
#   slurm.conf:  Epilog=/etc/slurm/wandb-cred-epilog.sh
#
# Slurm runs this as root on each node of the job. Root only reads /proc; everything in a folder of the user's is done as that
# user, so a symlink in the way leads to nothing that the user could not remove anyway. An Epilog that fails drains its node,
# and one that hangs keeps it: this one always succeeds, within WANDB_CRED_TIMEOUT seconds (20).
#
# WANDB_CRED_TEMP_DIRS: the folders that jobs have for TMPDIR on this node, separated by spaces (/tmp).
set -eu

bases() {
    printf '%s\n' "/run/user/$uid/wandb-cred"
    for folder in ${WANDB_CRED_TEMP_DIRS:-/tmp}; do
        # With a number where another user has the plain name.
        for number in '' -1 -2 -3 -4 -5 -6 -7 -8 -9; do printf '%s\n' "$folder/wandb-cred-$uid$number"; done
    done
}

# The daemons of the job that still live. The kernel lists sockets by the path that they were bound to; what a daemon has
# open, only root can see.
daemons() {
    bases | while read -r base; do
        awk -v step="$base/slurm-$job." -v fed="$base/job-$job/" -v own="$base/job-$job-" \
            'index($8, step) == 1 || index($8, fed) == 1 || index($8, own) == 1 { print "socket:[" $7 "]" }' /proc/net/unix
    done | while read -r socket; do
        find /proc/[0-9]*/fd -lname "$(printf %s "$socket" | sed 's/[][]/\\&/g')" 2>/dev/null | cut -d/ -f3
    done | sort -u
}

# As the user, who can signal and remove only what is the user's own.
clean() {
    if [ -n "$*" ]; then
        # A daemon that were only robbed of its folder would make it anew; asked to end, it removes its files itself.
        kill -TERM "$@" 2>/dev/null || true
        tries=50
        while [ $tries -gt 0 ] && kill -0 "$@" 2>/dev/null; do
            sleep 0.1
            tries=$((tries - 1))
        done
        kill -KILL "$@" 2>/dev/null || true
    fi
    bases | while read -r base; do
        # A daemon on demand for each step; those of `exec --job` and `feed --job`.
        for folder in "$base"/slurm-"$job".* "$base"/job-"$job" "$base"/job-"$job"-*; do
            if [ -d "$folder" ] && [ ! -L "$folder" ]; then rm -rf -- "$folder"; fi
        done
    done
}

job=${SLURM_JOB_ID:-} uid=${SLURM_JOB_UID:-}
# Both become part of a path: digits only.
case $job in '' | *[!0-9]*) exit 0 ;; esac
case $uid in '' | 0 | *[!0-9]*) exit 0 ;; esac
cd /
if [ "${1:-}" = --as-user ]; then
    shift
    clean "$@"
else
    # The group does not matter: the folders are the user's own.
    timeout --signal=KILL "${WANDB_CRED_TIMEOUT:-20}" setpriv --reuid="$uid" --regid="$uid" --clear-groups \
        --inh-caps=-all --no-new-privs -- "$0" --as-user $(daemons) </dev/null || true
fi
exit 0
