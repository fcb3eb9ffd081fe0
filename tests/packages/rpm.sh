#!/bin/bash
# The rpm by rpm itself: installed, used, upgraded, erased. Below it is a Debian, whose packages rpm does not know, so what
# it needs is compared with what distributions provide.
# scripts/test-packages runs it as root in a throw-away copy of this machine: rpm.sh SHARED OLD.rpm NEW.rpm
set -euo pipefail
shared=$1 old=$1/$2 new=$1/$3 name=rpm
. "$shared/common.sh"
somebody

needs=$(rpm -qp --requires "$old" | grep -v '^rpmlib(' | sort | tr '\n' ' ')
[[ $needs =~ ^'ca-certificates libc.so.6(GLIBC_2.'[0-9]+')(64bit) '$ ]] || fail "it needs $needs"
rpm -K --nosignature "$old" >/dev/null || fail "its digests are wrong"

rpm -i --nodeps --force-debian "$old"
installed /usr/bin/wandb-cred /usr/bin/wandb-credd /usr/lib/systemd/user/wandb-cred.{socket,service} \
    /usr/lib/systemd/user-preset/80-wandb-cred.preset /usr/share/licenses/wandb-cred/LICENSE-MIT \
    /usr/share/zsh/site-functions/_wandb-cred
[ -L /etc/systemd/user/sockets.target.wants/wandb-cred.socket ] || fail "the preset did not enable the socket"
rpm -V --nodeps wandb-cred || fail "rpm -V finds differences"
pass "installs; its preset enables the socket for everybody"
start_sandbox
configure
main_job

systemctl --global disable wandb-cred.socket 2>/dev/null
rpm -U --nodeps --force-debian "$new"
[ "$(rpm -q --qf '%{VERSION}' wandb-cred)" = 0.1.1 ] || fail "not upgraded"
[ ! -L /etc/systemd/user/sockets.target.wants/wandb-cred.socket ] || fail "an upgrade undid the administrator's choice"
main_job
pass "upgrades, and the administrator's choice stays"

systemctl --global enable wandb-cred.socket 2>/dev/null
rpm -e --force-debian wandb-cred
gone
pass "erased"
