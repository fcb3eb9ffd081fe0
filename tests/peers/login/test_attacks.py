"""What must be refused: with a clear page for the person and a clear message for the command."""

import http.client
import urllib.parse

import pytest
from conftest import Daemon, person
from rogue import Rogue


def visit(url, method="GET", headers=None, body=None):
    """One request, as a browser or a script would send it: status, headers, text."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request(method, f"{parts.path}?{parts.query}", body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def query(login):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(login["url"]).query))


def callback(login, **changes):
    asked = query(login)
    answer = {"code": "abc", "state": asked["state"], **changes}
    return asked["redirect_uri"] + "?" + urllib.parse.urlencode({k: v for k, v in answer.items() if v is not None})


def test_the_request_has_pkce_state_nonce_and_the_loopback_address(victim):
    asked = query(victim.begin())
    assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 22 and len(asked["nonce"]) >= 22
    assert asked["redirect_uri"].startswith("http://127.0.0.1:") and asked["response_type"] == "code"
    assert asked["prompt"] == "consent"


@pytest.mark.parametrize("changes,said", [
    ({"state": "guessed"}, "its state is not that of the sign-in in progress"),
    ({"state": None}, "carries no state"),
    ({"iss": "https://stranger.example"}, "a different identity provider"),
])
def test_an_answer_that_is_not_ours_is_refused_and_the_sign_in_goes_on(victim, rogue, changes, said):
    login = victim.begin()
    status, _, page = visit(callback(login, **changes))
    assert status == 400 and said in page and "was refused" in page
    assert not rogue.requests, "nothing was redeemed"
    assert victim.progress(login)["state"] == "waiting"
    rogue.nonce = query(login)["nonce"]
    assert visit(callback(login))[0] == 200
    assert victim.ended(login)["state"] == "signed-in"


def test_a_provider_that_names_itself_must_do_so(tmp_path, wandb):
    rogue = Rogue(authorization_response_iss_parameter_supported=True)
    daemon = Daemon(tmp_path, rogue.issuer, wandb.url).start()
    try:
        login = daemon.begin()
        rogue.nonce = query(login)["nonce"]
        status, _, page = visit(callback(login))
        assert status == 400 and "does not name the identity provider" in page
        assert visit(callback(login, iss=rogue.issuer))[0] == 200
    finally:
        daemon.kill()


@pytest.mark.parametrize("twist", [
    "wrong nonce", "no nonce", "another audience", "another audience beside", "another issuer", "another party",
    "expired", "foreign key", "unknown key", "alg none", "hmac with the public key", "no id token",
    "code of another client",
])
def test_a_bad_token_is_refused_with_a_page_and_a_message(victim, rogue, twist):
    login = victim.begin()
    rogue.twist, rogue.nonce = twist, query(login)["nonce"]
    status, _, page = visit(callback(login))
    assert status == 502 and "did not work" in page and "wandb-cred login --profile work" in page
    ended = victim.ended(login)
    assert ended["state"] == "failed" and rogue.issuer in ended["error"]
    assert victim.token()[0] in (403, 502, 503)
    assert not list((victim.home / ".local").rglob("*.json")), "nothing was kept"


def test_a_second_browser_is_told_that_it_is_late(victim, rogue):
    login = victim.begin()
    rogue.nonce = query(login)["nonce"]
    assert visit(callback(login))[0] == 200
    victim.ended(login)
    status, _, page = visit(callback(login, code="other"))
    assert status == 410 and "sign-in is over" in page
    assert len(rogue.requests) == 1 and rogue.requests[0][1]["code"] == "abc"


def test_a_page_cannot_read_or_use_the_loopback_port(victim, rogue):
    login = victim.begin()
    url = callback(login)
    port = urllib.parse.urlsplit(url).port
    for method, headers, expected in [
        ("GET", {"Origin": "https://evil.example"}, 403),
        ("GET", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 403),
        ("GET", {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ("GET", {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ("GET", {"Host": f"evil.example:{port}"}, 421),
        ("OPTIONS", {"Origin": "https://evil.example", "Access-Control-Request-Private-Network": "true"}, 405),
        ("POST", {"Content-Type": "application/x-www-form-urlencoded"}, 405),
    ]:
        status, answered, page = visit(url, method, headers, b"" if method == "POST" else None)
        assert status == expected, (method, headers)
        assert not [name for name in answered if name.lower().startswith("access-control-")]
        assert "abc" not in page and query(login)["state"] not in page
    assert visit(f"http://127.0.0.1:{port}/")[0] == 404
    assert not rogue.requests and victim.progress(login)["state"] == "waiting"


def test_pages_carry_the_headers_that_keep_them_to_themselves(victim):
    _, headers, page = visit(callback(victim.begin(), state="x"))
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY" and "default-src 'none'" in headers["content-security-policy"]
    assert "http:" not in page and "https:" not in page and "<script" not in page


def test_words_of_the_provider_are_shown_as_text(victim):
    login = victim.begin()
    _, _, page = visit(callback(login, code=None, error="access_denied", error_description="<img src=x onerror=alert(1)>"))
    assert "<img" not in page and "did not work" in page


def test_a_refresh_for_another_person_is_refused_and_its_token_kept(victim, rogue):
    login = victim.begin()
    rogue.nonce = query(login)["nonce"]
    assert visit(callback(login))[0] == 200
    assert victim.token()[0] == 200
    rogue.twist = "another person"
    victim.renew()
    assert "another person" in victim.profile()["identity"]["last_error"]
    saved = next((victim.home / ".local").rglob("*.json")).read_text()
    assert f"rt{len(rogue.requests) - 1}" in saved or f"rt{len(rogue.requests)}" in saved


def test_a_busy_provider_is_asked_again_later_and_the_session_kept(victim, rogue):
    login = victim.begin()
    rogue.nonce = query(login)["nonce"]
    assert visit(callback(login))[0] == 200
    assert victim.token()[0] == 200
    rogue.refresh_answer = (503, {"error": "temporarily_unavailable"})
    victim.renew()
    assert victim.token()[0] == 200, "what is good is served whatever the provider does"
    assert list((victim.home / ".local").rglob("*.json"))


def test_a_page_in_a_real_browser_learns_nothing(victim, tmp_path):
    """Chromium opens the callback with a wrong state, and shows the refusal."""
    login = victim.begin()
    shown = person(callback(login, state="x"), chromium=True, screenshot=tmp_path / "refused.png")
    assert shown["status"] == 400 and "was refused" in shown["text"]
    assert victim.progress(login)["state"] == "waiting"
