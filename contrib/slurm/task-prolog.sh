#!/bin/sh
# Slurm's TaskProlog: gives each task W&B credentials that stay fresh, so that a plain `srun python train.py` works.
#
#   slurm.conf:  TaskProlog=/etc/slurm/wandb-cred-task-prolog.sh
#
# Slurm runs this as the task's user, as a child of the process that becomes the task (SLURM_TASK_PID), and takes lines
# `export NAME=VALUE` and `unset NAME` from its standard output; VALUE is everything up to the end of the line.
#
# Whoever has no configuration of wandb-cred is left alone, and so is whoever sets WANDB_CRED_TASK_PROLOG=off. It never fails
# a task: without credentials the task says itself what it lacks.
set -u

[ "${WANDB_CRED_TASK_PROLOG:-on}" != off ] || exit 0
[ -n "${SLURM_TASK_PID:-}" ] || exit 0
command=${WANDB_CRED:-wandb-cred}
command -v "$command" >/dev/null 2>&1 || exit 0
config=${WANDB_CRED_CONFIG:-${XDG_CONFIG_HOME:-${HOME:-}/.config}/wandb-cred/config.toml}
[ -e "$config" ] || exit 0

# Slurm waits for this script, and for everything that holds its standard output.
variables=$(timeout "${WANDB_CRED_TIMEOUT:-70}" "$command" env --shell sh --pid "$SLURM_TASK_PID") || {
    echo "wandb-cred: this task has no W&B credentials (see above); WANDB_CRED_TASK_PROLOG=off switches this off" >&2
    exit 0
}
# In a shell of its own, so that quotes are undone and nothing else is taken over.
(
    eval "$variables"
    for name in WANDB_IDENTITY_TOKEN_FILE WANDB_CREDENTIALS_FILE WANDB_BASE_URL WANDB_CRED_PROFILE WANDB_CRED_SOCKET; do
        eval "value=\${$name:-}"
        [ -z "$value" ] || printf 'export %s=%s\n' "$name" "$value"
    done
)
echo "unset WANDB_API_KEY"
