#!/bin/sh
# The apk's files in a root with musl and BusyBox and no glibc, as Alpine is: looks up a host in DNS, gets a token, and a
# shell script asks W&B with it. scripts/test-packages runs it in that root as a user: apk.sh URL
set -eu
url=$1
fail() { echo "test-packages: apk: $*" >&2; exit 1; }

[ -z "$(find / -name 'libc.so.6' 2>/dev/null)" ] || fail "there is a glibc"
mkdir -p "$HOME/.config/wandb-cred" "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
cat >"$HOME/.config/wandb-cred/config.toml" <<X
[profile.work]
base-url = "$url"
audience = "sandbox"
allow-plain-http = "127.0.0.0/8"
[profile.work.provider.file]
path = "/home/tester/jwt"
X
chmod 600 "$HOME/.config/wandb-cred/config.toml"
case $(wandb-cred token) in wb_at_*) ;; *) fail "no token" ;; esac
echo "  ok: apk: a token without any glibc, from a host that DNS knows"
who=$(wandb-cred exec -- sh -c '
    token=$(sed "s/.*\"access_token\":\"\([^\"]*\)\".*/\1/" "$WANDB_CREDENTIALS_FILE")
    busybox wget -q -O - --header "authorization: Bearer $token" --header "content-type: application/json" \
        --post-data "{\"query\": \"query Viewer { viewer { email } }\"}" "$WANDB_BASE_URL/graphql"')
case $who in *'"dev@example.com"'*) ;; *) fail "the client is $who" ;; esac
echo "  ok: apk: exec of a client that W&B knows"
