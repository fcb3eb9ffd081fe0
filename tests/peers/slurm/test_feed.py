"""One exchange for a whole job: `exec --job` in it, `feed --job` on the login node."""

import json
import os
import pathlib
import signal

import conftest
from conftest import RANK, configure, show, write
from nodes import COMPUTE, USERS

import programs
from programs import wait_for

PROCTRACK = "cgroup"
UID = USERS["alice"]


def single_use(slurm, server):
    """A JWT that nobody can mint again, and that W&B takes once."""
    jwt = slurm.home / "alice/jwt"
    write(slurm, "alice", jwt, server.mint(), 0o600)
    configure(slurm, "alice", server, provider=f'[profile.work.provider.file]\npath = "{jwt}"\n')


def wait_for_ranks(job, count, seconds=90):
    """Node, start, now and credentials file of each rank, as it has reported them."""

    def look():
        job.check()
        found = [path for path in job.out.iterdir() if path.name[0].isdigit()]
        return len(found) >= count and [path.read_text().splitlines() for path in found]

    ranks = wait_for(f"{count} ranks with files", look, seconds)
    assert {rank[4] for rank in ranks} == {"relay"}, "the JWT stays where the exchange is made"
    return ranks


def socket(job):
    """That of the daemons which serve the job, the same on all nodes."""
    folders = {path.name for node in job.slurm.nodes for path in node.path(f"/tmp/wandb-cred-{UID}").glob("job-*")}
    assert len(folders) == 1 and folders.copy().pop().startswith(f"job-{job.number}"), folders
    return f"/tmp/wandb-cred-{UID}/{folders.pop()}/wandb-cred.sock"


def on(slurm, name):
    return next(node for node in slurm.nodes if node.name == name)


def status(slurm, node, job):
    """What a node's fed daemon says of the profile."""
    shown = slurm.run("alice", ["wandb-cred", "status", "--json"], on=on(slurm, node), WANDB_CRED_SOCKET=socket(job))
    return json.loads(shown.stdout)["profiles"][0]


def nothing_is_left(slurm):
    if slurm.proctrack == "linuxproc":
        return conftest.nothing_is_left(slurm)
    # A batch step's cgroup is killed when its script ends, and with it the daemon that made the exchange: what that leaves is
    # for the Epilog. The fed daemons, in a step of their own, still hear the goodbye or a SIGTERM.
    wait_for("end of all daemons", lambda: not slurm.daemons(), conftest.SOON)
    fed = lambda: [path for paths in slurm.leftovers().values() for path in paths if "/job-" in path]
    wait_for(f"clean nodes (left: {fed()})", lambda: not fed(), 5)


def test_48_ranks_on_3_nodes_are_one_exchange_of_a_jwt_that_works_once(slurm, wandb, jobs):
    server = wandb()
    single_use(slurm, server)
    job = jobs.batch("alice", 3, 48, f"wandb-cred exec --job -- srun -n48 -N3 -O {RANK} OUT got {RANK} OUT hold")
    ranks = wait_for_ranks(job, 48)
    assert sorted({rank[0] for rank in ranks}) == COMPUTE
    assert {rank[3] for rank in ranks} == {socket(job).replace("wandb-cred.sock", "profiles/work/credentials.json")}
    assert server.exchanges() == 1
    # The batch script's node has the daemon that makes the exchange, too.
    assert slurm.daemons() == {"n1": 2, "n2": 1, "n3": 1}
    modes = {node.path(socket(job)).parent.stat().st_mode & 0o777 for node in slurm.nodes}
    assert modes == {0o700}
    job.go()
    print(job.wait_for_end())
    assert server.exchanges() == 1
    nothing_is_left(slurm)


def test_exec_in_each_rank_uses_the_jobs_daemons(slurm, wandb, jobs):
    server = wandb()
    single_use(slurm, server)
    rank = f"wandb-cred exec --job -- {RANK} OUT got"
    job = jobs.batch("alice", 3, 12, f"wandb-cred exec --job -- srun -n12 -N3 -O {rank} {RANK} OUT hold")
    wait_for_ranks(job, 12)
    assert server.exchanges() == 1
    assert sum(slurm.daemons().values()) == 4
    job.go()
    job.wait_for_end()
    nothing_is_left(slurm)


def test_a_renewal_reaches_every_node(slurm, wandb, jobs):
    server = wandb()
    job = jobs.batch("alice", 3, 12, f"wandb-cred exec --job -- srun -n12 -N3 -O {RANK} OUT got {RANK} OUT renew")
    wait_for_ranks(job, 12)
    assert server.exchanges() == 1
    source = on(slurm, "n1")
    sockets = source.path(f"/tmp/wandb-cred-{UID}").glob("*/wandb-cred.sock")
    [folder] = [path.parent for path in sockets if not path.parent.name.startswith("job-")]
    inside = "/" + str(folder).split("/root/", 1)[1]
    files = [node.path(socket(job)).parent / "profiles/work/credentials.json" for node in slurm.nodes]
    before = [file.read_text() for file in files]
    renewed = {}

    def look():
        for file, old in zip(files, before):
            if file not in renewed and file.read_text() != old:
                renewed[file] = os.stat(file).st_mtime
        return len(renewed) == 3

    slurm.run("alice", ["wandb-cred", "refresh"], on=source, WANDB_CRED_SOCKET=f"{inside}/wandb-cred.sock")
    wait_for("the renewal on all nodes", look, 20)
    began = os.stat(folder / "profiles/work/credentials.json").st_mtime
    show(f"a renewal is on all nodes {(max(renewed.values()) - began) * 1000:.0f} ms after it is where it was made")
    job.wait_for_end()
    assert server.exchanges() == 2
    nothing_is_left(slurm)


