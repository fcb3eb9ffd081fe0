"""The runtime environment for Ray: what a shell makes of its line runs a worker's Python with credentials. A real Ray is run
with --long."""

import json
import pathlib
import subprocess
import sys

import pytest

import wandb_cred
from programs import binary, interpreter


def start_worker(runtime_env, world):
    """As ray/_private/runtime_env/context.py does: a line for bash, with the worker's own arguments after it."""
    worker = "'import os; print(os.environ.get(\"WANDB_CREDENTIALS_FILE\"), os.environ.get(\"WANDB_API_KEY\"))'"
    line = f"exec {runtime_env['py_executable']} -c {worker}"
    done = subprocess.run(
        ["bash", "-c", line], env={**world.variables, **runtime_env.get("env_vars", {})}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_worker_is_started_with_credentials(world, sandbox, here):
    world.configure(sandbox)
    here()
    credentials, key = start_worker(wandb_cred.ray_runtime_env(), world)
    assert credentials.endswith("/profiles/work/credentials.json") and key == "None"
    credentials, key = start_worker(wandb_cred.ray_runtime_env("work", proxy=True), world)
    assert credentials == "None" and len(key) == 40
    assert sandbox.exchanges() == 1


def test_the_command_prints_the_same(world, sandbox, here):
    world.configure(sandbox)
    folder = pathlib.Path(world.folder, "a b")
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    world.variables["PATH"] = f"{folder}:{world.variables['PATH']}"
    here()
    printed = json.loads(world.command("env", "--ray", "--proxy", "-p", "work"))
    assert printed == wandb_cred.ray_runtime_env("work", proxy=True, python=str(folder / "python"))
    assert len(start_worker(printed, world)[1]) == 40


def test_without_a_python_the_command_says_so(world):
    done = subprocess.run(
        [binary("wandb-cred"), "env", "--ray"], env={**world.variables, "PATH": "/nonexistent"}, capture_output=True, text=True
    )
    assert done.returncode == 78 and "Python" in done.stderr and done.stdout == ""


TASKS = """
import ray, wandb_cred
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, runtime_env=wandb_cred.ray_runtime_env())

@ray.remote
def train(name):
    import wandb
    with wandb.init(entity="team", project="real", id=name) as run:
        run.log({"row": 0})

ray.get([train.remote(f"ray-{number}") for number in range(2)])
"""


@pytest.mark.long
def test_workers_of_a_real_ray_log_their_runs_with_one_exchange(world, sandbox):
    world.configure(sandbox)
    # Ray's own sockets need a short path.
    world.variables.update(TMPDIR="/tmp", RAY_USAGE_STATS_ENABLED="0")
    done = subprocess.run(
        [interpreter("ray", setup="ray"), "-c", TASKS], env=world.variables, cwd=world.folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    stats = sandbox.stats()
    assert (stats["exchanges"]["total"], stats["sdk_exchanges"]) == (1, 0)
    assert sorted(stats["runs"]) == ["team/real/ray-0", "team/real/ray-1"]
