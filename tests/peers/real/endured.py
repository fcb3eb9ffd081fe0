"""A run over many token lives with a fault in most of them: what servers, networks and machines do on bad days."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time

from conftest import HERE
from programs import binary, interpreter, wait_for

# By the proxy, a life is short. By files, a token is good for another one as soon as the SDK takes it for old, at 300 s.
TOKEN_LIFE = {"proxy": 4, "files": 340}

# The SDK's own settings: it sends more often, and gives up an answer that does not come before the test is over.
SETTINGS = {
    "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "2",
    "WANDB_X_FILE_STREAM_TIMEOUT_SECONDS": "10",
    "WANDB_HTTP_TIMEOUT": "10",
}


class World:
    """A sandbox, a daemon and a run that logs until it is told to stop."""

    def __init__(self, way, version, start_pair, folder, processes):
        self.folder, self.processes = folder, processes
        self.sandbox, self.daemon = start_pair("--token-life", str(TOKEN_LIFE[way]))
        options = ["--proxy"] if way == "proxy" else []
        script = [interpreter(f"wandb-{version}"), HERE / "clients/log_until.py", "long", folder / "stop"]
        work = folder / "work"
        work.mkdir()
        self.log = folder / "run.log"
        with open(self.log, "wb") as log:
            self.client = subprocess.Popen(
                [str(arg) for arg in [binary("wandb-cred"), "exec", *options, "--", *script]],
                env=self.daemon.env | SETTINGS,
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self):
        return self.sandbox.stats()["runs"].get("team/real/long")

    def fault(self, where, what):
        """Returns once it was met."""
        self.sandbox.post("/sandbox/faults", {where: what})
        if where != "api":
            subprocess.run([binary("wandb-cred"), "refresh"], env=self.daemon.env, capture_output=True, timeout=60)
        wait_for(f"request that meets {what}", lambda: self.met(where) or self.client.poll() is not None, 60)

    def met(self, where):
        fault = json.loads(self.sandbox.get("/sandbox/faults"))[where]
        return fault is None or fault["count"] == 0

    def kill(self):
        os.kill(self.daemon.status()["pid"], signal.SIGKILL)
        wait_for("end of the daemon", lambda: not self.answers())
        self.processes([binary("wandb-credd"), "run"], env=self.daemon.env, log=self.folder / "daemon-more.log")
        wait_for("daemon", self.answers)

    def answers(self):
        with contextlib.suppress(OSError):
            return bool(self.daemon.status())


FAULTS = {
    "429": lambda world: world.fault("api", {"status": 429, "count": 2}),
    "500": lambda world: world.fault("api", {"status": 500, "count": 2}),
    "drip": lambda world: world.fault("api", {"fault": "slow-drip", "count": 1}),
    "reset": lambda world: world.fault("api", {"fault": "truncate", "count": 1}),
    "slow": lambda world: world.fault("api", {"delay_ms": 3000, "count": 2}),
    "hang": lambda world: world.fault("api", {"fault": "hang", "count": 1}),
    "exchange away": lambda world: world.fault("exchange", {"status": 503, "count": 1}),
    "identity away": lambda world: world.fault("idp", {"status": 503, "count": 1}),
    "daemon killed": World.kill,
}

# By files, no SDK survives a token that is revoked.
ONLY_BY_PROXY = {"revocation": lambda world: world.sandbox.post("/sandbox/revoke", {})}


def endures(way, version, lives, pause, seed, start_pair, folder, processes):
    """Each fault at least once, and no row is lost or comes twice. `lives` are tokens that the run has gone through."""
    dice = random.Random(seed)
    world = World(way, version, start_pair, folder, processes)
    faults = FAULTS | (ONLY_BY_PROXY if way == "proxy" else {})
    order, rounds, met = [], 0, []
    try:
        wait_for("run", lambda: world.run() or world.client.poll() is not None, 60)
        began = time.monotonic()
        while world.client.poll() is None:
            passed = time.monotonic() - began
            # By files the SDK's requests say which token it has.
            over = passed / TOKEN_LIFE[way] if way == "proxy" else len(world.run()["access_tokens"]) - 1
            if rounds > 0 and not order and over >= lives:
                break
            if not order:
                order, rounds = dice.sample(sorted(faults), len(faults)), rounds + 1
            name = order.pop()
            print(f"{passed:5.0f} s, {over:4.1f} lives: {name}")
            faults[name](world)
            met.append(name)
            time.sleep(dice.uniform(*pause))
        world.sandbox.post("/sandbox/faults", {})
        (folder / "stop").touch()
        world.client.wait(180)
    finally:
        world.client.kill()
        world.client.wait()
    output = world.log.read_text()
    print(output)
    assert world.client.returncode == 0, output
    assert "will not be synced" not in output, output
    [logged] = [int(line.removeprefix("rows ")) for line in output.splitlines() if line.startswith("rows ")]
    came = world.sandbox.run("team/real/long")
    print(f"{passed:.0f} s, {over:.0f} lives, {len(met)} faults, {logged} rows")
    assert [row["row"] for row in came["rows"]] == list(range(logged))
    assert came["complete"] and came["exit_code"] == 0
    assert world.sandbox.stats()["sdk_exchanges"] == 0
