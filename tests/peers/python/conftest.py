"""What the tests of the Python package stand on: a sandbox, a daemon or none, and this process in a clean environment."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap

import pytest

import programs
from programs import ROOT, BINARIES, bare_environment, binary, running, wait_for

PACKAGE = ROOT / "python"


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="with a real Ray")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: only with --long")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="only with --long"))


@pytest.fixture
def folder():
    """A short-named folder of our own: a socket's path has room for about 100 characters."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="wc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start_sandbox(folder):
    """Starts sandboxes, each in a folder of its own."""
    with contextlib.ExitStack() as stack:

        def start(*options):
            own = folder / f"sandbox-{len(list(folder.glob('sandbox-*')))}"
            own.mkdir()
            return stack.enter_context(programs.sandbox(own, *options))

        yield start


@pytest.fixture
def sandbox(start_sandbox):
    return start_sandbox()


class World:
    """The environment of a user: a configuration, perhaps a running daemon."""

    def __init__(self, folder, stack):
        self.folder = folder
        self.stack = stack
        self.variables = {
            **bare_environment(folder),
            "PATH": f"{BINARIES}:{os.environ['PATH']}",
            "PYTHONPATH": str(PACKAGE),
            # Else a service of this machine's user would be found at /run/user.
            "XDG_RUNTIME_DIR": str(folder),
        }

    def configure(self, sandbox, name="work", extra="", default=None):
        """Adds a profile that the sandbox's `mint` gives JWTs for."""
        config = self.folder / "config.toml"
        mint = [str(binary("wandb-cred-sandbox")), "mint", "--url", sandbox.url]
        text = config.read_text() if config.exists() else f"default-profile = {json.dumps(default or name)}\n"
        config.write_text(
            f"{text}[profile.{name}]\nbase-url = {json.dumps(sandbox.url)}\naudience = 'sandbox'\n{extra}"
            f"[profile.{name}.provider.command]\nargv = {json.dumps(mint)}\n"
        )
        config.chmod(0o600)
        self.variables["WANDB_CRED_CONFIG"] = str(config)

    def serve(self):
        """A daemon at the usual place. Gives its process."""
        log = self.folder / "daemon.log"
        process = self.stack.enter_context(running([binary("wandb-credd"), "run"], env=self.variables, log=log))
        socket = self.folder / "wandb-cred/wandb-cred.sock"
        wait_for("daemon", lambda: process.poll() is not None or socket.exists())
        assert process.poll() is None, log.read_text()
        return process

    def python(self, code, interpreter=sys.executable, check=True, **variables):
        """Runs a piece of Python as a program of its own; gives what it prints."""
        done = subprocess.run(
            [str(interpreter), "-c", textwrap.dedent(code)],
            env={**self.variables, **variables},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check:
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()
        return done

    def command(self, *arguments):
        done = subprocess.run(
            [binary("wandb-cred"), *arguments], env=self.variables, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def world(folder):
    """Nothing is configured, and no daemon runs. One that was started on demand ends with the test."""
    with contextlib.ExitStack() as stack:
        world = World(folder, stack)
        yield world
        end_daemons(folder)


def end_daemons(folder):
    """Daemons on demand of this test: they carry its folder in their environment, and outlive who started them."""
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            named = (entry / "comm").read_text() == "wandb-credd\n"
            if named and f"={folder}".encode() in (entry / "environ").read_bytes():
                # Told to end, it would go on for the job that this process still is.
                os.kill(pid, signal.SIGKILL)
                wait_for(f"end of daemon {pid}", lambda: not is_running(pid))


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def here(world, monkeypatch):
    """This process is in the user's world, and the package is as if it had just been imported."""

    def enter():
        for name in set(os.environ) - set(world.variables):
            monkeypatch.delenv(name)
        for name, value in world.variables.items():
            monkeypatch.setenv(name, value)

    return enter
