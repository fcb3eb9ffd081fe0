import pytest
from clients_by_proxy import *

@pytest.mark.parametrize("way", ["callback", "setup"])
def test_ray(way, start_pair):
    trains_with_ray(way, start_pair)

@pytest.mark.parametrize("version", ["0.51.59"])
def test_weave(version, start_pair):
    traces_calls(version, start_pair)
