"""What a released client does through the proxy, whatever its version: two revocations and tokens of 4 s in a run."""

import contextlib
import os
import signal
import subprocess
import time

from conftest import HERE
from programs import binary, interpreter, wait_for

CLIENTS = HERE / "clients"
ROWS = 28
TOKEN_LIFE = "4"


@contextlib.contextmanager
def logging_run(version, sandbox, daemon, folder, rows, pause, patience=100):
    """A run that logs `rows` rows through the proxy: inside, it has begun; at the end, it must end well by itself."""
    script = [interpreter(f"wandb-{version}"), CLIENTS / "log_rows.py", "run", str(rows), str(pause)]
    work = folder / "work"
    work.mkdir()
    with open(folder / "run.log", "wb") as log:
        run = subprocess.Popen(
            [binary("wandb-cred"), "exec", "--proxy", "--", *script],
            env=daemon.env,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            # What happens next hits requests of a run.
            wait_for("run", lambda: "team/real/run" in sandbox.stats()["runs"] or run.poll() is not None, 60)
            yield
            assert run.wait(patience) == 0, (folder / "run.log").read_text()
        finally:
            run.kill()
            run.wait()


def survives_revocations(version, start_pair, folder):
    """No row is lost and none comes twice. Before 0.19.11 and after, a run without the proxy ends at the first."""
    sandbox, daemon = start_pair("--token-life", TOKEN_LIFE)
    revoked = 0
    with logging_run(version, sandbox, daemon, folder, ROWS, 0.3):
        for _ in range(2):
            revoked += sandbox.post("/sandbox/revoke", {})["revoked"]
            time.sleep(3)
    assert revoked >= 1
    came = sandbox.run("team/real/run")
    assert [row["row"] for row in came["rows"]] == list(range(ROWS))
    assert came["complete"] and came["exit_code"] == 0
    stats = sandbox.stats()
    assert stats["sdk_exchanges"] == 0
    assert "api-key" not in stats["auth_failures"], "the local key must not leave this machine"


def carries_files(version, start_pair):
    """A file goes up, and comes down by the address that GraphQL gives, which is the server's own."""
    sandbox, daemon = start_pair()
    script = CLIENTS / "file_up_and_down.py"
    done = daemon.exec(interpreter(f"wandb-{version}"), script, "run", options=["--proxy"])
    assert "the same" in done.stdout
    assert sandbox.stats()["auth_failures"] == {}


def answers(daemon):
    try:
        return bool(daemon.status())
    except OSError:
        return False


def survives_a_killed_daemon(version, start_pair, folder, processes):
    """The daemon is killed and started again while a run logs; port and key stay."""
    sandbox, daemon = start_pair()
    status = daemon.status()
    with logging_run(version, sandbox, daemon, folder, 40, 0.2):
        os.kill(status["pid"], signal.SIGKILL)
        wait_for("end of the daemon", lambda: not answers(daemon))
        processes([binary("wandb-credd"), "run"], env=daemon.env, log=folder / "daemon-2.log")
    rows = [row["row"] for row in sandbox.run("team/real/run")["rows"]]
    assert rows == list(range(40))


def survives_an_outage(version, start_pair, folder):
    """The exchange is away for 15 s while tokens live 4 s: clients are told to wait, and do."""
    sandbox, daemon = start_pair("--token-life", TOKEN_LIFE)
    with logging_run(version, sandbox, daemon, folder, 80, 0.3, patience=200):
        sandbox.post("/sandbox/faults", {"exchange": {"status": 503}})
        time.sleep(15)
        sandbox.post("/sandbox/faults", {})
    rows = [row["row"] for row in sandbox.run("team/real/run")["rows"]]
    assert rows == list(range(80))


def syncs_and_knows_who_we_are(version, start_pair):
    """A run logged offline is sent later, and the public API works."""
    sandbox, daemon = start_pair()
    python = interpreter(f"wandb-{version}")
    script = f"WANDB_MODE=offline {python} {CLIENTS}/log_rows.py run 20"
    command = f"{python.parent}/wandb sync --no-include-online wandb/offline-run-*"
    daemon.exec("sh", "-ec", f"{script}; {command}; {python} {CLIENTS}/viewer.py", options=["--proxy"])
    assert [row["row"] for row in sandbox.run("team/real/run")["rows"]] == list(range(20))
    assert sandbox.stats()["auth_failures"] == {}

