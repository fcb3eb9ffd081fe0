"""Sessions: what they set, what they give back, and the real SDK inside."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

import wandb_cred

NAMES = [
    "WANDB_API_KEY",
    "WANDB_APP_URL",
    "WANDB_BASE_URL",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_CRED_PROFILE",
    "WANDB_CRED_SOCKET",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WF_TRACE_SERVER_URL",
    "NO_PROXY",
    "no_proxy",
]


def variables():
    return {name: os.environ.get(name) for name in NAMES}


@pytest.mark.parametrize("before", [{}, {"NO_PROXY": "a, b", "WANDB_APP_URL": "https://app.example"}, {"no_proxy": "*"}])
@pytest.mark.parametrize("options", [[], ["--proxy"], ["-p", "work", "-p", "other"]], ids=["files", "proxy", "several"])
def test_a_session_sets_what_the_command_sets(options, before, world, start_sandbox, here):
    world.configure(start_sandbox())
    world.configure(start_sandbox(), "other")
    world.variables.update(before, WANDB_API_KEY="k" * 40)
    here()
    earlier = variables()
    expected = json.loads(world.command("env", "--shell", "json", "--pid", str(os.getpid()), *options))
    profiles = ["work", "other"] if "-p" in options else None
    with wandb_cred.session(profiles, proxy=True if "--proxy" in options else None) as session:
        inside = dict(session.variables)
        assert {name: os.environ.get(name) for name in inside} == inside
    if "--proxy" in options:
        # Each request for a job by the proxy gives a key of its own.
        assert len(inside.pop("WANDB_API_KEY")) == len(expected.pop("WANDB_API_KEY")) == 40
    assert inside == expected
    assert variables() == earlier


def test_the_daemon_knows_the_session_as_a_job(world, sandbox, here):
    world.configure(sandbox)
    world.serve()
    here()
    with wandb_cred.session():
        [job] = json.loads(world.command("status", "--json", "--jobs"))["job_list"]
        assert (job["pid"], job["profile"]) == (os.getpid(), "work")


def test_sessions_nest_and_end_in_any_order(world, start_sandbox, here):
    world.configure(start_sandbox(), "one")
    world.configure(start_sandbox(), "two")
    world.serve()
    here()
    before = variables()
    one = wandb_cred.session("one").start()
    assert one.start() is one, "twice is once"
    with wandb_cred.session("two") as two:
        assert os.environ["WANDB_BASE_URL"] == two.base_url != one.base_url
    assert os.environ["WANDB_BASE_URL"] == one.base_url
    two.start()
    one.close()
    assert os.environ["WANDB_BASE_URL"] == two.base_url
    one.close()
    two.close()
    assert variables() == before
    with one:
        assert os.environ["WANDB_BASE_URL"] == one.base_url
    assert variables() == before


def test_what_somebody_changes_meanwhile_stays(world, sandbox, here):
    world.configure(sandbox)
    world.serve()
    here()
    with wandb_cred.session():
        os.environ["WANDB_BASE_URL"] = "https://elsewhere.example"
    assert os.environ["WANDB_BASE_URL"] == "https://elsewhere.example"
    assert "WANDB_IDENTITY_TOKEN_FILE" not in os.environ


def test_a_session_that_cannot_start_changes_nothing(world, sandbox, here):
    world.configure(sandbox)
    here()
    before = variables()
    with pytest.raises(wandb_cred.Error, match="wrok"):
        wandb_cred.session("wrok").start()
    assert variables() == before


def test_a_forked_child_is_registered_when_it_starts_the_session_again(world, sandbox):
    world.configure(sandbox)
    world.serve()
    world.python(
        """
        import os, sys, wandb_cred
        session = wandb_cred.session().start()
        if os.fork() == 0:
            try:
                assert session.start() is session
                session.close()
                assert "WANDB_IDENTITY_TOKEN_FILE" not in os.environ
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert "WANDB_IDENTITY_TOKEN_FILE" in os.environ
        """
    )


LOG = """
import wandb, wandb_cred
with wandb_cred.session(proxy={proxy}) as session:
    with wandb.init(entity="team", project="real", id="run") as run:
        for row in range(20):
            run.log({{"row": row}})
    print(wandb.Api().viewer.email)
