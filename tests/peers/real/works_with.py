"""What works with the daemon, row by row of docs/works-with.md: run it by scripts/test-works-with.

Each row is a program as its users write it, under `exec` and under `exec --proxy`, against the sandbox. It works if it
ends well, its runs arrived whole, nothing was refused, and no SDK made an exchange of its own. What comes out is
compared with the page, or written there.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest
from conftest import HERE, PROXY_VERSIONS, WANDB_VERSIONS, WEAVE_VERSION
from programs import ROOT, bare_environment, binary, interpreter, sandbox
from works_with_page import Page, pin
from works_with_rows import HEAVY, LIGHT, MODES

PROGRAMS = HERE / "clients/works_with"
LONG = os.environ.get("WORKS_WITH") in ("long", "write")
WRITE = os.environ.get("WORKS_WITH") == "write"
ROWS = [*LIGHT, *(HEAVY if LONG else [])]


def outcome(row, mode):
    """"yes"; "no" if it says so in the way that is known; "failed" otherwise. And what was seen."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wc-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        server = stack.enter_context(sandbox(folder))
        done = run(row, mode, folder, server)
        stats = server.stats()
    runs = stats["runs"].values()
    works = (
        done.returncode == 0
        and len([run for run in runs if run["complete"] and run["exit_code"] == 0]) == len(runs) == row.runs
        and all(not run["history_gaps"] and bool(run["history_rows"]) == row.logs for run in runs)
        and stats["sdk_exchanges"] == 0
        and stats["auth_failures"] == {}
    )
    seen = {name: stats[name] for name in ("runs", "sdk_exchanges", "auth_failures", "graphql_unknown")}
    refused = row.refusal and re.search(row.refusal, done.stdout)
    return ("yes" if works else "no" if refused else "failed"), f"exit {done.returncode}\n{seen}\n{done.stdout[-4000:]}"


def run(row, mode, folder, server):
    config = folder / "config.toml"
    mint = [str(binary("wandb-cred-sandbox")), "mint", "--url", server.url]
    config.write_text(
        f'[profile.sandbox]\nbase-url = "{server.url}"\naudience = "sandbox"\n'
        f"[profile.sandbox.provider.command]\nargv = {json.dumps(mint)}\n"
    )
    config.chmod(0o600)
    work, runtime = folder / "work", folder / "run"
    work.mkdir()
    runtime.mkdir(mode=0o700)
    python = interpreter(row.venv, "works-with")
    env = bare_environment(
        folder, WANDB_CRED_CONFIG=str(config), XDG_RUNTIME_DIR=str(runtime), PROGRAMS=str(PROGRAMS)
    )
    env["PATH"] = f"{python.parent}:{env['PATH']}"
    command = [binary("wandb-cred"), "exec", "--private", *MODES[mode], "--", "sh", "-ec", row.command]
    try:
        return subprocess.run(
            command,
            env=env,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=row.seconds,
        )
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, -1, f"{output}\nnot over after {row.seconds} s")


@pytest.fixture(scope="session")
def outcomes(request):
    """Of the rows that were asked for, a few at once: most wait for most of their time."""
    asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        running = {(one["row"], one["mode"]): pool.submit(outcome, one["row"], one["mode"]) for one in asked}
        yield running
        for row in running.values():
            row.cancel()


@pytest.fixture(scope="session")
def page():
    return Page.read()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_is_as_the_page_says(row, mode, outcomes, page):
    came, seen = outcomes[row, mode].result()
    print(seen)
    assert came != "failed"
    if WRITE:
        page.record(row, mode, came)
    assert page.outcome(row, mode) == came


def test_the_page_is_what_its_rows_make_of_it(page):
    """No row is missing, none is left over, and the versions are those that are installed."""
    if WRITE:
        page.write()
    assert page.text == page.rendered(), "run scripts/test-works-with --write"


def test_the_readme_says_the_same(page):
    """Its versions are the ends of what is run, and each framework that it names is a row that works both ways."""
    readme = (ROOT / "README.md").read_text()
    oldest, weave = PROXY_VERSIONS[0], WEAVE_VERSION.rpartition(".")[0]
    assert f"| runs | wandb {WANDB_VERSIONS[0]} and later | wandb {oldest} and later |" in readme
    assert f"| `wandb.Api()` | wandb {WANDB_VERSIONS[1]} and later | wandb {oldest} and later |" in readme
    newest = pin("works-with", "wandb")
    assert f"| artifacts, sweeps | wandb {newest} | wandb {newest} |" in readme
    assert f"| weave | {weave} | {weave} |" in readme
    [names] = re.findall(r"^\| (Lightning, .*?) \| yes \| yes \|$", readme, re.M)
    works = [row.name.lower() for row in [*LIGHT, *HEAVY] if all(page.outcome(row, mode) == "yes" for mode in MODES)]
    for name in names.split(", "):
        assert any(name.lower().rstrip("s") in row for row in works), name
