"""The parts of a sign-in for the tests: daemon, OpenID Provider, W&B stand-in, and the person."""

import base64
import fcntl
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

import loopback
from rogue import Rogue

ROOT = pathlib.Path(__file__).resolve().parents[3]
HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(os.environ.get("WANDB_CRED_BIN_DIR", ROOT / "target/debug"))


# A shell starts what runs in the background with SIGINT ignored, and so would be every command that we start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, seconds=20, what="the condition"):
    """Polls until `condition` gives something true, and returns that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def claims_of(jwt):
    payload = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


class Provider:
    """panva's oidc-provider with strict settings."""

    def __init__(self, **env):
        self.process = subprocess.Popen(
            ["node", HERE.parent / "openid_provider.mjs"], env={**os.environ, **{k: str(v) for k, v in env.items()}},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.issuer = next(line.split()[1] for line in self.process.stdout if line.startswith("ready"))
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stats(self):
        with urllib.request.urlopen(f"{self.issuer}/stats") as answer:
            return json.load(answer)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Wandb:
    """The token endpoint of a W&B server: keeps every assertion it was given."""

    def __init__(self, expires_in=3600):
        seen = self.assertions = []

        class Handler(loopback.Handler):
            def do_POST(self):
                body = self.body()
                seen.append(urllib.parse.parse_qs(body)["assertion"][0])
                token = {"access_token": f"wb_at_{len(seen)}", "token_type": "bearer", "expires_in": expires_in}
                self.answer(200, token)

        self.url = loopback.start(Handler)


class Daemon:
    """wandb-credd with one profile, `work`, in a folder of its own."""

    def __init__(self, home, issuer, wandb, client="cli", store="file", env=None, more=""):
        self.home = home
        self.socket = home / "run/wandb-cred/wandb-cred.sock"
        self.log = home / "daemon.log"
        self.env = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home / "run"),
                    "XDG_CONFIG_HOME": str(home / ".config"), "XDG_STATE_HOME": str(home / ".local/state"), **(env or {})}
        (home / "run").mkdir(mode=0o700, exist_ok=True)
        config = home / ".config/wandb-cred/config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f'[profile.work]\nbase-url = "{wandb}"\n[profile.work.provider.oidc]\n'
                          f'issuer = "{issuer}"\nclient-id = "{client}"\ntoken-store = "{store}"\n{more}\n')
        config.chmod(0o600)
        self.process = None

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen([BIN / "wandb-credd", "--log-level", "trace"], env=self.env,
                                            stdout=log, stderr=log)
        until(self._answers, what=f"the daemon to start ({self.log})")
        return self

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.call("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(40)

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.socket))
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if text.startswith("{") else text

    def cli(self, *arguments, **more):
        return subprocess.run([BIN / "wandb-cred", *arguments], env=self.env, capture_output=True, text=True,
                              timeout=120, **more)

    def begin(self, method="browser"):
        status, login = self.call("POST", "/v1/login", {"method": method})
        assert status == 200, login
        return login

    def progress(self, login):
        return self.call("GET", f"/v1/login/{login['id']}")[1]

    def ended(self, login):
        return until(lambda: (now := self.progress(login))["state"] != "waiting" and now, what="the sign-in to end")

    def sign_in(self, user="alice"):
        login = self.begin()
        person(login["url"], user)
        ended = self.ended(login)
        assert ended["state"] == "signed-in", ended
        return ended

    def renew(self):
        """A forced renewal that really was made: the daemon makes one in five seconds at most."""
        before = self.profile()["exchanges"]

        def made():
            status, answer = self.call("POST", "/v1/refresh")
            return (status != 200 or answer["exchanges"] > before) and (status, answer)

        return until(made, what="a renewal")

    def profile(self):
        return self.call("GET", "/v1/status")[1]["profiles"][0]

    def profile_of(self, name):
        return next(profile for profile in self.call("GET", "/v1/status")[1]["profiles"] if profile["name"] == name)

    def lock(self):
        """The lock file of the one session: whoever redeems its refresh token has the lock."""
        [path] = (self.home / ".local/state/wandb-cred/locks").glob("*.lock")
        return path

    def redeems(self):
        """Whether some process has the lock now."""
        with self.lock().open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def token(self):
        return self.call("GET", "/v1/token?wait=30")


def person(url, user="alice", chromium=False, screenshot=None, elsewhere=False):
    """Lets a person go through the pages from `url` on; gives the last one."""
    command = ["node", HERE / "person.mjs", url, user]
    if elsewhere:
        command += ["--elsewhere"]
    if chromium:
        command += ["--chromium"] + ([str(screenshot)] if screenshot else [])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def op():
    provider = Provider(ID_TTL=3600)
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def wandb():
    return Wandb()


@pytest.fixture
def rogue():
    """A provider that attacks."""
    return Rogue()


@pytest.fixture
def victim(tmp_path, rogue, wandb):
    daemon = Daemon(tmp_path, rogue.issuer, wandb.url).start()
    yield daemon
    daemon.kill()


@pytest.fixture
def daemon(tmp_path, op, wandb):
    daemon = Daemon(tmp_path, op.issuer, wandb.url).start()
    yield daemon
    daemon.kill()
