"""The session in a real Secret Service: stored, locked, unlocked, restarted."""

import os
import shutil
import signal
import subprocess

import pytest
from conftest import BIN, Daemon, Provider, until

pytestmark = pytest.mark.skipif(not shutil.which("gnome-keyring-daemon"), reason="no gnome-keyring-daemon here")


class Desktop:
    """A private session bus with gnome-keyring on it, unlocked by a password."""

    def __init__(self, home):
        self.home = home
        (home / "run").mkdir(mode=0o700, exist_ok=True)
        self.env = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home / "run"),
                    "XDG_DATA_HOME": str(home / ".local/share")}
        self.bus = subprocess.Popen(["dbus-daemon", "--session", "--nofork", "--print-address"], env=self.env,
                                    stdout=subprocess.PIPE, text=True)
        self.env["DBUS_SESSION_BUS_ADDRESS"] = self.bus.stdout.readline().strip()
        self.keyring = None
        self.unlock()

    def unlock(self):
        self.stop_keyring()
        self.keyring = subprocess.Popen(["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"],
                                        env=self.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.keyring.stdin.write("pass")
        self.keyring.stdin.close()
        # Not by a look-up: before this one has taken its name, that makes the bus start another, which has no password.
        until(self.has_keyring, what="the keyring")
        # The default collection appears with the first secret.
        done = self.tool("store", "--label=probe", "probe", "x", input="y")
        assert done.returncode == 0, done.stderr

    def has_keyring(self):
        done = subprocess.run(["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus",
                               "/org/freedesktop/DBus", "org.freedesktop.DBus.NameHasOwner",
                               "string:org.freedesktop.secrets"], env=self.env, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return "boolean true" in done.stdout

    def lock(self):
        done = subprocess.run(["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.secrets",
                               "/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock",
                               "array:objpath:/org/freedesktop/secrets/aliases/default"], env=self.env,
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr

    def tool(self, *arguments, input=None):
        return subprocess.run(["secret-tool", *arguments], env=self.env, input=input, capture_output=True, text=True,
                              timeout=20)

    def stop_keyring(self):
        if self.keyring:
            self.keyring.kill()
            self.keyring.wait()

    def stop(self):
        self.stop_keyring()
        self.bus.kill()
        self.bus.wait()


@pytest.fixture
def desktop(tmp_path):
    desktop = Desktop(tmp_path)
    yield desktop
    desktop.stop()


def test_stored_locked_unlocked_restarted(desktop, op, wandb, tmp_path):
    daemon = Daemon(tmp_path, op.issuer, wandb.url, store="keyring", env=desktop.env).start()
    try:
        daemon.sign_in()
        found = desktop.tool("search", "--all", "application", "wandb-cred")
        assert "refresh_token" in found.stdout and "wandb-cred sign-in for profile work" in found.stdout
        assert daemon.token()[0] == 200
        assert not list((tmp_path / ".local/state").rglob("*.json")), "no copy on disk"

        rotations = op.stats()["refresh_token success"] if "refresh_token success" in op.stats() else 0
        desktop.lock()
        daemon.renew()
        status = daemon.profile()["identity"]
        assert "keyring is locked" in status["last_error"], status
        assert status["state"] != "needs-login", "locked is not absent"
        assert op.stats().get("refresh_token success", 0) == rotations, "nothing is redeemed that cannot be kept"
        assert daemon.token()[0] == 200, "a cached token does not wait for the keyring"

        desktop.unlock()
        until(lambda: daemon.renew()[0] == 200, what="the session to be found again")
        daemon.kill(signal.SIGTERM)
        daemon.start()
        until(lambda: daemon.renew()[0] == 200, what="the session after a restart")

        assert daemon.call("POST", "/v1/logout")[1]["revoked"]
        assert "refresh_token" not in desktop.tool("search", "--all", "application", "wandb-cred").stdout
    finally:
        daemon.kill()


def jobs_at_once(daemon):
    """What jobs without a service say, and their exit codes: they differ in the folder of state, but not in the keyring."""
    jobs = [subprocess.Popen([BIN / "wandb-cred", "exec", "--private", "--", "true"], stderr=subprocess.PIPE, text=True,
                             env={**daemon.env, "XDG_STATE_HOME": str(daemon.home / f"state-{number}")})
            for number in range(4)]
    return [(job.communicate(timeout=60)[1], job.returncode) for job in jobs]


@pytest.mark.parametrize("store", ["keyring", "kernel"])
def test_jobs_that_start_at_once_share_a_session_that_is_no_file(desktop, wandb, tmp_path, store):
    provider = Provider(DELAY_MS=100)
    daemon = Daemon(tmp_path, provider.issuer, wandb.url, store=store, env=desktop.env).start()
    try:
        daemon.call("GET", "/v1/token?wait=1")
        if "persistent keyring" in str(daemon.call("GET", "/v1/status")[1]):
            pytest.skip("this kernel or container gives no persistent keyring")
        daemon.sign_in()
        daemon.kill(signal.SIGTERM)
        assert jobs_at_once(daemon) == [("", 0)] * 4
        assert "refresh_token invalid_grant" not in provider.stats()
        assert provider.stats()["refresh_token success"] == 4
        daemon.start()
        assert daemon.call("POST", "/v1/logout")[1]["revoked"]
    finally:
        daemon.kill()
        provider.stop()


def test_no_keyring_is_said_and_nothing_else_is_used(op, wandb, tmp_path):
    env = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/nothing"}
    daemon = Daemon(tmp_path, op.issuer, wandb.url, store="keyring", env=env).start()
    try:
        assert daemon.call("GET", "/v1/token?wait=1")[0] == 503
        identity = daemon.profile()["identity"]
        assert "token-store" in identity["last_error"], identity
        assert not list((tmp_path / ".local").rglob("*.json")), "no silent fall-back to a file"
    finally:
        daemon.kill()


def test_the_kernel_keyring(op, wandb, tmp_path):
    daemon = Daemon(tmp_path, op.issuer, wandb.url, store="kernel").start()
    try:
        daemon.call("GET", "/v1/token?wait=1")
        if "persistent keyring" in str(daemon.call("GET", "/v1/status")[1]):
            pytest.skip("this kernel or container gives no persistent keyring")
        daemon.sign_in()
        daemon.kill()
        daemon.start()
        until(lambda: daemon.renew()[0] == 200, what="the session after a restart")
        assert daemon.call("POST", "/v1/logout")[1]["account"] == "alice@example.com"
    finally:
        daemon.kill()
