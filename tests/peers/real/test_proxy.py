"""Clients through the loopback proxy: the oldest and the newest. proxy_versions.py has all, by scripts/test-proxy."""

import pytest
from conftest import HERE, WEAVE_VERSION
from programs import interpreter
from proxied import carries_files, survives_a_killed_daemon, survives_revocations

ENDS = ["0.12.21", "0.31.0"]


@pytest.mark.parametrize("version", ENDS)
def test_a_run_through_the_proxy_survives_two_revocations(version, start_pair, folder):
    survives_revocations(version, start_pair, folder)


@pytest.mark.parametrize("version", ENDS)
def test_files_go_up_and_come_down_through_the_proxy(version, start_pair):
    carries_files(version, start_pair)


def test_a_run_survives_a_daemon_that_is_killed(start_pair, folder, processes):
    survives_a_killed_daemon("0.31.0", start_pair, folder, processes)


def test_weave_traces_every_call_through_the_proxy(start_pair):
    sandbox, daemon = start_pair()
    script = HERE / "clients/trace_calls.py"
    daemon.exec(interpreter(f"weave-{WEAVE_VERSION}"), script, "10", options=["--proxy"])
    stats = sandbox.stats()
    assert stats["auth_failures"] == {}
    assert (stats["weave"]["calls_started"], stats["weave"]["calls_ended"]) == (10, 10)
