#!/bin/bash
# The deb below a real systemd: installed, used, upgraded while a job runs, disabled, removed, purged.
# scripts/test-packages runs it as root in a throw-away system: deb.sh SHARED OLD.deb NEW.deb
set -euo pipefail
shared=$1 old=$1/$2 new=$1/$3 name=deb
. "$shared/common.sh"
export DEBIAN_FRONTEND=noninteractive
# Images for containers forbid packages to stop anything.
rm -f /usr/sbin/policy-rc.d

useradd -m -s /bin/bash tester
uid=$(id -u tester) home=/home/tester run=/run/user/$(id -u tester)
as() { runuser -u tester -- env -i PATH=/usr/bin:/bin HOME="$home" XDG_RUNTIME_DIR="$run" "$@"; }
user() { as systemctl --user "$@"; }
prop() { user show wandb-cred.service -p "$1" --value; }

# Somebody is logged in while the package comes.
loginctl enable-linger tester
until_ "the user's manager" 20 test -S "$run/systemd/private"
dpkg -i "$old" >/dev/null
installed /usr/bin/wandb-cred /usr/bin/wandb-credd /usr/lib/systemd/user/wandb-cred.{socket,service} \
    /usr/share/doc/wandb-cred/copyright /usr/share/bash-completion/completions/wandb-cred \
    /usr/share/zsh/vendor-completions/_wandb-cred /usr/share/fish/vendor_completions.d/wandb-cred.fish
[ "$(systemctl --global is-enabled wandb-cred.socket)" = enabled ] || fail "the socket is not enabled"
complaints=$(as systemd-analyze verify --user --man=no /usr/lib/systemd/user/wandb-cred.{socket,service} 2>&1) || true
[ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"
pass "installs; the socket is enabled for everybody"

! as wandb-cred service uninstall 2>"$home/said" && grep -q 'came with a package' "$home/said" ||
    fail "service uninstall: $(cat "$home/said")"
# No daemon answers yet.
said=$(as wandb-cred service status 2>&1) || true
[[ $said == "units    installed in /usr/lib/systemd/user"* ]] || fail "service status: $said"
as wandb-cred service install >/dev/null 2>&1 || fail "service install"
[ "$(user is-active wandb-cred.socket)" = active ] || fail "service install did not start the socket"
[ ! -e "$home/.config/systemd/user/wandb-cred.socket" ] || fail "service install hides the package's units"
pass "service install starts the package's own units at once, and copies none"
as systemctl --user disable --now wandb-cred.socket 2>/dev/null

start_sandbox --token-life 20 --jwt-life 60
configure
main_job # by a daemon on demand: this session began before the package came
systemctl restart "user@$uid"
until_ "the user's manager" 20 user is-active wandb-cred.socket
[ "$(prop ActiveState)" = inactive ] || fail "the service runs before anybody asked"
main_job
[ "$(prop ActiveState)" = active ] || fail "who served is not the service: $(prop ActiveState)"
pass "from the next login on the service starts on first use"

# A job that says when the token in its file changes, and goes on until it is told to end.
as tee "$home/job" >/dev/null <<'X'
while [ ! -e "$HOME/end" ]; do
    grep -o '"expires_at": *"[^"]*"' "$WANDB_CREDENTIALS_FILE" >>"$HOME/seen" || echo missing >>"$HOME/seen"
    sleep 0.2
done
echo finished >"$HOME/finished"
X
as wandb-cred exec -- sh "$home/job" &
job=$!
renewals() { sort -u "$home/seen" | grep -c expires_at; }
more_than() { [ "$(renewals)" -gt "$1" ]; }
until_ "the job's first token" 20 test -s "$home/seen"

before=$(prop MainPID)
dpkg -i "$new" >/dev/null
[ "$(prop MainPID)" = "$before" ] || fail "the upgrade restarted the user's daemon"
seen=$(renewals)
until_ "a renewal after the upgrade" 30 more_than "$seen"
main_job
pass "an upgrade leaves the running daemon and its job alone, and the new command knows the old daemon"

user daemon-reload
user restart wandb-cred.service
[ "$(prop MainPID)" != "$before" ] || fail "the daemon was not restarted"
seen=$(renewals)
until_ "a renewal by the new daemon" 30 more_than "$seen"
as wandb-cred status --jobs | grep -q 'job\|sh' || fail "the new daemon does not know the job"
! grep -q missing "$home/seen" || fail "the job's file was away"
pass "the new daemon takes the job over"

systemctl --global disable wandb-cred.socket 2>/dev/null
dpkg -i "$old" >/dev/null
[ "$(systemctl --global is-enabled wandb-cred.socket || true)" = disabled ] || fail "an upgrade undid the administrator's choice"
main_job
pass "a downgrade works, and the administrator's choice stays"

dpkg -r wandb-cred >/dev/null
[ "$(user is-active wandb-cred.socket || true)" = inactive ] || fail "the socket still listens after the removal"
kill -0 "$job" || fail "the removal ended the job"
as touch "$home/end"
wait "$job" || fail "the job ended with $?"
[ -s "$home/finished" ] && [ -s "$home/.config/wandb-cred/config.toml" ] || fail "the job or the configuration is lost"
dpkg -P wandb-cred >/dev/null
gone
left=$(find /var/lib/systemd /etc/systemd -name '*wandb-cred*')
[ -z "$left" ] || fail "purge left $left"
pass "removed and purged; the job went on, and the user's configuration is there"
