#!/bin/bash
# What the ranks of a test run: steps that each do one thing and become the next. The same file says when a rank started and
# when it had W&B's files, because a process in between would be measured too.
#
#   rank.sh OUT start  COMMAND...     notes the time, becomes COMMAND
#   rank.sh OUT got    [COMMAND...]   reports that the files are there, in OUT/JOB.STEP.RANK; becomes COMMAND
#   rank.sh OUT hold   [COMMAND...]   waits until OUT/go is there
#   rank.sh OUT renew  [COMMAND...]   waits until credentials.json has another token
#   rank.sh OUT ignore                ignores SIGTERM and never ends
set -eu
out=$1 step=$2
shift 2
exec {never}<> <(:)
pause() { read -rt 0.3 -u "$never" || true; }

case $step in
    start) export RANK_START=$EPOCHREALTIME ;;
    got)
        now=$EPOCHREALTIME
        [[ -s ${WANDB_IDENTITY_TOKEN_FILE:-} && -s ${WANDB_CREDENTIALS_FILE:-} && -z ${WANDB_API_KEY:-} ]]
        name=${SLURM_JOB_ID:-0}.${SLURM_STEP_ID:-batch}.${SLURM_PROCID:-0}
        printf '%s\n' "$SLURMD_NODENAME" "${RANK_START:-$now}" "$now" "$WANDB_CREDENTIALS_FILE" \
            "$(<"$WANDB_IDENTITY_TOKEN_FILE")" >"$out/.$name"
        mv "$out/.$name" "$out/$name"
        ;;
    hold) until [ -e "$out/go" ]; do pause; done ;;
    renew)
        before=$(<"$WANDB_CREDENTIALS_FILE")
        while [ "$(<"$WANDB_CREDENTIALS_FILE")" = "$before" ]; do pause; done
        ;;
    ignore)
        trap '' TERM
        while :; do pause; done
        ;;
esac
exec {never}>&-
[ $# -gt 0 ] || exit 0
exec "$@"
