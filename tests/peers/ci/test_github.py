"""The GitHub Action, by a small runner of ours."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import tomllib

import pytest

from conftest import SUBJECT
from github_runner import Job
from programs import ROOT, interpreter, wait_for
from runners import left_running

CLIENTS = ROOT / "tests/peers/real/clients"


@pytest.fixture
def job(folder, identity):
    made = Job(folder / "runner", identity)
    yield made
    made.finish()


@pytest.fixture
def begin(wandb, built):
    """The action's step with what every job gives it."""
    return lambda job, **inputs: job.uses(**{"audience": "acme", "base_url": wandb.url, "install_from": built, **inputs})


def ended(job):
    job.finish()
    assert job.remains() == [], job.log


def test_the_later_steps_of_a_job_have_credentials(job, begin, wandb, identity):
    assert begin(job) == 0, job.log
    python = interpreter("wandb-0.31.0")
    assert job.run(f"{python} {CLIENTS}/log_rows.py rows 3") == 0, job.log
    assert job.run(f"{python} {CLIENTS}/log_rows.py more 2") == 0, job.log
    # The steps' own `wandb-cred` finds the job's daemon.
    assert job.run("wandb-cred exec -- sh -c 'test -s $WANDB_CREDENTIALS_FILE'") == 0, job.log
    assert job.run("wandb-cred status --json >status.json") == 0, job.log
    profile = json.loads((job.workspace / "status.json").read_text())["profiles"][0]
    assert (profile["subject"], profile["exchanges"]) == (SUBJECT, 1)
    assert len(wandb.run("team/real/rows")["rows"]) == 3 and len(wandb.run("team/real/more")["rows"]) == 2
    assert job.outputs["wandb-cred.base-url"] == wandb.url
    assert len(identity.minted) == 1
    ended(job)


def test_tokens_are_masked_and_so_are_their_successors(job, begin, identity):
    assert begin(job) == 0, job.log
    show = "TOKEN=$(wandb-cred token)\necho \"at $TOKEN\"\ncat $WANDB_IDENTITY_TOKEN_FILE"
    assert job.run(show) == 0
    # By one pipe: a runner reads the two of a step each for itself, and may see the token before the word that masks it.
    assert job.run("exec 2>&1\nwandb-cred refresh\nHEADER=$(wandb-cred token --format header)\necho \"$HEADER\"") == 0
    tokens = [mask for mask in job.masks if mask not in identity.minted]
    assert len(set(tokens)) == 2, "a token and its successor"
    assert "at ***" in job.lines and "Authorization: Bearer ***" in job.lines
    for secret in [*tokens, *identity.minted[:1], identity.request_token]:
        assert secret not in job.log
    ended(job)


def test_a_script_can_have_them_alone(job, begin, wandb):
    (job.workspace / "sub").mkdir()
    script = f"pwd\n{interpreter('wandb-0.31.0')} {CLIENTS}/log_rows.py alone 2\nfalse\necho not here"
    assert begin(job, run=script, working_directory="sub") == 1
    assert len(wandb.run("team/real/alone")["rows"]) == 2
    assert str(job.workspace / "sub") in job.lines and "not here" not in job.lines
    assert job.run("test -z \"${WANDB_IDENTITY_TOKEN_FILE:-}\" && ! command -v wandb-cred") == 0, job.log
    ended(job)


def test_the_proxy_gives_a_key_that_is_masked(job, begin):
    assert begin(job, proxy="true") == 0, job.log
    python = interpreter("wandb-0.12.21")
    assert job.run(f"echo key $WANDB_API_KEY\n{python} -c 'import wandb; print(wandb.Api().viewer.email)'") == 0, job.log
    assert "key ***" in job.lines and SUBJECT in job.lines, job.log
    ended(job)


def test_an_api_key_of_the_job_gives_way_with_a_word(folder, identity, begin, wandb):
    job = Job(folder / "runner", identity, {"WANDB_API_KEY": "k" * 40})
    assert begin(job) == 0, job.log
    assert any(line.startswith("::warning") and "WANDB_API_KEY" in line for line in job.lines), job.log
    assert job.run(f"{interpreter('wandb-0.31.0')} {CLIENTS}/log_rows.py given 1") == 0, job.log
    assert len(wandb.run("team/real/given")["rows"]) == 1
    ended(job)


def test_a_failing_step_leaves_nothing_behind(job, begin):
    assert begin(job) == 0, job.log
    assert job.run("wandb-cred token >/dev/null; exit 3") == 3
    ended(job)


