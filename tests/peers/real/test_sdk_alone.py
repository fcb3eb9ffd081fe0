"""The released clients against the sandbox with nothing of ours between: they exchange by themselves.

This proves the stand-in, and it shows that the counter which the other tests want at zero can count.
"""

import pytest
from conftest import HERE, WANDB_VERSIONS, WEAVE_VERSION, run_client
from programs import bare_environment, interpreter


@pytest.fixture
def environment(folder):
    def make(sandbox):
        (folder / "identity-token").write_text(sandbox.mint())
        return bare_environment(
            folder,
            WANDB_BASE_URL=sandbox.url,
            WANDB_IDENTITY_TOKEN_FILE=str(folder / "identity-token"),
            WANDB_CREDENTIALS_FILE=str(folder / "credentials.json"),
        )

    return make


@pytest.mark.parametrize("version", WANDB_VERSIONS)
def test_wandb_exchanges_by_itself_and_every_row_arrives(version, start_sandbox, environment, folder):
    sandbox = start_sandbox()
    argv = [interpreter(f"wandb-{version}"), HERE / "clients/log_rows.py", "alone", "50"]
    run_client(argv, environment(sandbox), folder)

    stats = sandbox.stats()
    assert stats["sdk_exchanges"] == stats["exchanges"]["by_outcome"]["ok"] == 1
    run = sandbox.run("team/real/alone")
    assert [row["row"] for row in run["rows"]] == list(range(50))
    assert run["complete"] and run["exit_code"] == 0
    assert "config.yaml" in run["files"]


def test_weave_exchanges_by_itself_and_every_call_arrives(start_sandbox, environment, folder):
    sandbox = start_sandbox()
    argv = [interpreter(f"weave-{WEAVE_VERSION}"), HERE / "clients/trace_calls.py", "10"]
    run_client(argv, environment(sandbox), folder)

    stats = sandbox.stats()
    assert stats["sdk_exchanges"] == 1
    assert (stats["weave"]["calls_started"], stats["weave"]["calls_ended"]) == (10, 10)


def test_a_jwt_presented_twice_stops_the_run(start_sandbox, environment, folder):
    """The replay check of a real server, as a client without a daemon meets it."""
    sandbox = start_sandbox()
    env = environment(sandbox)
    argv = [interpreter("wandb-0.31.0"), HERE / "clients/log_rows.py"]
    run_client([*argv, "first", "1"], env, folder)
    (folder / "credentials.json").unlink()
    again = run_client([*argv, "second", "1"], env, folder, check=False)

    assert again.returncode != 0
    assert sandbox.stats()["exchanges"]["by_outcome"]["jti-used"] >= 1
    assert "team/real/second" not in sandbox.stats()["runs"]


def test_access_tokens_of_300_seconds_or_less_are_exchanged_again_and_again(start_sandbox, environment, folder):
    sandbox = start_sandbox("--token-life", "300")
    sandbox.post("/sandbox/settings", {"replay_check": False})
    argv = [interpreter("wandb-0.31.0"), HERE / "clients/log_rows.py", "short", "5"]
    run_client(argv, environment(sandbox), folder)

    assert sandbox.stats()["sdk_exchanges"] > 3
