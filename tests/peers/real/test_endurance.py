"""A run that meets each fault once. The long form, over fifty token lives, is endurance_faults.py."""

import pytest
from endured import endures


@pytest.mark.parametrize("way", ["proxy", "files"])
def test_a_run_endures_each_fault_once(way, start_pair, folder, processes):
    endures(way, "0.31.0", 0, (0, 1), 1, start_pair, folder, processes)
