"""A person signs in, and the session stays alive: against a certified provider with strict settings."""

import concurrent.futures
import http.client
import json
import random
import signal
import threading
import time

import pytest
from conftest import Daemon, Provider, Wandb, claims_of, person, until


def secrets_in(daemon, wandb):
    """Nothing that was a secret may stand in the log, even at trace."""
    log = daemon.log.read_text()
    saved = "".join(path.read_text() for path in (daemon.home / ".local").rglob("*.json"))
    words = [json.loads(saved).get("refresh_token")] if saved else []
    return [word[:6] for word in words + wandb.assertions if word and word in log]


def test_nobody_signed_in_is_told_at_once_with_the_command(daemon):
    start = time.monotonic()
    status, problem = daemon.token()
    assert (status, problem["type"]) == (403, "needs-login")
    assert "wandb-cred login --profile work" in problem["next"]
    assert time.monotonic() - start < 5
    done = daemon.cli("token")
    assert done.returncode == 77 and "wandb-cred login" in done.stderr


def test_a_browser_sign_in_in_chromium(daemon, wandb, tmp_path):
    login = daemon.begin()
    page = person(login["url"], "alice", chromium=True, screenshot=tmp_path / "signed-in.png")
    assert page["status"] == 200 and "alice@example.com" in page["text"]
    assert all(host.startswith("127.0.0.1:") for host in page["hosts"])
    assert daemon.ended(login)["account"] == "alice@example.com"
    status, token = daemon.token()
    assert status == 200 and token["access_token"].startswith("wb_at_")
    assert claims_of(wandb.assertions[-1])["sub"] == "alice"
    assert daemon.call("GET", "/v1/status")[1]["profiles"][0]["subject"] in ("alice", "alice@example.com")
    assert secrets_in(daemon, wandb) == []


def test_a_device_sign_in_by_the_command(daemon):
    command = []
    thread = threading.Thread(target=lambda: command.append(daemon.cli("login", "--device")))
    thread.start()
    login = until(lambda: "waiting" in json.dumps(daemon.call("POST", "/v1/login", {"method": "device"})[1])
                  and daemon.call("POST", "/v1/login", {"method": "device"})[1], what="the code")
    person(login["url_with_code"], "bob")
    thread.join(60)
    assert command[0].returncode == 0, command[0].stderr
    assert "signed in as bob@example.com" in command[0].stdout
    assert login["user_code"] in command[0].stderr
    assert daemon.token()[0] == 200


def test_a_person_who_says_no_is_believed(daemon):
    login = daemon.begin()
    page = person(login["url"], "-")
    assert "did not work" in page["text"]
    assert "access_denied" in daemon.ended(login)["error"]


def test_many_callers_cause_one_prompt(daemon):
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        logins = list(pool.map(lambda _: daemon.begin(), range(32)))
    assert len({login["id"] for login in logins}) == 1


def test_a_session_outlives_the_daemon_and_a_clean_stop_loses_nothing(daemon):
    daemon.sign_in()
    for how in (signal.SIGTERM, signal.SIGKILL):
        daemon.kill(how)
        daemon.start()
        status, profile = daemon.renew()
        assert status == 200, profile


def test_signing_out_revokes_and_signing_in_again_works(daemon, op):
    daemon.sign_in()
    assert daemon.token()[0] == 200
    saved = next((daemon.home / ".local").rglob("*.json")).read_text()
    def who():
        return daemon.call("GET", "/v1/status")[1]["profiles"][0].get("person")

    assert who()["account"] == "alice@example.com"
    sdk_files = daemon.socket.parent / "profiles/work"
    assert until(lambda: {"identity-token", "credentials.json"} <= {path.name for path in sdk_files.iterdir()})
    status, ended = daemon.call("POST", "/v1/logout")
    assert status == 200 and ended["revoked"] and ended["account"] == "alice@example.com"
    assert not list((daemon.home / ".local").rglob("*.json"))
    assert until(lambda: daemon.token()[0] == 403)
    assert until(lambda: not list(sdk_files.iterdir()))
    assert who() is None
    # The provider really has forgotten it: the same refresh token, put back, is refused.
    daemon.kill()
    (daemon.home / ".local/state/wandb-cred/sessions").mkdir(exist_ok=True)
    daemon.start()
    daemon.sign_in()
    path = next((daemon.home / ".local").rglob("*.json"))
    daemon.kill()
    path.write_text(saved)
    daemon.start()
    status, problem = daemon.renew()
    assert status == 403 and "invalid_grant" in problem["detail"], problem


