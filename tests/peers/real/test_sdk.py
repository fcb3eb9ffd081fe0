"""The released clients, unmodified, with the environment of `wandb-cred exec` under a real daemon.

The sandbox counts who exchanges: the clients never do.
"""

import json
import pathlib

import pytest
from conftest import HERE, WANDB_VERSIONS, WEAVE_VERSION, run_client
from programs import binary, interpreter

CLIENTS = HERE / "clients"


@pytest.mark.parametrize("version", WANDB_VERSIONS)
def test_a_wandb_run_logs_every_row_and_never_exchanges(version, start_pair):
    sandbox, daemon = start_pair()
    daemon.exec(interpreter(f"wandb-{version}"), CLIENTS / "log_rows.py", "run", "50")

    stats = sandbox.stats()
    assert stats["sdk_exchanges"] == 0
    assert stats["exchanges"]["by_outcome"] == {"ok": 1}
    assert stats["auth_failures"] == {}
    run = sandbox.run("team/real/run")
    assert [row["row"] for row in run["rows"]] == list(range(50))
    assert run["complete"] and run["exit_code"] == 0
    assert "config.yaml" in run["files"]


@pytest.mark.parametrize("version", WANDB_VERSIONS)
def test_one_job_logs_to_two_servers_and_neither_sees_a_jwt_of_a_client(version, start_sandbox, start_daemon):
    first, second = start_sandbox(), start_sandbox()
    mint = [str(binary("wandb-cred-sandbox")), "mint", "--url"]
    more = f'[profile.other]\nbase-url = "{second.url}"\naudience = "sandbox"\n'
    more += f"[profile.other.provider.command]\nargv = {json.dumps([*mint, second.url])}\n"
    daemon = start_daemon(first.url, [*mint, first.url], more="default-profile = 'sandbox'\n" + more)
    script = 'cat "$WANDB_IDENTITY_TOKEN_FILE"; "$0" "$1" one 5 && WANDB_BASE_URL=$2 "$0" "$1" two 5'
    argv = [interpreter(f"wandb-{version}"), CLIENTS / "log_rows.py", second.url]
    exec_both = [binary("wandb-cred"), "exec", "-p", "sandbox", "-p", "other", "--"]
    done = run_client([*exec_both, "sh", "-c", script, *argv], daemon.env, daemon.folder)

    assert done.stdout.startswith("relay")
    for sandbox, name in ((first, "one"), (second, "two")):
        stats = sandbox.stats()
        assert (stats["sdk_exchanges"], stats["exchanges"]["by_outcome"]) == (0, {"ok": 1})
        assert stats["auth_failures"] == {}
        assert list(stats["runs"]) == [f"team/real/{name}"]
        assert len(sandbox.run(f"team/real/{name}")["rows"]) == 5


def test_weave_traces_every_call_and_never_exchanges(start_pair):
    sandbox, daemon = start_pair()
    daemon.exec(interpreter(f"weave-{WEAVE_VERSION}"), CLIENTS / "trace_calls.py", "10")

    stats = sandbox.stats()
    assert stats["sdk_exchanges"] == 0
    assert stats["auth_failures"] == {}
    assert (stats["weave"]["calls_started"], stats["weave"]["calls_ended"]) == (10, 10)


# Before 0.25.1 the public API speaks HTTP Basic, which no server takes with an access token.
@pytest.mark.parametrize("version", WANDB_VERSIONS[1:])
def test_the_public_api_knows_who_we_are_and_never_exchanges(version, start_pair):
    sandbox, daemon = start_pair()
    done = daemon.exec(interpreter(f"wandb-{version}"), CLIENTS / "viewer.py")

    assert "dev@example.com" in done.stdout
    stats = sandbox.stats()
    assert stats["sdk_exchanges"] == 0
    assert stats["auth_failures"] == {}


@pytest.mark.parametrize("version", [WANDB_VERSIONS[0], WANDB_VERSIONS[-1]])
def test_requests_sends_a_scripts_token_where_netrc_has_a_key_of_the_server(version, start_pair):
    _, daemon = start_pair()
    netrc = pathlib.Path(daemon.env["HOME"]) / ".netrc"
    netrc.write_text("machine 127.0.0.1 login user password key\nmachine localhost login a password b\n")
    netrc.chmod(0o600)
    done = daemon.exec(interpreter(f"wandb-{version}"), CLIENTS / "with_netrc.py")

    # The other server's entry counts as ever: that is requests' way.
    assert done.stdout == "127.0.0.1 Bearer mine\nlocalhost Basic YTpi\n"
    assert "psf/requests#3929" in done.stderr
