"""A run over fifty token lives with a fault in most of them, by the proxy: run it by scripts/endurance."""

import pytest
from proxied import endures


@pytest.mark.parametrize("version", ["0.16.6", "0.31.0"])
def test_a_run_endures_fifty_token_lives_of_faults(version, start_pair, folder, processes):
    endures(version, 50, start_pair, folder, processes, seed=7)
