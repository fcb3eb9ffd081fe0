"""Ray on two nodes: every worker is started by `py_executable`, and a node's workers share a daemon and an exchange."""

import json
import sys

import pytest
from conftest import HERE, nothing_is_left
from nodes import free_ports

from programs import interpreter


@pytest.mark.long
def test_ray_workers_share_one_exchange_a_node_and_log_their_runs(slurm, wandb, jobs):
    server = wandb()
    [port] = free_ports(1)
    python = interpreter("ray", setup="ray")
    job = jobs.start("alice", 2, 2, HERE / "ray_node.sh", python, port, "OUT", HERE / "ray_tasks.py")
    print(job.finish(240), file=sys.stderr)
    workers = json.loads((job.out / "result").read_text())
    assert len({node for node, _ in workers}) == 2
    assert len({(node, credentials) for node, credentials in workers}) == 2
    stats = server.stats()
    assert (stats["exchanges"]["total"], stats["sdk_exchanges"]) == (2, 0)
    assert sorted(stats["runs"]) == [f"team/real/ray-{node}-{number}" for node in range(2) for number in range(2)]
    assert all(run["history_rows"] == 5 for run in stats["runs"].values())
    nothing_is_left(slurm)
