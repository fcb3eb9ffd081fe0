"""Runs over fifty token lives with a fault in most of them, by the proxy and by files: run it by scripts/endurance."""

import pytest
from endured import endures


@pytest.mark.parametrize("way, version", [("proxy", "0.16.6"), ("proxy", "0.31.0"), ("files", "0.31.0")])
def test_a_run_endures_fifty_token_lives_of_faults(way, version, start_pair, folder, processes):
    endures(way, version, 50, (2, 6), 7, start_pair, folder, processes)
