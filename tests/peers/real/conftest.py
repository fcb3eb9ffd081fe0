"""What every test here stands on: a running sandbox, a running daemon, the released clients.

Nothing is skipped: a part that is not there fails the test and says what to run. WANDB_CRED_BIN_DIR names the
folder of the binaries under test (default target/debug).
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
BINARIES = pathlib.Path(os.environ.get("WANDB_CRED_BIN_DIR", ROOT / "target/debug")).resolve()

WANDB_VERSIONS = ["0.19.11", "0.25.1", "0.28.2", "0.31.0"]
WEAVE_VERSION = "0.54.0"

# Through the proxy: those before 0.19.11 know no identity federation.
PROXY_VERSIONS = [
    "0.12.21",
    "0.15.12",
    "0.16.6",
    "0.17.9",
    "0.18.7",
    "0.19.11",
    "0.22.3",
    "0.25.1",
    "0.28.2",
    "0.31.0",
]


def binary(name):
    path = BINARIES / name
    if not path.exists():
        pytest.fail(f"{path} is not there; run: cargo build --bins (or set WANDB_CRED_BIN_DIR)")
    return path


def interpreter(client):
    """The Python of a released client, for example wandb-0.31.0."""
    path = ROOT / ".test/venvs" / client / "bin/python"
    if not (ROOT / ".test/venvs" / client / ".pins").exists():
        pytest.fail(f"{path} is not there; run: scripts/setup-tests real")
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


@pytest.fixture
def folder():
    """A short-named folder of our own: a socket's path has room for about 100 characters."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="wc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def processes():
    """Starts processes, and ends them in the reverse order; their logs are shown when the test fails."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(running(*args, **options))


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

    def run(self, name):
        """What arrived of one run, rows included."""
        run = self.stats()["runs"][name]
        run["rows"] = json.loads(self.get(f"/sandbox/history?run={name}"))
        return run


@pytest.fixture
def start_sandbox(folder, processes):
    """Starts a sandbox with the given options of `serve`."""

    def start(*options):
        ready = folder / "sandbox.url"
        argv = [binary("wandb-cred-sandbox"), "serve", "--ready-file", ready, *options]
        process = processes(argv, env=bare_environment(folder), log=folder / "sandbox.log")

        def look():
            assert process.poll() is None, (folder / "sandbox.log").read_text()
            return ready.exists() and ready.read_text()

        return Sandbox(wait_for("sandbox", look))

    return start


class Daemon:
    def __init__(self, folder, env):
        self.folder = folder
        self.env = env

    def get(self, path):
        """One request on the socket: status and body."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(self.env["WANDB_CRED_SOCKET"])
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def status(self):
        return self.get("/v1/status")[1]

    def exec(self, *argv, options=(), timeout=120, check=True):
        """Runs a command under `wandb-cred exec`, as a user would, in a folder of its own."""
        command = [binary("wandb-cred"), "exec", *options, "--", *argv]
        return run_client(command, self.env, self.folder, timeout, check)


def run_client(argv, env, folder, timeout=120, check=True):
    work = folder / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [str(arg) for arg in argv],
        env=env,
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    output = f"{done.stdout}\n{done.stderr}"
    print(output)
    if check:
        assert done.returncode == 0, output
    return done


@pytest.fixture
def start_daemon(folder, processes):
    """Starts a daemon with one profile: the given base URL, audience and `command` provider."""

    def start(base_url, argv, audience="sandbox"):
        config = folder / "config.toml"
        config.write_text(
            f"[profile.sandbox]\nbase-url = {json.dumps(base_url)}\naudience = {json.dumps(audience)}\n\n"
            f"[profile.sandbox.provider.command]\nargv = {json.dumps([str(arg) for arg in argv])}\n"
        )
        config.chmod(0o600)
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        places = {"WANDB_CRED_CONFIG": str(config), "WANDB_CRED_SOCKET": str(runtime / "s")}
        env = bare_environment(folder, **places)
        process = processes([binary("wandb-credd"), "run"], env=env, log=folder / "daemon.log")
        daemon = Daemon(folder, env)

        def look():
            assert process.poll() is None, (folder / "daemon.log").read_text()
            with contextlib.suppress(OSError):
                return daemon.status()

        wait_for("daemon", look)
        return daemon

    return start


@pytest.fixture
def start_pair(start_sandbox, start_daemon):
    """A sandbox, and a daemon whose `command` provider asks it for JWTs."""

    def start(*options):
        sandbox = start_sandbox(*options)
        mint = [binary("wandb-cred-sandbox"), "mint", "--url", sandbox.url]
        return sandbox, start_daemon(sandbox.url, mint)

    return start