def test_a_refused_identity_fails_the_step_with_the_daemons_sentence(job, begin, wandb):
    assert begin(job, audience="another") == 1
    error = next(line for line in job.lines if line.startswith("::error"))
    assert "another" in error or "audience" in error, error
    assert job.run("test -z \"${WANDB_IDENTITY_TOKEN_FILE:-}\"") == 0
    ended(job)


@pytest.mark.parametrize("env, event, words", [
    ({}, None, "permissions: { id-token: write, contents: read }"),
    ({}, {"pull_request": {"head": {"repo": {"full_name": "eve/train"}}, "base": {"repo": {"full_name": "acme/train"}}}},
     "pull requests from forks"),
    ({"GITEA_ACTIONS": "true"}, None, "Gitea Actions has no ID tokens"),
    ({"GITEA_ACTIONS": "true", "FORGEJO_ACTIONS": "true"}, None, "enable-openid-connect: true"),
])
def test_a_job_that_may_not_ask_learns_why(folder, identity, begin, env, event, words):
    if event:
        (folder / "event.json").write_text(json.dumps(event))
        env = env | {"GITHUB_EVENT_PATH": str(folder / "event.json")}
    job = Job(folder / "runner", identity, env, id_token=False)
    assert begin(job) == 1
    assert words in job.lines[-1] and job.lines[-1].startswith("::error"), job.log
    ended(job)


def test_a_configuration_may_name_another_identity(folder, identity, begin, wandb):
    job = Job(folder / "runner", identity, {"JWT": wandb.mint("audience=acme")}, id_token=False)
    (folder / "config.toml").write_text(
        f'[profile.own]\nbase-url = "{wandb.url}"\n[profile.own.provider.env]\nvariable = "JWT"\n')
    assert begin(job, audience="", base_url="", config=folder / "config.toml", profile="own") == 0, job.log
    assert job.run("wandb-cred token >/dev/null") == 0, job.log
    ended(job)


def test_a_cancelled_script_saves_what_it_has(job, begin, wandb):
    (job.workspace / "train.py").write_text(TRAINS)
    script = f"{interpreter('wandb-0.31.0')} train.py"
    assert begin(job, run=script, cancel=(job.workspace / "row-2").exists) != 0
    assert len(wandb.run("team/real/cut")["rows"]) >= 3, job.log
    ended(job)


TRAINS = """
import pathlib, time, wandb
run = wandb.init(entity="team", project="real", id="cut")
for row in range(1000):
    run.log({"row": row})
    pathlib.Path(f"row-{row}").touch()
    time.sleep(0.1)
"""


def test_a_script_that_minds_no_signal_is_killed_and_leaves_nothing(job, begin):
    begun = job.workspace / "begun"
    script = "trap '' INT TERM\ntouch begun\nwhile :; do sleep 1; done"
    assert begin(job, run=script, cancel=begun.exists) == -signal.SIGKILL
    for pid, command in left_running(job.tracking):
        if "run.sh" in command or "sleep" in command:
            os.kill(pid, signal.SIGKILL)
    ended(job)


def test_a_main_step_that_is_cancelled_while_it_waits_is_cleaned_up(job, begin, identity):
    identity.gate.clear()
    asks = lambda: any(path.name == "wandb-cred.sock" for path in job.temp.rglob("*"))
    assert begin(job, cancel=asks) == -signal.SIGINT
    ended(job)


def test_a_second_use_in_one_job_goes_before_the_first(job, begin, wandb):
    assert begin(job) == 0, job.log
    first = job.env["WANDB_CRED_SOCKET"]
    assert begin(job, proxy="true") == 0, job.log
    assert job.env["WANDB_CRED_SOCKET"] != first
    assert job.run("wandb-cred token >/dev/null; test -n \"$WANDB_API_KEY\" -a -z \"$WANDB_IDENTITY_TOKEN_FILE\"") == 0, job.log
    ended(job)


def test_a_job_whose_runner_dies_takes_its_daemon_along(folder, identity, built, wandb):
    job = Job(folder / "runner", identity)
    files = {kind: folder / kind for kind in ["ENV", "PATH", "OUTPUT", "STATE"]}
    inputs = {"INPUT_AUDIENCE": "acme", "INPUT_BASE-URL": wandb.url, "INPUT_INSTALL-FROM": str(built)}
    worker = "import subprocess, sys; subprocess.run(['node', sys.argv[1]]); print('done', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", worker, ROOT / "contrib/github-action/main.js"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runner = subprocess.Popen(argv, env=job.step_env(inputs, files), start_new_session=True, **pipes)
    try:
        said = list(iter(runner.stdout.readline, "done\n"))
        assert any("wandb-credd" in command for _, command in left_running(job.tracking)), said
    finally:
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    wait_for("its end", lambda: not left_running(job.tracking), 10)
    assert not list(job.temp.glob("*/exec-job")), "tokens are left"


