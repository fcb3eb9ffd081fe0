"""A fixed `redirect-port`, as Okta, Cognito and Auth0 demand it: one listener for all sign-ins, and none too long."""

import signal
import socket
import subprocess
import time

import pytest
from conftest import BIN, Daemon, free_port, person, until


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def daemon(tmp_path, op, wandb, port):
    second = (f'[profile.second]\nbase-url = "{wandb.url}"\n[profile.second.provider.oidc]\nissuer = "{op.issuer}"\n'
              f'client-id = "other-cli"\ntoken-store = "file"\nredirect-port = {port}\n')
    daemon = Daemon(tmp_path, op.issuer, wandb.url, more=f"redirect-port = {port}\n{second}")
    config = tmp_path / ".config/wandb-cred/config.toml"
    config.write_text('default-profile = "work"\n' + config.read_text())
    yield daemon.start()
    daemon.kill()


def begin(daemon, profile):
    status, login = daemon.call("POST", "/v1/login", {"profile": profile})
    assert status == 200, login
    return login


def command(daemon, *arguments):
    """`wandb-cred login`, and the address that it shows."""
    running = subprocess.Popen([BIN / "wandb-cred", "login", "--no-browser", *arguments], env=daemon.env,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return running, next(line.strip() for line in running.stderr if line.startswith("http"))


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_sign_in_soon_after_another_takes_over_the_port(daemon, port):
    for _ in range(3):
        login = daemon.sign_in()
        assert f"127.0.0.1%3A{port}" in login["url"]


def test_signing_in_works_at_once_after_signing_out(daemon):
    daemon.sign_in()
    assert daemon.call("POST", "/v1/logout")[0] == 200
    daemon.sign_in("bob")
    assert daemon.profile_of("work")["person"]["account"] == "bob@example.com"


def test_two_profiles_sign_in_on_one_port_at_a_time(daemon):
    work, second = begin(daemon, "work"), begin(daemon, "second")
    person(work["url"], "alice")
    assert daemon.ended(work)["account"] == "alice@example.com"
    person(second["url"], "bob")
    assert daemon.ended(second)["account"] == "bob@example.com"


def test_a_sign_in_ends_when_the_last_command_that_waits_for_it_goes(daemon, port):
    first, url = command(daemon)
    second, same = command(daemon)
    assert url == same
    first.send_signal(signal.SIGINT)
    first.wait(10)
    # Longer than a sign-in without a command would live.
    start = time.monotonic()
    until(lambda: time.monotonic() > start + 12, 20)
    assert listens(port), "one command still waits"
    second.send_signal(signal.SIGINT)
    second.wait(10)
    until(lambda: not listens(port), 20, "the end of the sign-in")


def test_another_sign_in_begins_at_once_after_an_interrupted_one(daemon):
    first, _ = command(daemon)
    first.send_signal(signal.SIGINT)
    first.wait(10)
    second, url = command(daemon, "--profile", "second")
    person(url, "bob")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0 and "signed in as bob@example.com" in out, err


def test_commands_without_a_service_hand_the_port_on(daemon):
    daemon.kill(signal.SIGTERM)
    for user in ("alice", "bob"):
        running, url = command(daemon)
        person(url, user)
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0 and f"signed in as {user}@example.com" in out, err
    interrupted, _ = command(daemon)
    interrupted.send_signal(signal.SIGINT)
    interrupted.wait(10)
    running, url = command(daemon, "--profile", "second")
    person(url, "carol")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0 and "signed in as carol@example.com" in out, err


def test_a_stranger_on_the_port_is_told_apart_and_the_advice_is_another_command(daemon, port):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        done = daemon.cli("login", "--no-browser")
    assert done.returncode == 77
    assert f"127.0.0.1:{port}" in done.stderr and "`redirect-port` in [profile.work.provider.oidc]" in done.stderr
    assert "next: wandb-cred login --device --profile work" in done.stderr, done.stderr


def test_a_page_for_one_sign_in_is_not_taken_for_another(daemon):
    """The `state` decides whose answer it is, not who asked last."""
    work, second = begin(daemon, "work"), begin(daemon, "second")
    page = person(second["url"], "-")
    assert "did not work" in page["text"]
    assert daemon.ended(second)["state"] == "failed"
    assert daemon.progress(work)["state"] == "waiting"
    person(work["url"], "alice")
    assert daemon.ended(work)["state"] == "signed-in"
