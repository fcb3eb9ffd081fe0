"""The GitLab component, by a small runner of ours."""

import textwrap
import threading
from urllib.parse import urlencode

import pytest

import gitlab_runner
from conftest import SUBJECT
from gitlab_runner import Job, include
from programs import ROOT, interpreter, wait_for

CLIENTS = ROOT / "tests/peers/real/clients"


@pytest.fixture
def mint(wandb):
    """The one ID token of a job."""
    return lambda audience: wandb.mint(urlencode({"audience": audience, "subject": SUBJECT, "life": 3600}))


@pytest.fixture
def template(wandb, built):
    return include(audience="acme", base_url=wandb.url, install_from=str(built))[".wandb-cred"]


def ended(job):
    assert job.remains() == [], job.log


def test_the_component_holds_the_one_installer():
    installer = textwrap.indent((ROOT / "contrib/ci/install.sh").read_text(), "      ", lambda line: line.strip())
    assert installer in gitlab_runner.COMPONENT.read_text(), "copy contrib/ci/install.sh into templates/wandb-cred.yml"


def test_a_script_has_credentials(folder, mint, template, wandb):
    job = Job(folder / "job", mint)
    script = [f"{interpreter('wandb-0.31.0')} {CLIENTS}/log_rows.py rows 2", "wandb-cred token >/dev/null"]
    assert job.run(template, script) == 0, job.log
    assert len(wandb.run("team/real/rows")["rows"]) == 2
    assert wandb.exchanges() == 1
    ended(job)


@pytest.mark.parametrize("shell", ["dash", "busybox sh"])
def test_an_image_needs_no_bash(folder, mint, template, shell):
    job = Job(folder / "job", mint, shell)
    assert job.run(template, ["wandb-cred token >token", "test -s token"]) == 0, job.log
    assert (job.project / "token").read_text().startswith("wb_at_")
    ended(job)


def test_the_id_token_is_masked_and_a_failing_script_leaves_nothing(folder, mint, template):
    job = Job(folder / "job", mint)
    assert job.run(template, ["cat $WANDB_IDENTITY_TOKEN_FILE", "exit 3", "echo not here"]) == 3, job.log
    assert "[MASKED]" in job.log and "not here" not in job.log.replace("echo not here", "")
    ended(job)


def test_a_cancelled_script_saves_what_it_has(folder, mint, template):
    job = Job(folder / "job", mint)
    script = "trap 'wandb-cred token >saved; exit 1' TERM; touch begun; while :; do sleep 0.1; done"
    assert job.run(template, script, cancel=(job.project / "begun").exists) != 0
    assert (job.project / "saved").read_text().startswith("wb_at_"), job.log
    ended(job)


def test_a_script_that_minds_no_signal_leaves_nothing(folder, mint, template):
    job = Job(folder / "job", mint)
    script = "trap '' TERM; touch begun; while :; do sleep 0.1; done"
    assert job.run(template, script, cancel=(job.project / "begun").exists) != 0
    ended(job)


def test_a_job_without_an_id_token_learns_what_to_add(folder, mint, template):
    job = Job(folder / "job", mint)
    assert job.run(template, "echo not here", id_token=False) != 0
    assert "id_tokens: {WANDB_ID_TOKEN: {aud: acme}}" in job.log and "\nnot here" not in job.log
    ended(job)


def test_a_token_for_another_audience_learns_where_it_is_set(folder, mint, wandb, built):
    job = Job(folder / "job", lambda _: mint("acme"))
    template = include(audience='a"b\\c', base_url=wandb.url, install_from=str(built))[".wandb-cred"]
    assert job.run(template, "echo not here") != 0
    assert 'a"b\\c' in job.log and "id_tokens" in job.log, job.log
    ended(job)


def test_the_proxy_serves_old_clients(folder, mint, wandb, built):
    job = Job(folder / "job", mint)
    template = include(audience="acme", base_url=wandb.url, install_from=str(built), proxy=True)[".wandb-cred"]
    viewer = f"{interpreter('wandb-0.12.21')} -c 'import wandb; print(wandb.Api().viewer.email)'"
    assert job.run(template, viewer) == 0, job.log
    assert SUBJECT in job.log
    ended(job)


@pytest.mark.parametrize("home", ["none", "read-only"])
def test_a_job_needs_no_home(folder, mint, template, home):
    job = Job(folder / "job", mint)
    if home == "none":
        del job.env["HOME"]
    else:
        (folder / "home").mkdir(mode=0o555)
        job.env["HOME"] = str(folder / "home")
    assert job.run(template, "wandb-cred token >/dev/null") == 0, job.log
    ended(job)


def test_two_jobs_on_one_machine_have_nothing_in_common(folder, mint, template):
    one = Job(folder / "one", mint, env={"CI_JOB_ID": "1"})
    two = Job(folder / "two", mint, env={"CI_JOB_ID": "2", "TMPDIR": str(one.temp)})
    waits = "wandb-cred token >one; touch begun; while ! test -e end; do sleep 0.1; done; wandb-cred token >/dev/null"

    def second():
        if (one.project / "begun").exists():
            assert two.run(template, "wandb-cred token >two") == 0, two.log
            (one.project / "end").touch()
            return True

    other = threading.Thread(target=wait_for, args=("the second job", second))
    other.start()
    assert one.run(template, waits) == 0, one.log
    other.join()
    assert (one.project / "one").read_text() != (two.project / "two").read_text()
    ended(one)
