"""Every SDK version that the proxy is meant for: run it by scripts/test-proxy."""

import pytest
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
