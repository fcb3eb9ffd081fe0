# What the tests of packages share. Sourced; $shared is the folder with the packages and the sandbox, $name the package's kind.

fail() { echo "test-packages: $name: $*" >&2; exit 1; }
pass() { echo "  ok: $name: $*"; }

# until_ WHAT SECONDS COMMAND...: polls.
until_() {
    local what=$1 tries=$(($2 * 20)); shift 2
    for ((i = 0; i < tries; i++)); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
    fail "$what: not in time"
}

# installed FILE...: each is there, and belongs to root alone.
installed() {
    local file
    for file in "$@"; do
        [ -f "$file" ] || fail "$file is not there"
        [ "$(stat -c %u:%g "$file")" = 0:0 ] || fail "$file belongs to $(stat -c %u:%g "$file")"
        [ -z "$(find "$file" -perm /022)" ] || fail "$file can be written by others"
    done
}

# gone: no file of ours is left in the system's folders.
gone() {
    local left
    left=$(find /usr /etc -name '*wandb-cred*' -not -path '*/wandb-cred-test*' 2>/dev/null || true)
    [ -z "$left" ] || fail "left behind: $left"
}

# start_sandbox OPTION...: as the user of the test, from the folder that the test brought. Sets url.
start_sandbox() {
    as sh -c 'exec "$0" serve --ready-file "$HOME/url" "$@" >"$HOME/sandbox.log" 2>&1' "$shared/wandb-cred-sandbox" "$@" &
    sandbox=$!
    until_ "the sandbox" 20 test -s "$home/url"
    url=$(cat "$home/url")
}

# configure: a profile whose identity comes from a command, as users have it.
configure() {
    as mkdir -p "$home/.config/wandb-cred"
    as tee "$home/.config/wandb-cred/config.toml" >/dev/null <<X
[profile.work]
base-url = "$url"
audience = "sandbox"
[profile.work.provider.command]
argv = ["$shared/wandb-cred-sandbox", "mint", "--url", "$url"]
X
}

# main_job: a token for a script, and a client that reads the SDK's file as an unmodified SDK does, and asks W&B who it is.
main_job() {
    local token who
    token=$(as wandb-cred token) || fail "no token"
    [[ $token == wb_at_* ]] || fail "no token"
    who=$(as wandb-cred exec -- python3 -c "$client") || fail "the client ended with $?: $who"
    [ "$who" = "dev@example.com" ] || fail "the client is $who"
    pass "token, and exec of a client that W&B knows"
}

client='
import json, os, urllib.request
base = os.environ["WANDB_BASE_URL"]
token = json.load(open(os.environ["WANDB_CREDENTIALS_FILE"]))["credentials"][base]["access_token"]
question = json.dumps({"query": "query Viewer { viewer { email } }"}).encode()
headers = {"authorization": "Bearer " + token, "content-type": "application/json"}
answer = urllib.request.urlopen(urllib.request.Request(base + "/graphql", question, headers), timeout=20)
print(json.load(answer)["data"]["viewer"]["email"])'

# somebody: a user without a session of systemd's, as in a container. Sets home, and `as` runs a command as that user.
somebody() {
    useradd -m -s /bin/bash tester
    home=/home/tester
    install -d -o tester -m 700 /run/tester
    as() { runuser -u tester -- env -i PATH="${programs:-}/usr/bin:/bin" HOME="$home" XDG_RUNTIME_DIR=/run/tester "$@"; }
}
