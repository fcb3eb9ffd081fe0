"""What every test here stands on: a running sandbox, a running daemon, the released clients.

Nothing is skipped: a part that is not there fails the test and says what to run.
"""

import contextlib
import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile

import pytest

import programs
from programs import bare_environment, binary, running, wait_for

HERE = pathlib.Path(__file__).parent

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


@pytest.fixture
def start_sandbox(folder):
    """Starts a sandbox with the given options of `serve`."""
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(programs.sandbox(folder, *options))


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
    """Starts a daemon with the given base URL, audience and `command` provider, and with `more` profiles."""

    def start(base_url, argv, audience="sandbox", more=""):
        config = folder / "config.toml"
        config.write_text(
            f"{more}[profile.sandbox]\nbase-url = {json.dumps(base_url)}\naudience = {json.dumps(audience)}\n\n"
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
