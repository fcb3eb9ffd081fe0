"""Access tokens over a real ssh: `feed` into a session, and an upstream through a forwarded socket."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess

import pytest

import programs
from programs import bare_environment, binary, running, wait_for


@pytest.fixture
def sshd(tmp_path):
    """A server on loopback for this user's own key; gives the beginning of a client's command line."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if not server:
        pytest.skip("no sshd; run: apt-get install openssh-server")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ["host", "user"]:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    (keys / "authorized").write_text((keys / "user.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = keys / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\n"
        f"PidFile {keys}/pid\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nStreamLocalBindUnlink yes\n"
    )
    # Debian's privilege separation wants it, and only its service makes it.
    if os.geteuid() == 0:
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "Port": port, "IdentityFile": keys / "user", "UserKnownHostsFile": keys / "known", "BatchMode": "yes",
        "StrictHostKeyChecking": "accept-new", "ExitOnForwardFailure": "yes", "StreamLocalBindMask": "0177",
    }
    client = ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items())]
    with running([server, "-D", "-e", "-f", config], log=tmp_path / "sshd.log"):
        wait_for("sshd", lambda: subprocess.run([*client, "127.0.0.1", "true"], capture_output=True).returncode == 0)
        yield client


class Machine:
    """A daemon's home, and the command that asks it."""

    def __init__(self, folder, name, config):
        self.folder = folder / name
        self.folder.mkdir(mode=0o700)
        self.socket = self.folder / "run/s"
        (self.folder / "config.toml").write_text(config)
        self.env = bare_environment(
            self.folder, WANDB_CRED_CONFIG=str(self.folder / "config.toml"), WANDB_CRED_SOCKET=str(self.socket))

    def ask(self, *arguments):
        done = subprocess.run([binary("wandb-cred"), *arguments], env=self.env, capture_output=True, text=True)
        return done.stdout.strip()

    def token(self):
        return self.ask("token", "--wait", "10")

    def access(self):
        return json.loads(self.ask("status", "--json"))["profiles"][0]["access"]

    @contextlib.contextmanager
    def daemon(self):
        with running([binary("wandb-credd")], env=self.env, log=self.folder / "log") as process:
            # Before that, `token` would start another on demand.
            wait_for("the daemon", self.socket.exists)
            yield process


@pytest.fixture
def source(tmp_path):
    with programs.sandbox(tmp_path) as server:
        mint = json.dumps([str(binary("wandb-cred-sandbox")), "mint", "--url", server.url])
        config = f'[profile.work]\nbase-url = "{server.url}"\n[profile.work.provider.command]\nargv = {mint}\n'
        machine = Machine(tmp_path, "source", config)
        machine.server = server
        with machine.daemon():
            wait_for("a token", machine.token)
            yield machine


def test_a_forwarded_socket_is_an_upstream(tmp_path, sshd, source):
    forwarded = tmp_path / "forwarded"
    forwarded.mkdir(mode=0o700)
    config = f'[profile.work]\nbase-url = "{source.server.url}"\nupstream = "unix:{forwarded}/s"\n'
    there = Machine(tmp_path, "there", config)
    connect = [*sshd, "-N", "-R", f"{forwarded}/s:{source.socket}", "127.0.0.1"]
    with there.daemon():
        with running(connect):
            wait_for("the forwarded socket", (forwarded / "s").exists)
            first = wait_for("a token there", there.token)
            assert first == source.token()
            source.ask("refresh")
            wait_for("the renewal there", lambda: there.token() != first)
            assert there.token() == source.token()
        # The connection is gone.
        wait_for("it to say so", lambda: there.access()["state"] == "stale")
        assert there.token() == source.token()
        with running(connect):
            wait_for("its return", lambda: there.access()["state"] == "fresh", 60)
    assert source.server.exchanges() == 2


def test_a_feed_into_a_session_is_served_there(tmp_path, sshd, source):
    there = Machine(tmp_path, "there", "")
    remote = f"WANDB_CRED_SOCKET={there.socket} exec {binary('wandb-credd')} run --feed -"
    with open(tmp_path / "said", "wb") as said:
        feed = subprocess.Popen([binary("wandb-cred"), "feed"], env=source.env, stdout=subprocess.PIPE)
        ssh = subprocess.Popen([*sshd, "127.0.0.1", remote], stdin=feed.stdout, stdout=said)
        feed.stdout.close()
    try:
        serving = json.loads(wait_for("its line", lambda: (tmp_path / "said").read_text().strip()))
        assert serving["socket"] == str(there.socket)
        first = there.token()
        assert first == source.token()
        assert pathlib.Path(serving["identity_token_file"]).read_text() == "relay"
        source.ask("refresh")
        wait_for("the renewal there", lambda: there.token() != first)
        assert there.token() == source.token()
        feed.send_signal(signal.SIGKILL)
        wait_for("it to say so", lambda: (there.access()["last_error"] or "").startswith("the feed ended at "))
        assert there.token() == source.token()
        # Nobody runs the daemon once the session is over.
        pid = json.loads(there.ask("status", "--json"))["pid"]
        os.kill(pid, signal.SIGTERM)
        ssh.wait(10)
    finally:
        for process in [feed, ssh]:
            process.kill()
            process.wait()
    assert source.server.exchanges() == 2