"""


@pytest.mark.parametrize("proxy", [None, True], ids=["files", "proxy"])
def test_the_real_sdk_logs_inside_a_session_and_never_exchanges(proxy, world, sandbox):
    world.configure(sandbox)
    assert "dev@example.com" in world.python(LOG.format(proxy=proxy))
    stats = sandbox.stats()
    assert (stats["sdk_exchanges"], stats["exchanges"]["by_outcome"], stats["auth_failures"]) == (0, {"ok": 1}, {})
    assert [row["row"] for row in sandbox.run("team/real/run")["rows"]] == list(range(20))


@pytest.mark.parametrize("before", ["wandb.setup()", "wandb.init(mode='offline').finish()"])
def test_an_sdk_that_has_read_its_environment_reads_it_again(before, world, sandbox):
    world.configure(sandbox)
    world.python(LOG.format(proxy=None).replace("with wandb_cred", f"{before}\nwith wandb_cred", 1))
    assert list(sandbox.stats()["runs"]) == ["team/real/run"] and sandbox.stats()["auth_failures"] == {}


def test_two_sessions_in_turn_log_to_their_own_servers(world, start_sandbox):
    servers = [start_sandbox(), start_sandbox()]
    for name, server in zip(("one", "two"), servers):
        world.configure(server, name)
    world.python(
        """
        import wandb, wandb_cred
        for name in ("one", "two"):
            with wandb_cred.session(name):
                with wandb.init(entity="team", project="real", id=name) as run:
                    run.log({"row": 0})
        """
    )
    assert [list(server.stats()["runs"]) for server in servers] == [["team/real/one"], ["team/real/two"]]
    assert [server.stats()["sdk_exchanges"] for server in servers] == [0, 0]


def test_a_run_that_is_under_way_keeps_its_credentials(world, start_sandbox):
    servers = [start_sandbox(), start_sandbox()]
    for name, server in zip(("one", "two"), servers):
        world.configure(server, name)
    said = world.python(
        """
        import wandb, wandb_cred, warnings
        with wandb_cred.session("one"), wandb.init(entity="team", project="real", id="run") as run:
            with warnings.catch_warnings(record=True) as caught, wandb_cred.session("two"):
                run.log({"row": 0})
            print(caught[0].message, caught[0].filename)
        """
    )
    assert said.startswith("a W&B run is under way") and said.endswith("<string>")
    assert [list(server.stats()["runs"]) for server in servers] == [["team/real/run"], []]


def test_a_notebook_in_a_real_kernel_logs_after_one_line(world, sandbox):
    """Cells as a person types them, run by Jupyter's own client in a kernel of its own."""
    world.configure(sandbox)
    cells = [
        "import wandb_cred\nsession = wandb_cred.session().start()\nsession",
        "wandb_cred.token()",
        "import wandb\nrun = wandb.init(entity='team', project='real', id='cell')\nrun.log({'row': 0})",
        "run.log({'row': 1})\nrun.finish()",
        "session.close()\nimport os\n'WANDB_IDENTITY_TOKEN_FILE' in os.environ",
    ]
    run = """
        import json, sys, nbformat
        from nbclient import NotebookClient
        cells = [nbformat.v4.new_code_cell(cell) for cell in json.loads(sys.stdin.read())]
        notebook = nbformat.v4.new_notebook(cells=cells)
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
        print(nbformat.writes(notebook))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(run)],
        input=json.dumps(cells),
        env={**world.variables, "JUPYTER_PLATFORM_DIRS": "1"},
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    shown = [[output.get("data", {}).get("text/plain", "") for output in cell["outputs"]] for cell in json.loads(done.stdout)["cells"]]
    # In files, text is a list of lines.
    outputs = ["".join("".join(text) for text in cell) for cell in shown]
    assert "profile 'work'" in outputs[0] and outputs[1].startswith("<token of profile 'work'") and outputs[4] == "False"
    assert world.command("token").strip() not in done.stdout
    stats = sandbox.stats()
    assert (stats["sdk_exchanges"], stats["exchanges"]["by_outcome"], stats["auth_failures"]) == (0, {"ok": 1}, {})
    assert [row["row"] for row in sandbox.run("team/real/cell")["rows"]] == [0, 1]
