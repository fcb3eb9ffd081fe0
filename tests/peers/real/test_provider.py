"""A certified OpenID Provider signs the JWTs; the sandbox checks them as W&B does.

Client credentials with a resource indicator, RS256, a new `jti` each time: what an external service account has.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest
from conftest import HERE
from programs import ROOT, bare_environment, interpreter, wait_for

AUDIENCE = "https://wandb.example/oidc"


@pytest.fixture
def provider(folder, processes):
    """Starts the provider; gives its issuer."""
    npm = ROOT / ".test/npm"
    if not (npm / ".pins").exists():
        pytest.fail(f"{npm} is not there; run: scripts/setup-tests real")
    secret = folder / "client-secret"
    secret.write_text("a secret of this test alone")
    secret.chmod(0o600)
    log = folder / "op.log"
    env = bare_environment(folder, AUDIENCE=AUDIENCE, SERVICE_SECRET=secret.read_text())
    process = processes(["node", HERE.parent / "openid_provider.mjs"], env=env, log=log, stdin=subprocess.PIPE)

    def look():
        assert process.poll() is None, log.read_text()
        return next((line for line in log.read_text().splitlines() if line.startswith("ready ")), None)

    return wait_for("OpenID Provider", look).removeprefix("ready ")


def fetch(provider, folder):
    return [sys.executable, HERE / "fetch_from_op.py", provider, folder / "client-secret"]


def claims(jwt):
    payload = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def trusting(provider, subject="service", audience=AUDIENCE):
    return ["--trust-issuer", provider, "--subject", subject, "--audience", audience]


def test_a_run_goes_through_on_a_real_providers_jwt(provider, start_sandbox, start_daemon, folder):
    sandbox = start_sandbox(*trusting(provider))
    daemon = start_daemon(sandbox.url, fetch(provider, folder), audience=AUDIENCE)
    daemon.exec(interpreter("wandb-0.31.0"), HERE / "clients/log_rows.py", "real-idp", "50")

    stats = sandbox.stats()
    assert stats["mints"] == 0, "the sandbox's own identity provider took no part"
    assert stats["sdk_exchanges"] == 0
    assert stats["exchanges"]["by_outcome"] == {"ok": 1}
    assert [row["row"] for row in sandbox.run("team/real/real-idp")["rows"]] == list(range(50))

    [profile] = daemon.status()["profiles"]
    assert (profile["issuer"], profile["subject"]) == (provider, "service")


# One of the four things that a JWT is judged by is wrong each time, and the answer says which.
@pytest.mark.parametrize(
    ("wrong", "outcome"),
    [
        ({"subject": "Service"}, "subject"),
        ({"audience": "https://wandb.example/other"}, "audience"),
        ({"provider": "http://127.0.0.1:1"}, "issuer"),
    ],
)
def test_a_jwt_that_w_and_b_would_refuse_is_refused(wrong, outcome, provider, start_sandbox, folder):
    sandbox = start_sandbox(*trusting(**{"provider": provider, **wrong}))
    assert exchange(sandbox, token_of(provider, folder)) == 400
    assert sandbox.stats()["exchanges"]["by_outcome"] == {outcome: 1}


def test_a_forged_signature_is_refused_and_a_jwt_is_good_once(provider, start_sandbox, folder):
    sandbox = start_sandbox(*trusting(provider))
    jwt = token_of(provider, folder)
    head, payload, _ = jwt.split(".")
    forged = f"{head}.{payload}.{token_of(provider, folder).split('.')[2]}"
    assert exchange(sandbox, forged) == 400
    assert exchange(sandbox, jwt) == 200
    assert exchange(sandbox, jwt) == 400
    assert sandbox.stats()["exchanges"]["by_outcome"] == {"signature": 1, "ok": 1, "jti-used": 1}


def test_the_providers_jwt_is_what_the_other_tests_think_it_is(provider, folder):
    found = claims(token_of(provider, folder))
    assert (found["iss"], found["sub"], found["aud"]) == (provider, "service", AUDIENCE)
    assert found["jti"] != claims(token_of(provider, folder))["jti"]


def token_of(provider, folder):
    return subprocess.check_output(fetch(provider, folder), env=os.environ, text=True).strip()


def exchange(sandbox, jwt):
    """The status of one exchange."""
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": jwt}
    try:
        with urllib.request.urlopen(sandbox.url + "/oidc/token", urllib.parse.urlencode(form).encode()) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