def test_steps_without_the_action_share_a_daemon_that_holds_none_of_them_up(folder, identity, built, wandb):
    env = {"PATH": f"{built}:{os.environ['PATH']}", "WANDB_CRED_AUDIENCE": "acme", "WANDB_BASE_URL": wandb.url,
           "TMPDIR": str(folder), "WANDB_CRED_SOCKET": str(folder / "s/wandb-cred.sock")}
    (folder / "s").mkdir(mode=0o700)
    job = Job(folder / "runner", identity, env)
    for _ in range(2):
        assert job.run("wandb-cred exec -- sh -c 'test -s $WANDB_IDENTITY_TOKEN_FILE'") == 0, job.log
    assert wandb.exchanges() == 1
    # The runner may kill it at any moment from now on.
    wait_for("its files to be gone", lambda: not list(folder.rglob("identity-token")), 8)
    job.finish()
    assert [command for _, command in job.killed if "wandb-credd" in command]


def test_two_jobs_on_one_machine_have_nothing_in_common(folder, identity, begin):
    jobs = [Job(folder / name, identity) for name in ["one", "two"]]
    tokens, codes = {}, []

    def work(job):
        codes.append(begin(job))
        codes.append(job.run("wandb-cred token >token 2>/dev/null"))
        tokens[job.tracking] = (job.workspace / "token").read_text()

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4, [job.log for job in jobs]
    assert len(set(tokens.values())) == 2
    ended(jobs[0])
    assert jobs[1].run("wandb-cred token >/dev/null") == 0, "the other goes on"
    ended(jobs[1])


def test_the_release_of_the_actions_own_repository_is_installed(folder, identity, begin, built, releases):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    place = releases.folder / f"acme/wandb-cred/releases/download/v{version}"
    place.mkdir(parents=True)
    archive = place / f"wandb-cred-{version}-x86_64-unknown-linux-gnu.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as file:
        for name in ["wandb-cred", "wandb-credd"]:
            file.add(built / name, name)
    (place / "SHA256SUMS").write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")
    env = {"GITHUB_SERVER_URL": releases.url, "GITHUB_ACTION_REPOSITORY": "acme/wandb-cred"}
    job = Job(folder / "runner", identity, env)
    assert begin(job, install_from="release") == 0, job.log
    assert job.run("wandb-cred token >/dev/null") == 0, job.log
    ended(job)
    other = Job(folder / "other", identity, env)
    assert begin(other, install_from="release", sha256="f" * 64) == 1
    assert other.lines[-1].startswith("::error") and "nothing was installed" in other.lines[-1], other.log
    ended(other)


def test_a_job_in_a_container_whose_steps_have_no_parent_there(job, begin):
    """As `docker exec` starts them."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a PID namespace")
    container = subprocess.Popen(["unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "sleep", "600"])
    try:
        children = f"/proc/{container.pid}/task/{container.pid}/children"
        first = wait_for("the first process", lambda: open(children).read().split())[0]
        wait_for("it to be in place", lambda: "sleep" in open(f"/proc/{first}/cmdline").read())
        job.enter = ["nsenter", "--target", first, "--pid", "--mount", f"--wd={job.workspace}"]
        assert job.run("test $PPID = 0") == 0, job.log
        assert begin(job) == 0, job.log
        assert job.run("wandb-cred token >/dev/null") == 0, job.log
        ended(job)
    finally:
        container.kill()
        container.wait()


@pytest.mark.parametrize("home", ["none", "read-only"])
def test_a_job_needs_no_home(folder, identity, begin, home):
    job = Job(folder / "runner", identity)
    if home == "none":
        del job.env["HOME"]
    else:
        (folder / "home").mkdir(mode=0o555)
        job.env["HOME"] = str(folder / "home")
    assert begin(job) == 0, job.log
    assert job.run("wandb-cred token >/dev/null") == 0, job.log
    ended(job)


def test_a_deep_folder_of_the_runner_is_no_hindrance(folder, identity, begin):
    job = Job(folder / ("deep" * 20), identity)
    assert begin(job) == 0, job.log
    assert job.run("wandb-cred token >/dev/null") == 0, job.log
    daemon_folder = job.env["WANDB_CRED_SOCKET"].rsplit("/", 2)[0]
    ended(job)
    assert not os.path.exists(daemon_folder)
