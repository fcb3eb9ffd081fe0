"""The examples of docs/ci.md: each is held to its system's schema, and run."""

import os
import re
import subprocess

import pytest
import yaml
from jsonschema import Draft7Validator
from urllib.parse import urlencode

import buildkite_agent
import github_runner
import gitlab_runner
from conftest import SUBJECT
from programs import ROOT

PAGE = (ROOT / "docs/ci.md").read_text()
FENCE = re.compile(r"```(?:yaml|groovy)\n(?:#|//) (\S+)\n(.*?)```", re.S)
SNIPPETS = FENCE.findall(PAGE)
# What the page's examples run, with the command in place of the SDK.
TRAIN = "import subprocess\nassert subprocess.check_output(['wandb-cred', 'token'], stderr=subprocess.DEVNULL).startswith(b'wb_at_')\n"


def snippets(name):
    return [text for file, text in SNIPPETS if file.endswith(name)]


def check_schema(schema, text, folder):
    file = folder / "snippet.yml"
    file.write_text(text)
    checker = ROOT / ".test/venvs/dist/bin/check-jsonschema"
    done = subprocess.run([checker, "--builtin-schema", f"vendor.{schema}", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def work(folder):
    """A checkout with both scripts, and a `pip` that installs nothing, for jobs that take the wheel."""

    def fill(place, **more):
        for name, text in {"train.py": TRAIN, "evaluate.py": TRAIN, **more}.items():
            (place / name).write_text(text)

    tools = folder / "tools"
    tools.mkdir()
    (tools / "pip").write_text("#!/bin/sh\n[ \"$1\" = install ]\n")
    (tools / "pip").chmod(0o755)
    fill.tools = str(tools)
    return fill


def test_every_example_is_known():
    assert len(SNIPPETS) == PAGE.count("```yaml\n") + PAGE.count("```groovy\n") == 8
    version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    for pinned in re.findall(r"wandb-cred==([\d.]+)|wandb-cred@(\d+\.\d+[\d.]*)", PAGE):
        assert version in pinned


def test_the_actions_and_the_components_own_files(folder):
    action = (ROOT / "action.yml").read_text()
    check_schema("github-actions", action, folder)
    main = (ROOT / "contrib/github-action/main.js").read_text()
    assert set(re.findall(r"input\('([\w-]+)'\)", main)) == set(yaml.safe_load(action)["inputs"])
    for step in ["main", "post"]:
        assert (ROOT / yaml.safe_load(action)["runs"][step]).is_file()
    header = gitlab_runner.COMPONENT.read_text().split("\n---\n")[0]
    check_schema("gitlab-ci", header, folder)


@pytest.mark.parametrize("file, number", [("github/workflows/train.yml", 0), ("github/workflows/train.yml", 1),
                                          ("forgejo/workflows/train.yml", 0)])
def test_github_and_forgejo(folder, identity, wandb, built, work, file, number):
    workflow = yaml.load(snippets(file)[number], yaml.BaseLoader)
    system = {"FORGEJO_ACTIONS": "true"} if "forgejo" in file else {}
    assert (workflow.pop("enable-openid-connect", None) == "true") == bool(system)
    check_schema("github-workflows", yaml.dump(workflow), folder)
    job = github_runner.Job(folder / "runner", identity, {"PATH": f"{work.tools}:{os.environ['PATH']}", **system})
    work(job.workspace)
    steps = workflow["jobs"]["train"]["steps"]
    assert "checkout@" in steps[0]["uses"]
    for step in steps[1:]:
        if "uses" in step:
            assert step["uses"].removeprefix("https://github.com/") == "OWNER/wandb-cred@v1"
            given = {name.replace("-", "_"): value for name, value in step["with"].items()}
            assert job.uses(**given, base_url=wandb.url, install_from=built) == 0, job.log
        else:
            assert job.run(step["run"]) == 0, job.log
    job.finish()
    assert job.remains() == [], job.log


def test_gitlab(folder, wandb, built, work):
    (text,) = snippets("gitlab-ci.yml")
    check_schema("gitlab-ci", text, folder)
    pipeline = yaml.safe_load(text)
    (included,), own = pipeline["include"], pipeline["train"]
    component = gitlab_runner.include(**included["inputs"], base_url=wandb.url, install_from=str(built))
    template = component[own.pop("extends")]
    check_schema("gitlab-ci", yaml.dump({"train": template | own}), folder)
    mint = lambda audience: wandb.mint(urlencode({"audience": audience, "subject": SUBJECT}))
    job = gitlab_runner.Job(folder / "job", mint, env={"PATH": f"{work.tools}:{os.environ['PATH']}"})
    work(job.project)
    assert job.run(template, own["script"]) == 0, job.log
    assert job.remains() == [], job.log


def test_buildkite(folder, identity, wandb, built, work):
    (text,) = snippets("pipeline.yml")
    check_schema("buildkite", text, folder)
    (step,) = yaml.safe_load(text)["steps"]
    ((place, configuration),) = step["plugins"][0].items()
    assert place == f"https://github.com/OWNER/wandb-cred/{buildkite_agent.PLUGIN.relative_to(ROOT)}#v1"
    plugin = yaml.safe_load((buildkite_agent.PLUGIN / "plugin.yml").read_text())
    # What Buildkite's plugin linter asks for.
    assert {"name", "description", "author", "requirements", "configuration"} == set(plugin)
    Draft7Validator.check_schema(plugin["configuration"])
    Draft7Validator(plugin["configuration"]).validate(configuration)
    job = buildkite_agent.Job(folder / "job", identity)
    work(job.checkout)
    assert job.run(step["command"], **configuration, base_url=wandb.url, install_from=built) == 0, job.log
    assert job.remains() == [], job.log


def scripts_of_steps(steps):
    for step in steps:
        script = step.get("run", step.get("script")) if isinstance(step, dict) else None
        if script:
            yield script, step.get("env", {})


def circleci(text, folder):
    check_schema("circle-ci", text, folder)
    job = yaml.safe_load(text)["jobs"]["train"]
    return job["environment"], list(scripts_of_steps(job["steps"]))


def azure(text, folder):
    check_schema("azure-pipelines", text, folder)
    (job,) = yaml.safe_load(text)["jobs"]
    return {}, list(scripts_of_steps(job["steps"]))


def jenkins(text, _):
    name, value = re.search(r"environment \{ (\w+) = '(.*)' \}", text).groups()
    assert text.count("{") == text.count("}") and "variable: 'WANDB_IDENTITY_TOKEN_FILE'" in text
    return {name: value}, [(re.search(r"sh '''\n(.*?)'''", text, re.S)[1], {})]


@pytest.mark.parametrize("name, read", [("config.yml", circleci), ("azure-pipelines.yml", azure), ("Jenkinsfile", jenkins)])
def test_those_that_take_the_wheel(folder, tmp_path, identity, built, work, name, read):
    (text,) = snippets(name)
    environment, scripts = read(text, folder)
    audience = {**environment, **scripts[-1][1]}["WANDB_CRED_AUDIENCE"]
    # The job's own variables, as each system sets them.
    platform = {
        "config.yml": lambda token: {"CIRCLECI": "true", "CIRCLE_OIDC_TOKEN_V2": token, "CIRCLE_WORKFLOW_JOB_ID": "j"},
        "azure-pipelines.yml": lambda _: {"TF_BUILD": "True", "SYSTEM_OIDCREQUESTURI": f"{identity.url}/azure/oidctoken",
                                          "SYSTEM_JOBID": "j"},
        "Jenkinsfile": lambda token: {"WANDB_IDENTITY_TOKEN_FILE": written(folder / "id-token", token)},
    }[name](identity.mint(audience))
    work(folder)
    env = {"PATH": f"{work.tools}:{built}:{os.environ['PATH']}", "HOME": str(folder), "TMPDIR": str(folder),
           "WANDB_BASE_URL": identity.wandb.url, **environment, **platform}
    for script, own in scripts:
        own = {key: identity.request_token if value == "$(System.AccessToken)" else value for key, value in own.items()}
        done = subprocess.run(["bash", "-e", "-c", script], env=env | own, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    if "WANDB_CRED_MASK" in own:
        done = subprocess.run(["wandb-cred", "token"], env=env | own, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.stderr == f"##vso[task.setsecret]{done.stdout}"


def written(file, text):
    file.write_text(text)
    file.chmod(0o600)
    return str(file)
