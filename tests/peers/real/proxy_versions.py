"""Every SDK version that the proxy is meant for, and the clients that are slow: run it by scripts/test-proxy."""

import pytest
from clients_by_proxy import runs_a_sweep, takes_an_artifact_up_and_down, traces_calls, trains_with_ray
from conftest import PROXY_VERSIONS
from proxied import (
    carries_files,
    survives_a_killed_daemon,
    survives_an_outage,
    survives_revocations,
    syncs_and_knows_who_we_are,
)


@pytest.mark.parametrize("version", PROXY_VERSIONS)
def test_a_run_through_the_proxy_survives_two_revocations(version, start_pair, folder):
    survives_revocations(version, start_pair, folder)


@pytest.mark.parametrize("version", PROXY_VERSIONS)
def test_files_go_up_and_come_down_through_the_proxy(version, start_pair):
    carries_files(version, start_pair)


@pytest.mark.parametrize("version", PROXY_VERSIONS)
def test_a_run_survives_a_daemon_that_is_killed(version, start_pair, folder, processes):
    survives_a_killed_daemon(version, start_pair, folder, processes)


@pytest.mark.parametrize("version", PROXY_VERSIONS)
def test_a_run_survives_an_exchange_that_is_away(version, start_pair, folder):
    survives_an_outage(version, start_pair, folder)


@pytest.mark.parametrize("version", PROXY_VERSIONS)
def test_an_offline_run_is_synced_through_the_proxy(version, start_pair):
    syncs_and_knows_who_we_are(version, start_pair)


@pytest.mark.parametrize("version", PROXY_VERSIONS)
def test_an_artifact_goes_up_and_comes_down_through_the_proxy(version, start_pair):
    takes_an_artifact_up_and_down(version, start_pair)


@pytest.mark.parametrize("version", PROXY_VERSIONS)
def test_a_sweep_runs_through_the_proxy(version, start_pair):
    runs_a_sweep(version, start_pair)


def test_an_older_weave_traces_every_call_through_the_proxy(start_pair):
    traces_calls("0.51.59", start_pair)


@pytest.mark.parametrize("way", ["callback", "setup"])
def test_ray_finds_a_key_and_logs_every_row(way, start_pair):
    trains_with_ray(way, start_pair)
