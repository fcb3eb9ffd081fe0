"""Our programs and what tests run beside them: where they are, how they start and end, and what the sandbox counted.

WANDB_CRED_BIN_DIR names the folder of the binaries under test (default target/debug).
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("WANDB_CRED_BIN_DIR", ROOT / "target/debug")).resolve()


def binary(name):
    path = BINARIES / name
    if not path.exists():
        pytest.fail(f"{path} is not there; run: cargo build --bins (or set WANDB_CRED_BIN_DIR)")
    return path


def interpreter(client, setup="real"):
    """The Python of a released client, for example wandb-0.31.0; `setup` installs it."""
    path = ROOT / ".test/venvs" / client / "bin/python"
    if not (ROOT / ".test/venvs" / client / ".pins").exists():
        pytest.fail(f"{path} is not there; run: scripts/setup-tests {setup}")
    return path


def wait_for(what, look, seconds=20.0):
    """The first true answer of `look`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"no {what} within {seconds:.0f} s")
        time.sleep(0.05)


@contextlib.contextmanager
def running(argv, env=None, log=None, stdin=subprocess.DEVNULL):
    with open(log, "ab") if log else contextlib.nullcontext(subprocess.DEVNULL) as output:
        process = subprocess.Popen(
            [str(arg) for arg in argv], env=env, stdin=stdin, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"{argv[0]} did not end within 15 s of SIGTERM")
        finally:
            if log:
                sys.stdout.write(pathlib.Path(log).read_text(errors="replace")[-8000:])


def bare_environment(folder, **variables):
    """PATH and a HOME of its own, so that nothing of this machine's user takes part."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONSOLE": "off",
        **variables,
    }


class Sandbox:
    def __init__(self, url):
        self.url = url

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return answer.read()

    def post(self, path, value):
        body = json.dumps(value).encode()
        with urllib.request.urlopen(self.url + path, body, timeout=10) as answer:
            return json.load(answer)

    def mint(self, query=""):
        return self.get("/mint?" + query).decode()

    def stats(self):
        return json.loads(self.get("/sandbox/stats"))

    def exchanges(self):
        return self.stats()["exchanges"]["total"]

    def run(self, name):
        """What arrived of one run, rows included."""
        run = self.stats()["runs"][name]
        run["rows"] = json.loads(self.get(f"/sandbox/history?run={name}"))
        return run


@contextlib.contextmanager
def sandbox(folder, *options):
    """A sandbox with the given options of `serve`."""
    ready, log = folder / "sandbox.url", folder / "sandbox.log"
    ready.unlink(missing_ok=True)
    argv = [binary("wandb-cred-sandbox"), "serve", "--ready-file", ready, *options]
    with running(argv, env=bare_environment(folder), log=log) as process:

        def look():
            assert process.poll() is None, log.read_text()
            return ready.exists() and ready.read_text()

        yield Sandbox(wait_for("sandbox", look))
