"""The Buildkite plugin, by a small agent of ours."""

import signal
import subprocess
import sys

import pytest

from buildkite_agent import Job
from conftest import SUBJECT
from programs import ROOT, interpreter, wait_for
from runners import left_running

CLIENTS = ROOT / "tests/peers/real/clients"


@pytest.fixture
def given(wandb, built):
    """What every job configures."""
    return {"audience": "acme", "base_url": wandb.url, "install_from": built}


def ended(job):
    assert job.remains() == [], job.log


def test_a_command_has_credentials(folder, identity, given, wandb):
    job = Job(folder / "job", identity)
    command = f"{interpreter('wandb-0.31.0')} {CLIENTS}/log_rows.py rows 2\nwandb-cred token >/dev/null"
    assert job.run(command, **given) == 0, job.log
    assert len(wandb.run("team/real/rows")["rows"]) == 2 and len(identity.minted) == 1
    ended(job)


def test_the_first_tokens_are_redacted_and_a_failing_command_leaves_nothing(folder, identity, given):
    job = Job(folder / "job", identity)
    assert job.run("wandb-cred token; cat $WANDB_IDENTITY_TOKEN_FILE; exit 3", **given) == 3
    assert job.log.startswith("[REDACTED]\n[REDACTED]"), job.log
    ended(job)


def test_the_proxys_key_is_redacted(folder, identity, given):
    job = Job(folder / "job", identity)
    viewer = f"echo key $WANDB_API_KEY; {interpreter('wandb-0.12.21')} -c 'import wandb; print(wandb.Api().viewer.email)'"
    assert job.run(viewer, proxy=True, **given) == 0, job.log
    assert "key [REDACTED]" in job.log and SUBJECT in job.log, job.log
    ended(job)


def test_an_api_key_of_the_job_is_taken_away(folder, identity, given):
    job = Job(folder / "job", identity, {"WANDB_API_KEY": "k" * 40})
    assert job.run('test -z "${WANDB_API_KEY+set}"', **given) == 0, job.log
    ended(job)


def test_a_cancelled_command_saves_what_it_has(folder, identity, given):
    job = Job(folder / "job", identity)
    command = "trap 'wandb-cred token >saved; exit 1' TERM; touch begun; while :; do sleep 0.1; done"
    assert job.run(command, cancel=(job.checkout / "begun").exists, **given) != 0
    assert (job.checkout / "saved").read_text().startswith("wb_at_"), job.log
    ended(job)


def test_a_failing_hook_says_why_and_leaves_nothing(folder, identity, given):
    for change, words in [({"audience": ""}, "`audience` is missing"), ({"audience": "another"}, "The audience of the JWT"),
                          ({"install_from": "/nowhere"}, "/nowhere is no folder with both programs")]:
        job = Job(folder / str(len(words)), identity)
        assert job.run("echo not here", **{**given, **change}) != 0
        assert words in job.log and "not here" not in job.log, job.log
        ended(job)


def test_a_job_without_its_agents_token_learns_what_is_missing(folder, identity, given):
    job = Job(folder / "job", identity)
    del job.env["BUILDKITE_AGENT_ACCESS_TOKEN"]
    assert job.run("echo not here", **given) != 0
    assert "BUILDKITE_AGENT_ACCESS_TOKEN is not set" in job.log, job.log
    ended(job)


@pytest.mark.parametrize("home", ["none", "read-only"])
def test_a_job_needs_no_home(folder, identity, given, home):
    job = Job(folder / "job", identity)
    if home == "none":
        del job.env["HOME"]
    else:
        (folder / "home").mkdir(mode=0o555)
        job.env["HOME"] = str(folder / "home")
    assert job.run("wandb-cred token >/dev/null", **given) == 0, job.log
    ended(job)


def test_an_agent_that_dies_takes_the_daemon_along(folder, identity, given):
    job = Job(folder / "job", identity)
    for name, value in given.items():
        job.env[f"BUILDKITE_PLUGIN_WANDB_CRED_{name.upper()}"] = str(value)
    (folder / "wrapper").write_text(job.wrapper("environment"))
    agent = "import subprocess, sys; subprocess.run(['bash', sys.argv[1]]); print('done', flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", agent, folder / "wrapper"], env=job.env, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        said = list(iter(process.stdout.readline, "done\n"))
        assert any("wandb-credd" in command for _, command in left_running(job.mark)), said
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for("its end", lambda: not left_running(job.mark), 10)
    assert not list(job.temp.glob("*/exec-job")), "tokens are left"
