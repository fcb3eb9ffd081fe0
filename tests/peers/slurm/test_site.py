"""What a site installs, contrib/slurm: ranks of a plain `srun` have credentials, and nothing of an ended job stays."""

import os

import pytest
from conftest import CONTRIB, RANK, SOON, configure, nothing_is_left, write
from nodes import COMPUTE, USERS
from programs import wait_for

PROCTRACK = "cgroup"
PLAIN = [RANK, "OUT", "got"]


@pytest.fixture(autouse=True)
def installed(slurm):
    slurm.hook("taskprolog", f"exec {CONTRIB}/task-prolog.sh")
    slurm.hook("epilog", f"exec {CONTRIB}/epilog.sh")


@pytest.mark.every_proctrack
def test_48_ranks_of_a_plain_srun_cause_3_exchanges_and_leave_nothing_after_a_kill(slurm, wandb, jobs):
    server = wandb()
    job = jobs.start("alice", 3, 48, *PLAIN, RANK, "OUT", "ignore", WANDB_API_KEY="a-key-of-the-login-node")
    ranks = job.wait_for_ranks(48)
    assert len({rank.daemon for rank in ranks}) == 3
    assert slurm.daemons() == dict.fromkeys(COMPUTE, 1)
    assert server.exchanges() == 3
    slurm.run("root", ["scancel", "--signal=KILL", "--user=alice"])
    nothing_is_left(slurm)


def test_files_stay_fresh_until_the_registered_task_ends_and_go_then(slurm, wandb, jobs):
    server = wandb("--token-life", "12")
    job = jobs.start("alice", "n1", 2, *PLAIN, RANK, "OUT", "renew", RANK, "OUT", "hold")
    job.wait_for_ranks(2)
    wait_for("a renewal", lambda: server.exchanges() >= 3, 40)
    job.go()
    job.finish()
    nothing_is_left(slurm)


def test_a_user_without_a_configuration_is_left_alone(slurm, wandb, jobs):
    wandb()
    (slurm.home / "bob/.config/wandb-cred/config.toml").unlink()
    job = jobs.start("bob", "n1", 2, "sh", "-c", "echo key=$WANDB_API_KEY", WANDB_API_KEY="own")
    assert job.finish().count("key=own") == 2
    assert slurm.daemons() == {}


def test_a_task_starts_though_its_credentials_fail(slurm, wandb, jobs):
    configure(slurm, "alice", wandb(), provider="[profile.work.provider.no-such-kind]\n")
    job = jobs.start("alice", "n1", 1, "sh", "-c", "echo started without=${WANDB_CREDENTIALS_FILE:-files}")
    assert "started without=files" in job.finish()


def test_the_epilog_follows_no_link_and_touches_no_other_users_and_jobs_folders(slurm, jobs):
    """A user puts links in the way of root's Epilog."""
    slurm.hook("taskprolog", "exit 0")
    node, uid = slurm.nodes[0], USERS["alice"]
    plant = f"""
mkdir -m 700 -p /tmp/wandb-cred-{uid}
cd /tmp/wandb-cred-{uid}
mkdir {{slurm-$SLURM_JOB_ID.0-0123abcd,job-$SLURM_JOB_ID,job-$SLURM_JOB_ID-77}} slurm-{{9$SLURM_JOB_ID,${{SLURM_JOB_ID}}8}}.0-0123abcd user-0123abcd
mkdir -m 700 job-9$SLURM_JOB_ID
mkdir -m 700 -p /tmp/wandb-cred-{uid}-1/slurm-$SLURM_JOB_ID.0-0123abcd
ln -s /tmp/theirs slurm-$SLURM_JOB_ID.1-0123abcd
ln -s /tmp/theirs slurm-$SLURM_JOB_ID.0-0123abcd/link
"""
    theirs = node.path("/tmp/theirs")
    for folder in [theirs, theirs / "slurm-1.0-0123abcd"]:
        folder.mkdir()
        (folder / "file").write_text("not alice's")
    script = jobs.folder("alice") / "plant.sh"
    write(slurm, "alice", script, "#!/bin/bash\nset -e\n" + plant, 0o755)
    jobs.start("alice", "n1", 1, script).finish()
    folder = node.path(f"/tmp/wandb-cred-{uid}")

    def names():
        return sorted(path.name.split(".")[0].rstrip("0123456789") for path in folder.iterdir())

    # Three of jobs with other numbers, one plain folder; the link itself may stay, it holds no token.
    wait_for("the Epilog", lambda: names() == ["job-", "slurm-", "slurm-", "slurm-", "user-0123abcd"], SOON)
    assert not list(node.path(f"/tmp/wandb-cred-{uid}-1").iterdir())
    assert (theirs / "file").exists() and (theirs / "slurm-1.0-0123abcd/file").exists()
    # Again, with the user's folder itself a link to another's.
    swap = f"rm -rf /tmp/wandb-cred-{uid}; ln -s /tmp/theirs /tmp/wandb-cred-{uid}; mkdir -p /tmp/own"
    before = sorted(os.listdir(theirs))
    for number in range(1, 400):
        (theirs / f"slurm-{number}.0-0123abcd").mkdir(exist_ok=True)
    jobs.start("alice", "n1", 1, "sh", "-c", swap).finish()
    wait_for("the Epilog", lambda: idle(slurm), SOON)
    assert len(os.listdir(theirs)) >= 400 > len(before)


def idle(slurm):
    return slurm.run("root", ["sinfo", "-h", "-N", "-o", "%t"]).stdout.split() == ["idle"] * 3
