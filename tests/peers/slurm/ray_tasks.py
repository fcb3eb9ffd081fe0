"""A Ray driver: a W&B run in each of several tasks on each of two nodes. Only `py_executable` knows of wandb-cred.

    ray_tasks.py ADDRESS OUT
"""

import json
import os
import pathlib
import sys
import time

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

address, out = sys.argv[1], pathlib.Path(sys.argv[2])
ray.init(address=address, runtime_env={"py_executable": f"wandb-cred exec -- {sys.executable}"}, log_to_driver=False)


@ray.remote(num_cpus=1)
def train(name):
    import wandb

    os.chdir(out)
    run = wandb.init(entity="team", project="real", id=name)
    for row in range(5):
        run.log({"row": row})
    run.finish()
    return os.environ["SLURMD_NODENAME"], os.environ["WANDB_CREDENTIALS_FILE"]


deadline = time.monotonic() + 60
while len(nodes := [node["NodeID"] for node in ray.nodes() if node["Alive"]]) < 2:
    assert time.monotonic() < deadline, "the second node did not come"
    time.sleep(0.2)
tasks = [
    train.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(f"ray-{index}-{number}")
    for index, node in enumerate(nodes)
    for number in range(2)
]
(out / "result").write_text(json.dumps(ray.get(tasks, timeout=120)))
