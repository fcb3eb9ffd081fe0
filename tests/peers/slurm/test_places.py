"""Folders and variables of the login node that mean nothing on a compute node, and temporary folders as sites have them."""

import os
import shutil

import pytest
from conftest import EXEC, RANK, nothing_is_left
from nodes import COMPUTE, USERS

RANKS = [*EXEC, RANK, "OUT", "got", RANK, "OUT", "hold"]
UID = USERS["alice"]


def three_daemons(slurm, server, jobs, **variables):
    """Six ranks on three nodes get files from one daemon a node, with these variables; gives srun's output."""
    before = server.exchanges()
    job = jobs.start("alice", 3, 6, *RANKS, **variables)
    ranks = job.wait_for_ranks(6)
    assert slurm.daemons() == dict.fromkeys(COMPUTE, 1)
    assert len({rank.daemon for rank in ranks}) == 3
    assert server.exchanges() - before == 3
    job.go()
    return job.finish(), ranks


@pytest.mark.parametrize(
    "variables",
    [
        {"XDG_RUNTIME_DIR": f"/run/user/{UID}"},
        {"WANDB_CRED_SOCKET": f"/run/user/{UID}/wandb-cred/wandb-cred.sock"},
        {"XDG_RUNTIME_DIR": f"/run/user/{UID}", "TMPDIR": "/scratch/not-there"},
        {"TMPDIR": "/usr"},
        {"TMPDIR": "/tmp/" + 150 * "x"},
    ],
    ids=["runtime-dir", "socket", "runtime-and-temp", "unwritable", "too-long"],
)
def test_a_folder_that_is_not_there_or_not_ours_is_passed_over(variables, slurm, wandb, jobs):
    output, _ = three_daemons(slurm, wandb(), jobs, **variables)
    assert "wb_at_" not in output and "eyJ" not in output


def test_what_env_set_at_login_is_not_taken_for_an_identity_on_a_node(slurm, wandb, jobs):
    server = wandb()
    runtime = {"XDG_RUNTIME_DIR": f"/run/user/{UID}"}
    # It keeps standard error, which `run` here would wait for.
    slurm.run("alice", ["sh", "-c", "wandb-credd run --background 2>/dev/null"], **runtime)
    lines = slurm.run("alice", ["wandb-cred", "env", "--pid", str(1)], **runtime).stdout.splitlines()
    inherited = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    assert inherited["WANDB_IDENTITY_TOKEN_FILE"].startswith(f"/run/user/{UID}/")
    _, ranks = three_daemons(slurm, server, jobs, **runtime, **inherited)
    assert all(rank.credentials != inherited["WANDB_CREDENTIALS_FILE"] for rank in ranks)
    for daemon in slurm.login.processes("wandb-credd"):
        os.kill(daemon, 15)


def test_a_temporary_folder_that_nodes_share_keeps_their_daemons_apart(slurm, wandb, jobs):
    shared = slurm.home / "alice/tmp"
    shared.mkdir(mode=0o700)
    os.chown(shared, UID, UID)
    server = wandb()
    first = jobs.start("alice", 3, 6, *RANKS, TMPDIR=shared)
    ranks = first.wait_for_ranks(6)
    assert slurm.daemons() == dict.fromkeys(COMPUTE, 1)
    assert len({rank.daemon for rank in ranks}) == 3
    assert server.exchanges() == 3
    # A newcomer sweeps what dead daemons left, and must not take another node's for dead.
    second = jobs.start("alice", 3, 3, *RANKS, TMPDIR=shared)
    second.wait_for_ranks(3)
    for rank in ranks:
        assert next(node for node in slurm.nodes if node.name == rank.node).path(rank.credentials).exists()
    for job in [first, second]:
        job.go()
        job.finish()
    nothing_is_left(slurm)
    shutil.rmtree(shared)


def test_a_folder_that_another_user_took_first_is_passed_over(slurm, wandb, jobs):
    server = wandb()
    squat = f"mkdir -m 777 /tmp/wandb-cred-{UID}"
    jobs.start("bob", "n1", 1, "sh", "-c", squat).finish()
    job = jobs.start("alice", "n1", 2, *RANKS)
    for rank in job.wait_for_ranks(2):
        assert not rank.credentials.startswith(f"/tmp/wandb-cred-{UID}/")
    assert server.exchanges() == 1
    job.go()
    job.finish()
