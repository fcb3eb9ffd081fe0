# Sourced by the hooks: a daemon for one job, from its first hook to its last. What is known of it between them is in exported
# variables, which the agent hands on.

wandb_cred_begin() {
    local setting=BUILDKITE_PLUGIN_WANDB_CRED
    configured() { local name=${setting}_$1; printf %s "${!name:-${2:-}}"; }
    quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }
    local kit root version config environment
    kit=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../ci" && pwd) || return
    root=$kit/../..
    config=$(configured CONFIG)
    if [ -z "$config" ] && [ -z "$(configured AUDIENCE)" ]; then
        echo "wandb-cred: \`audience\` is missing: the name of your W&B organization" >&2
        return 1
    fi

    # Short, since the path of a socket is limited. pre-exit looks for it.
    WANDB_CRED_KIT_FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/wandb-cred-XXXXXX") || return
    export WANDB_CRED_KIT_FOLDER
    mkdir -m 700 "$WANDB_CRED_KIT_FOLDER/bin" "$WANDB_CRED_KIT_FOLDER/exec-job" || return
    version=$(configured VERSION "$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)")
    (
        WANDB_CRED_SHA256=$(configured SHA256)
        WANDB_CRED_RELEASES=$(configured RELEASES)
        export WANDB_CRED_SHA256 WANDB_CRED_RELEASES
        sh "$kit/install.sh" "$WANDB_CRED_KIT_FOLDER/bin" "$version" "$(configured INSTALL_FROM release)"
    ) || return

    export PATH=$WANDB_CRED_KIT_FOLDER/bin:$PATH
    export WANDB_CRED_SOCKET=$WANDB_CRED_KIT_FOLDER/exec-job/wandb-cred.sock
    export WANDB_CRED_CONFIG=${config:-$WANDB_CRED_KIT_FOLDER/config.toml}
    if [ -n "$(configured PROFILE)" ]; then
        WANDB_CRED_PROFILE=$(configured PROFILE)
        export WANDB_CRED_PROFILE
    fi
    if [ -z "$config" ]; then
        {
            echo "[profile.ci]"
            echo "audience = $(quoted "$(configured AUDIENCE)")"
            [ -z "$(configured BASE_URL)" ] || echo "base-url = $(quoted "$(configured BASE_URL)")"
            echo "[profile.ci.provider.buildkite]"
            [ -z "$(configured SUBJECT_CLAIM)" ] || echo "subject-claim = $(quoted "$(configured SUBJECT_CLAIM)")"
        } >"$WANDB_CRED_CONFIG" || return
    fi

    # This shell ends with this hook. Its parent is the agent's process for the job.
    WANDB_CRED_KIT_HOLDER=$(
        sh "$kit/hold.sh" "$PPID" </dev/null >/dev/null 2>&1 &
        echo $!
    )
    export WANDB_CRED_KIT_HOLDER
    if ! wandb-credd run --background --lifetime-of "$WANDB_CRED_KIT_HOLDER" 2>"$WANDB_CRED_KIT_FOLDER/daemon.log"; then
        cat "$WANDB_CRED_KIT_FOLDER/daemon.log" >&2
        return 1
    fi
    local -a proxy=()
    case $(configured PROXY) in true | on | 1) proxy=(--proxy) ;; esac
    environment=$(wandb-cred env --pid "$WANDB_CRED_KIT_HOLDER" "${proxy[@]}") || return
    eval "$environment"

    # Agents before 3.66 have no redactor. Where access tokens come from another daemon, the file holds a word, no JWT.
    local secret identity
    identity=$(cat "${WANDB_IDENTITY_TOKEN_FILE:-/dev/null}")
    case $identity in *.*) ;; *) identity= ;; esac
    for secret in "$(wandb-cred token)" "$identity" "${WANDB_API_KEY:-}"; do
        [ -z "$secret" ] || printf %s "$secret" | buildkite-agent redactor add >/dev/null 2>&1 || true
    done
}

wandb_cred_end() {
    local runtime=$WANDB_CRED_KIT_FOLDER/exec-job tries=0
    # Its folder is the daemon's to remove, when it has ended.
    if [ -n "${WANDB_CRED_KIT_HOLDER:-}" ]; then
        kill "$WANDB_CRED_KIT_HOLDER" 2>/dev/null
        while [ -d "$runtime" ] && [ "$tries" -lt 100 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
    fi
    cat "$WANDB_CRED_KIT_FOLDER/daemon.log" 2>/dev/null
    rm -rf "$WANDB_CRED_KIT_FOLDER"
}
