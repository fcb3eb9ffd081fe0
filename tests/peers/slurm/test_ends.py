"""However a job ends, no daemon and no token file of it stays on a node: with the Epilog where SIGKILL left no word."""

import pytest
from conftest import CONTRIB, RANK, nothing_is_left
from programs import wait_for

PROCTRACK = "cgroup"
STEP = f"srun -N2 -n4 -O wandb-cred exec -- {RANK} OUT got"


def end_normally(slurm, job):
    job.go()
    job.wait_for_end()


def cancel(slurm, job):
    slurm.run("alice", ["scancel", job.number])
    job.wait_for_end()


def kill(slurm, job):
    slurm.run("alice", ["scancel", "--signal=KILL", job.number])
    job.wait_for_end()


def requeue(slurm, job):
    slurm.run("root", ["scontrol", "requeue", job.number])
    # It waits for its next turn, which it does not get here.
    wait_for("the requeued job", lambda: job.state() == "PENDING")
    slurm.run("alice", ["scancel", job.number])
    job.wait_for_end()


def run_out_of_time(slurm, job):
    # Slurm counts limits in whole minutes, from the start of the job.
    job.wait_for_end(120)


@pytest.mark.every_proctrack
@pytest.mark.parametrize(
    ("end", "then"),
    [(end_normally, "hold"), (cancel, "hold"), (kill, "ignore"), (requeue, "hold")],
    ids=["normal", "scancel", "kill", "requeue"],
)
def test_nothing_is_left_after(end, then, slurm, wandb, jobs):
    ended(end, then, [], slurm, wandb, jobs)


@pytest.mark.long
@pytest.mark.every_proctrack
def test_nothing_is_left_after_the_time_limit_of_ranks_that_ignore_it(slurm, wandb, jobs):
    ended(run_out_of_time, "ignore", ["--time=1"], slurm, wandb, jobs)


@pytest.mark.long
@pytest.mark.parametrize(
    ("end", "then"),
    [(end_normally, "hold"), (cancel, "hold"), (kill, "ignore"), (requeue, "hold")],
    ids=["normal", "scancel", "kill", "requeue"],
)
def test_a_daemon_that_slurm_does_not_kill_needs_no_epilog(end, then, slurm, wandb, jobs):
    if slurm.proctrack == "cgroup":
        pytest.skip("Slurm kills the daemon with the step, often before it has removed the files")
    wandb()
    job = jobs.batch("alice", 2, 4, f"{STEP} {RANK} OUT {then}", options=["--requeue"])
    job.wait_for_ranks(4)
    end(slurm, job)
    nothing_is_left(slurm)


def ended(end, then, options, slurm, wandb, jobs):
    wandb()
    slurm.hook("epilog", f"exec {CONTRIB}/epilog.sh")
    job = jobs.batch("alice", 2, 4, f"{STEP} {RANK} OUT {then}", options=["--requeue", *options])
    job.wait_for_ranks(4)
    assert sorted(slurm.daemons().values()) == [1, 1]
    assert len(slurm.leftovers()) == 2, "no files to look for"
    end(slurm, job)
    nothing_is_left(slurm)
    states = slurm.run("root", ["sinfo", "-h", "-N", "-o", "%t"]).stdout.split()
    assert states == ["idle"] * 3, "an Epilog that fails drains its node"


@pytest.mark.parametrize("then", ["hold"])
def test_one_killed_job_takes_nothing_from_another_of_the_same_user(then, slurm, wandb, jobs):
    wandb()
    slurm.hook("epilog", f"exec {CONTRIB}/epilog.sh")
    stays = jobs.batch("alice", 2, 4, f"{STEP} {RANK} OUT {then}")
    stays.wait_for_ranks(4)
    dies = jobs.batch("alice", 2, 4, f"{STEP} {RANK} OUT ignore")
    dies.wait_for_ranks(4)
    kill(slurm, dies)
    wait_for("the end of the killed job's daemons", lambda: sorted(slurm.daemons().values()) == [1, 1], 25)
    for rank in stays.reports():
        node = next(node for node in slurm.nodes if node.name == rank.node)
        assert node.path(rank.credentials).exists()
    stays.go()
    stays.wait_for_end()
    nothing_is_left(slurm)
