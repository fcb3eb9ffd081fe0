#!/bin/bash
# The package for Arch by pacman itself: installed, used, upgraded, removed. Below it is a Debian, whose packages pacman does
# not know, so what it needs is compared.
# scripts/test-packages runs it as root in a throw-away copy of this machine: arch.sh SHARED OLD NEW
set -euo pipefail
shared=$1 old=$1/$2 new=$1/$3 name=arch
. "$shared/common.sh"
somebody
pac() { pacman --noconfirm --config /dev/null --dbpath /tmp/pacman --cachedir /tmp "$@" >/tmp/pacman.log || { cat /tmp/pacman.log >&2; fail "pacman $*"; }; }

mkdir -p /tmp/pacman
ln -sf bash /bin/sh # as on Arch
pac -Qip "$old"
needs=$(sed -n 's/^Depends On *: //p' /tmp/pacman.log)
[[ $needs =~ ^'ca-certificates  glibc>=2.'[0-9]+$ ]] || fail "it needs $needs"

pac -Udd "$old"
grep -q 'systemctl --user enable --now wandb-cred.socket' /tmp/pacman.log || fail "it does not say how to enable the socket"
installed /usr/bin/wandb-cred /usr/bin/wandb-credd /usr/lib/systemd/user/wandb-cred.{socket,service} \
    /usr/share/licenses/wandb-cred/LICENSE-MIT /usr/share/zsh/site-functions/_wandb-cred
[ ! -e /etc/systemd/user/sockets.target.wants/wandb-cred.socket ] || fail "it enabled the socket"
pac -Qkk wandb-cred
pass "installs, and enables nothing"
start_sandbox
configure
main_job

pac -Udd "$new"
pac -Q wandb-cred
grep -q '^wandb-cred 0.1.1-1$' /tmp/pacman.log || fail "not upgraded: $(cat /tmp/pacman.log)"
main_job
pac -Rdd wandb-cred
gone
pass "upgrades, and is removed"
