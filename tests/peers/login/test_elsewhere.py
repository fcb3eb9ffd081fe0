"""The browser is on another machine: the address at which it ends is pasted. And what Ctrl-C leaves behind: nothing."""

import fcntl
import os
import pty
import signal
import subprocess
import termios
import threading
import time

import pytest
from conftest import BIN, Daemon, free_port, person, until
from test_attacks import callback, query
from test_redirect_port import listens


class Terminal:
    """`wandb-cred login` on a terminal of its own."""

    def __init__(self, daemon, *arguments):
        self.keyboard, side = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [BIN / "wandb-cred", "login", *arguments], env={**daemon.env, "TERM": "xterm"}, stdin=side, stdout=side, stderr=side,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(side)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while piece := os.read(self.keyboard, 4096):
                self.text += piece.decode()
        except OSError:
            pass

    def shows(self, words):
        return until(lambda: words in self.text, what=f"{words!r} in {self.text!r}")

    def address(self):
        return until(lambda: next((line.strip() for line in self.text.splitlines() if line.startswith("http")), None))

    def types(self, text):
        os.write(self.keyboard, text.encode())

    def ends(self):
        return self.process.wait(60)


def test_the_address_of_a_browser_elsewhere_signs_in(daemon, wandb):
    terminal = Terminal(daemon, "--no-browser")
    terminal.shows("paste it here, and press Enter")
    ended_at = person(terminal.address(), "alice", elsewhere=True)["url"]
    assert "/callback?" in ended_at and "code=" in ended_at
    # A mistake first: the page of the provider.
    terminal.types(terminal.address() + "\r")
    terminal.shows("Not taken: it is not the address at which this sign-in ends")
    terminal.types(ended_at + "\r")
    assert terminal.ends() == 0, terminal.text
    terminal.shows("work: signed in as alice@example.com")
    assert "code=" not in terminal.text
    assert daemon.token()[0] == 200
    assert "code=" not in daemon.log.read_text()


def pasted(daemon, login, address):
    return daemon.call("POST", f"/v1/login/{login['id']}/callback", {"url": address})


@pytest.mark.parametrize("changes,said", [
    ({"state": "guessed"}, "its state is not that of the sign-in in progress"),
    ({"state": None}, "carries no state"),
    ({"iss": "https://stranger.example"}, "a different identity provider"),
])
def test_a_pasted_address_is_judged_as_a_browser_is(victim, rogue, changes, said):
    login = victim.begin()
    status, problem = pasted(victim, login, callback(login, **changes))
    assert status == 400 and said in problem["detail"]
    for wrong in (callback(login) + "&state=again", callback(login).replace("http://127.0.0.1", "http://localhost"), "", "x" * 9000):
        assert pasted(victim, login, wrong)[0] == 400
    assert not rogue.requests, "nothing was redeemed"
    assert victim.progress(login)["state"] == "waiting"
    rogue.nonce = query(login)["nonce"]
    status, ended = pasted(victim, login, callback(login))
    assert status == 200 and ended["state"] == "signed-in", ended
    assert pasted(victim, login, callback(login))[0] == 400, "once"


def test_what_the_provider_says_no_to_ends_the_sign_in(victim):
    login = victim.begin()
    status, ended = pasted(victim, login, callback(login, code=None, error="access_denied"))
    assert status == 200 and ended["state"] == "failed" and ended["error"]


def test_a_code_takes_no_address_and_an_unknown_sign_in_neither(daemon):
    login = daemon.begin("device")
    assert "takes no address" in pasted(daemon, login, "http://127.0.0.1:1/callback?code=x")[1]["detail"]
    assert "ended" in pasted(daemon, {"id": "0" * 32}, "http://127.0.0.1:1/callback?code=x")[1]["detail"]


@pytest.mark.parametrize("how", ["key", "signal", "kill"])
def test_giving_up_ends_the_sign_in_in_the_daemon_at_once(tmp_path, op, wandb, how):
    port = free_port()
    daemon = Daemon(tmp_path, op.issuer, wandb.url, more=f"redirect-port = {port}").start()
    try:
        terminal = Terminal(daemon, "--no-browser")
        terminal.shows("Ctrl-C cancels.")
        until(lambda: listens(port))
        begun = time.monotonic()
        if how == "key":
            terminal.types("\x03")
        else:
            terminal.process.send_signal(signal.SIGINT if how == "signal" else signal.SIGKILL)
        terminal.ends()
        until(lambda: not listens(port), 5, "the end of the sign-in")
        assert time.monotonic() - begun < 3
        assert "the command that waited for this sign-in has gone" in daemon.log.read_text()
    finally:
        daemon.kill()


def test_one_that_gives_up_takes_no_other_with_it(daemon):
    first, second = Terminal(daemon, "--no-browser"), Terminal(daemon, "--no-browser")
    first.shows("Ctrl-C cancels.")
    second.shows("Ctrl-C cancels.")
    first.types("\x03")
    assert first.ends() == -signal.SIGINT
    begun = time.monotonic()
    until(lambda: time.monotonic() > begun + 2, 5)
    person(second.address(), "bob")
    assert second.ends() == 0, second.text


def test_a_provider_without_device_flow_leads_to_the_address(victim):
    done = victim.cli("login", "--device")
    assert done.returncode == 77 and "offers no sign-in by a code" in done.stderr
    assert "next: wandb-cred login --no-browser --profile work" in done.stderr, done.stderr
