"""What a released client does through the proxy, whatever its version: two revocations and tokens of 4 s in a run."""

import os
import random
import signal
import subprocess
import time

from conftest import HERE
from programs import binary, interpreter, wait_for

CLIENTS = HERE / "clients"
ROWS = 28
TOKEN_LIFE = "4"


def survives_revocations(version, start_pair, folder):
    """No row is lost and none comes twice. Before 0.19.11 and after, a run without the proxy ends at the first."""
    sandbox, daemon = start_pair("--token-life", TOKEN_LIFE)
    script = [interpreter(f"wandb-{version}"), CLIENTS / "log_rows.py", "run", str(ROWS), "0.3"]
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
        revoked = 0
        try:
            # The first when the run is known, so that it hits requests of a run.
            wait_for("run", lambda: "team/real/run" in sandbox.stats()["runs"] or run.poll() is not None, 60)
            for _ in range(2):
                revoked += sandbox.post("/sandbox/revoke", {})["revoked"]
                time.sleep(3)
            assert run.wait(100) == 0, (folder / "run.log").read_text()
        finally:
            run.kill()
            run.wait()
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
    script = [interpreter(f"wandb-{version}"), CLIENTS / "log_rows.py", "run", "40", "0.2"]
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
            wait_for("run", lambda: "team/real/run" in sandbox.stats()["runs"] or run.poll() is not None, 60)
            os.kill(status["pid"], signal.SIGKILL)
            wait_for("end of the daemon", lambda: not answers(daemon))
            processes([binary("wandb-credd"), "run"], env=daemon.env, log=folder / "daemon-2.log")
            assert run.wait(100) == 0, (folder / "run.log").read_text()
        finally:
            run.kill()
            run.wait()
    rows = [row["row"] for row in sandbox.run("team/real/run")["rows"]]
    assert rows == list(range(40))


def survives_an_outage(version, start_pair, folder):
    """The exchange is away for 15 s while tokens live 4 s: clients are told to wait, and do."""
    sandbox, daemon = start_pair("--token-life", TOKEN_LIFE)
    script = [interpreter(f"wandb-{version}"), CLIENTS / "log_rows.py", "run", "80", "0.3"]
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
            wait_for("run", lambda: "team/real/run" in sandbox.stats()["runs"] or run.poll() is not None, 60)
            sandbox.post("/sandbox/faults", {"exchange": {"status": 503}})
            time.sleep(15)
            sandbox.post("/sandbox/faults", {})
            assert run.wait(200) == 0, (folder / "run.log").read_text()
        finally:
            run.kill()
            run.wait()
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


def endures(version, lives, start_pair, folder, processes, seed):
    """A run over many token lives with a fault in most of them: what servers, networks and machines do on bad days."""
    dice = random.Random(seed)
    sandbox, daemon = start_pair("--token-life", TOKEN_LIFE)
    stop = folder / "stop"
    work = folder / "work"
    work.mkdir()
    script = [interpreter(f"wandb-{version}"), CLIENTS / "log_until.py", "long", stop]
    client = subprocess.Popen(
        [str(arg) for arg in [binary("wandb-cred"), "exec", "--proxy", "--", *script]],
        env=daemon.env,
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def fault(where, what):
        sandbox.post("/sandbox/faults", {where: what})

    def kill():
        os.kill(daemon.status()["pid"], signal.SIGKILL)
        wait_for("end of the daemon", lambda: not answers(daemon))
        processes([binary("wandb-credd"), "run"], env=daemon.env, log=folder / "daemon-more.log")
        wait_for("daemon", lambda: answers(daemon))

    faults = {
        "429": lambda: fault("api", {"status": 429, "count": 2}),
        "500": lambda: fault("api", {"status": 500, "count": 2}),
        "drip": lambda: fault("api", {"fault": "slow-drip", "count": 1}),
        "reset": lambda: fault("api", {"fault": "truncate", "count": 1}),
        "slow": lambda: fault("api", {"delay_ms": 3000, "count": 2}),
        "revocation": lambda: sandbox.post("/sandbox/revoke", {}),
        "exchange away": lambda: fault("exchange", {"status": 503, "count": 3}),
        "identity away": lambda: fault("idp", {"status": 503, "count": 2}),
        "kill": kill,
    }
    try:
        wait_for("run", lambda: "team/real/long" in sandbox.stats()["runs"] or client.poll() is not None, 60)
        began, order = time.monotonic(), []
        while time.monotonic() < began + lives * float(TOKEN_LIFE) and client.poll() is None:
            # Each at least once before any comes twice.
            order = order or dice.sample(sorted(faults), len(faults))
            name = order.pop()
            print(f"{time.monotonic() - began:5.0f} s: {name}")
            faults[name]()
            time.sleep(dice.uniform(2, 6))
        sandbox.post("/sandbox/faults", {})
        stop.touch()
        output, _ = client.communicate(timeout=180)
    finally:
        client.kill()
        client.wait()
    print(output)
    assert client.returncode == 0, output
    [logged] = [int(line.removeprefix("rows ")) for line in output.splitlines() if line.startswith("rows ")]
    came = sandbox.run("team/real/long")
    assert [row["row"] for row in came["rows"]] == list(range(logged))
    assert came["complete"] and came["exit_code"] == 0
