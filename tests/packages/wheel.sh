#!/bin/bash
# The wheel in a clean environment of Python's, as pip and pipx install it.
# scripts/test-packages runs it as root in a throw-away copy of this machine: wheel.sh SHARED WHEEL
set -euo pipefail
shared=$1 wheel=$1/$2 name=wheel
. "$shared/common.sh"
somebody

as python3 -m venv "$home/venv"
as "$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-index "$wheel"
programs=$home/venv/bin:
[ -f "$home/venv/share/man/man1/wandb-cred.1" ] || fail "no manual pages"
pass "installs"
start_sandbox
configure
main_job
as ln -s "$home/venv/bin/wandb-cred" "$home/wandb-cred"
programs=
[[ $(as "$home/wandb-cred" token) == wb_at_* ]] || fail "a link to the command does not find its daemon"
pass "a link to the command finds its daemon, as pipx and uv make them"
as "$home/venv/bin/pip" uninstall --quiet --yes wandb-cred
left=$(find "$home/venv" -name '*wandb*')
[ -z "$left" ] || fail "left behind: $left"
pass "uninstalled"