def test_a_replayed_refresh_token_leads_to_one_clear_message_and_no_loop(daemon, op):
    daemon.sign_in()
    path = next((daemon.home / ".local").rglob("*.json"))
    old = path.read_text()
    assert daemon.token()[0] == 200
    daemon.renew()
    assert path.read_text() != old, "the refresh token has rotated"
    daemon.kill()
    path.write_text(old)
    # So that no identity token is taken over, and the refresh token has to be redeemed.
    for left in daemon.home.glob("run/wandb-cred/profiles/*/*"):
        left.unlink()
    daemon.start()
    before = op.stats().get("refresh_token invalid_grant", 0)
    for _ in range(10):
        status, problem = daemon.call("POST", "/v1/refresh")
        assert status in (403, 429), problem
    assert "wandb-cred login --profile work" in json.dumps(daemon.call("GET", "/v1/status")[1])
    assert op.stats()["refresh_token invalid_grant"] == before + 1
    daemon.sign_in()
    until(lambda: daemon.token()[0] == 200)


def test_locked_hands_out_nothing_and_unlocked_needs_no_sign_in(daemon):
    daemon.sign_in()
    assert daemon.token()[0] == 200
    assert daemon.cli("lock").returncode == 0
    assert daemon.token()[0] == 423
    assert daemon.cli("token").returncode == 77
    assert daemon.cli("unlock").returncode == 0
    assert daemon.token()[0] == 200


def test_fifty_rotations_with_the_daemon_killed_at_random(tmp_path):
    """Every ID token lives 4 s. A kill may come between redeeming and storing: then, and only then, a person
    must sign in again, is told so, and the session goes on."""
    provider, wandb = Provider(ID_TTL=4, DELAY_MS=80), Wandb(expires_in=5)
    daemon = Daemon(tmp_path, provider.issuer, wandb.url).start()
    dice = random.Random(4)
    lost = kills = 0
    try:
        daemon.sign_in()
        end = time.monotonic() + 240
        while provider.stats().get("refresh_token success", 0) < 50:
            assert time.monotonic() < end, provider.stats()
            # A daemon that has just started redeems as soon as somebody asks. Every other kill is aimed at the moment after.
            daemon.kill()
            daemon.start()
            spent = provider.stats().get("refresh_token success", 0)
            asking = threading.Thread(target=lambda: suppress(daemon.token))
            asking.start()
            aimed = kills % 2 == 1
            while aimed and asking.is_alive() and provider.stats().get("refresh_token success", 0) == spent:
                time.sleep(0.002)
            time.sleep(dice.random() * 0.1)
            daemon.kill(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            kills += 1
            asking.join()
            daemon.start()
            until(lambda: daemon.token()[0] in (200, 403), what="an answer")
            why = daemon.profile()["identity"]["last_error"] or ""
            if "wandb-cred login --profile work" in why:
                assert "invalid_grant" in why
                lost += 1
                daemon.sign_in()
                until(lambda: daemon.token()[0] == 200, what="a token after signing in again")
        refused = provider.stats().get("refresh_token invalid_grant", 0)
        print(f"kills {kills}, sessions lost {lost}, refused {refused}")
        # A daemon that was killed again before anybody signed in asks once more; none asks in a loop.
        assert 0 < lost < kills / 2 and refused <= lost + kills
        assert len({claims_of(jwt)["sub"] for jwt in wandb.assertions}) == 1
    finally:
        daemon.kill()
        provider.stop()


def suppress(call):
    try:
        call()
    except (OSError, http.client.HTTPException):
        pass


@pytest.mark.parametrize("client,more", [
    ("confidential", "client-secret = \"a secret with spaces & signs: 100%\""),
    ("form", 'flow = "implicit"\nscopes = ["openid", "email"]'),
])
def test_other_kinds_of_client(tmp_path, op, wandb, client, more):
    daemon = Daemon(tmp_path, op.issuer, wandb.url, client=client, more=more).start()
    try:
        daemon.sign_in("carol")
        assert daemon.token()[0] == 200
        assert "100%" not in daemon.log.read_text()
        # The implicit flow's ID token outlives the daemon too: it is all there is of the session.
        daemon.kill()
        daemon.start()
        assert daemon.token()[0] == 200
    finally:
        daemon.kill()