def test_nodes_whose_feed_breaks_keep_the_last_token_and_say_so(slurm, wandb, jobs):
    server = wandb()
    job = jobs.batch("alice", 3, 3, f"wandb-cred exec --job -- srun -n3 -N3 -O {RANK} OUT got {RANK} OUT hold")
    wait_for_ranks(job, 3)
    for pid in on(slurm, "n1").processes("wandb-cred"):
        os.kill(pid, signal.SIGKILL)
    for name in COMPUTE:
        told = wait_for(f"{name} to say so", lambda: status(slurm, name, job)["access"]["last_error"], 20)
        assert told.startswith("the feed ended at ") and "; this token is good until " in told
        assert status(slurm, name, job)["access"]["state"] == "stale"
        token = slurm.run("alice", ["wandb-cred", "token"], on=on(slurm, name), WANDB_CRED_SOCKET=socket(job))
        assert token.stdout.startswith("wb_at_")
    assert server.exchanges() == 1
    job.go()
    job.wait_for_end()
    nothing_is_left(slurm)


def test_the_login_node_feeds_a_job(slurm, wandb, jobs):
    server = wandb()
    single_use(slurm, server)
    (slurm.home / "alice/jwt").rename(slurm.home / "alice/moved")
    script = f"""
until [ -S /tmp/wandb-cred-$(id -u)/job-$SLURM_JOB_ID/wandb-cred.sock ]; do sleep 0.2; done
srun -n12 -N3 -O wandb-cred exec -- {RANK} OUT got {RANK} OUT hold"""
    job = jobs.batch("alice", 3, 12, script)
    # Only the login node has the identity.
    secret = slurm.login.path("/tmp/jwt")
    secret.write_text((slurm.home / "alice/moved").read_text())
    secret.chmod(0o600)
    os.chown(secret, UID, UID)
    configure(slurm, "alice", server, provider='[profile.work.provider.file]\npath = "/tmp/jwt"\n')
    said = slurm.run("alice", ["wandb-cred", "feed", "--job", job.number, "--background"], timeout=120)
    serving = json.loads(said.stdout)
    assert serving["socket"] == socket(job) == f"/tmp/wandb-cred-{UID}/job-{job.number}/wandb-cred.sock"
    wait_for_ranks(job, 12)
    assert server.exchanges() == 1
    assert slurm.daemons() == {"n1": 1, "n2": 1, "n3": 1}
    assert len(slurm.login.processes("wandb-credd")) == 1
    job.go()
    job.wait_for_end()
    nothing_is_left(slurm)
    wait_for("end of the feed", lambda: not slurm.login.processes("wandb-cred"), 20)


def test_commands_of_one_job_may_follow_each_other_at_once(slurm, wandb, jobs):
    server = wandb()
    ranks = f"wandb-cred exec --job -- srun -n3 -N3 -O {RANK} OUT got"
    job = jobs.batch("alice", 3, 3, f"{ranks} && {ranks} && {ranks} {RANK} OUT hold")
    assert len({rank[3] for rank in wait_for_ranks(job, 9)}) == 3
    assert server.exchanges() == 1, "each feeds from the daemon of the batch step"
    job.go()
    job.wait_for_end()
    nothing_is_left(slurm)


def test_a_cancelled_job_leaves_nothing(slurm, wandb, jobs):
    wandb()
    job = jobs.batch("alice", 3, 12, f"wandb-cred exec --job -- srun -n12 -N3 -O {RANK} OUT got {RANK} OUT hold")
    wait_for_ranks(job, 12)
    slurm.run("alice", ["scancel", job.number])
    job.wait_for_end()
    nothing_is_left(slurm)


def test_an_unmodified_sdk_makes_no_exchange_on_a_fed_node(slurm, wandb, jobs):
    server = wandb()
    single_use(slurm, server)
    client = pathlib.Path(__file__).parents[1] / "real/clients/log_rows.py"
    python = programs.interpreter("wandb-0.31.0")
    folder = jobs.folder("alice")
    script = f"#!/bin/bash\ncd {folder} && exec {python} {client} rank-$SLURM_PROCID 20\n"
    write(slurm, "alice", folder / "train.sh", script, 0o755)
    job = jobs.batch("alice", 3, 3, f"wandb-cred exec --job -- srun -n3 -N3 -O {folder}/train.sh")
    print(job.wait_for_end(180))
    stats = server.stats()
    assert (stats["sdk_exchanges"], stats["exchanges"]["total"]) == (0, 1)
    for rank in range(3):
        assert stats["runs"][f"team/real/rank-{rank}"]["history_rows"] == 20
