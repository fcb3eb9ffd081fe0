"""The whole story on a fresh machine, and what `login` asks where nothing is configured."""

import os
import subprocess
import sys

import pytest
from conftest import BIN, ROOT, Provider, Wandb, claims_of, person, until

import loopback

# What `scripts/setup-tests real` installs.
SDK = ROOT / ".test/venvs/wandb-0.31.0/bin/python"


@pytest.fixture
def fresh(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def run(env, *arguments, **more):
    return subprocess.run([BIN / "wandb-cred", *arguments], env=env, capture_output=True, text=True, timeout=120, **more)


def test_nothing_configured_and_nobody_to_ask(fresh):
    done = run(fresh, "login", stdin=subprocess.DEVNULL)
    assert done.returncode == 78 and "--issuer URL --client-id ID" in done.stderr


def test_sign_in_then_a_run_over_many_expiries(fresh, tmp_path):
    """One browser page; then a program for which the ID token (4 s) and the access token (5 s) expire many times."""
    op, wandb = Provider(ID_TTL=4), Wandb(expires_in=5)
    fresh["WANDB_BASE_URL"] = wandb.url
    try:
        command = subprocess.Popen(
            [BIN / "wandb-cred", "login", "--no-browser", "--issuer", op.issuer, "--client-id", "cli", "--token-store", "file"],
            env=fresh, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        url = until(lambda: next((line.strip() for line in command.stderr if line.startswith("http")), None))
        person(url, "alice")
        out, _ = command.communicate(timeout=60)
        assert command.returncode == 0 and "signed in as alice@example.com" in out
        config = tmp_path / ".config/wandb-cred/config.toml"
        assert config.stat().st_mode & 0o077 == 0
        # No daemon runs now: exec brings one, which finds the session.
        program = ("import json,os,time\nseen=set()\nend=time.time()+25\nwhile time.time()<end:\n"
                   "  c=json.load(open(os.environ['WANDB_CREDENTIALS_FILE']))['credentials'][os.environ['WANDB_BASE_URL']]\n"
                   "  seen.add(c['access_token']); time.sleep(.2)\nprint(len(seen))")
        done = run(fresh, "exec", "--", sys.executable, "-c", program)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 4, done.stdout
        stats = op.stats()
        assert stats["authorization_code success"] == 1, "one page"
        assert "refresh_token invalid_grant" not in stats
        assert {claims_of(jwt)["email"] for jwt in wandb.assertions} == {"alice@example.com"}
    finally:
        op.stop()


def refusing():
    """A W&B server that knows no such issuer."""
    class Handler(loopback.Handler):
        def do_POST(self):
            self.body()
            self.answer(400, {"error": "invalid_grant", "error_description": "unknown issuer"})

    return loopback.start(Handler)


def sign_in(env, op, client="cli"):
    command = subprocess.Popen(
        [BIN / "wandb-cred", "login", "--no-browser", "--issuer", op.issuer, "--client-id", client, "--token-store", "file"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = next((line.strip() for line in command.stderr if line.startswith("http")), None)
    if url:
        person(url, "alice")
    out, err = command.communicate(timeout=60)
    return command.returncode, out, err


def test_what_does_not_work_leaves_nothing_and_the_next_attempt_is_as_the_first(fresh, tmp_path):
    op = Provider()
    try:
        config = tmp_path / ".config/wandb-cred/config.toml"
        # A typo in the issuer.
        done = run(fresh, "login", "--issuer", op.issuer + "/typo", "--client-id", "cli", "--token-store", "file",
                   stdin=subprocess.DEVNULL)
        assert done.returncode != 0 and "nothing was written" in done.stderr, done.stderr
        assert not config.exists()
        # W&B does not take what the provider gave.
        code, out, err = sign_in({**fresh, "WANDB_BASE_URL": refusing()}, op)
        assert code == 78 and out == "" and "nothing was written: you signed in as alice@example.com, and" in err, err
        assert not config.exists()
        assert not [path for path in (tmp_path / ".local").rglob("*") if path.is_file() and b"refresh" in path.read_bytes()]
        wandb = Wandb()
        code, out, err = sign_in({**fresh, "WANDB_BASE_URL": wandb.url}, op)
        assert code == 0 and f"default: signed in as alice@example.com, and {wandb.url} gives tokens" in out, err
        assert config.exists() and len(wandb.assertions) == 1
        assert not list((tmp_path / "run").rglob("draft.toml"))
    finally:
        op.stop()


def cli_config(answer):
    class Handler(loopback.Handler):
        def do_GET(self):
            self.answer(200 if "organization=acme" in self.path else 404, answer)

    return loopback.start(Handler)


def test_a_server_that_names_another_provider_is_not_followed(fresh, tmp_path):
    host = cli_config({"issuer": "https://stranger.example", "client_id": "cli", "scopes": ["openid"]})
    done = run(fresh, "login", "--host", host, "--organization", "acme", stdin=subprocess.DEVNULL)
    assert done.returncode == 64 and "https://stranger.example" in done.stderr and "you have not confirmed" in done.stderr
    done = run(fresh, "login", "--host", host, "--organization", "acme", "--issuer", "https://idp.example",
               stdin=subprocess.DEVNULL)
    assert done.returncode == 78 and "another issuer" in done.stderr
    done = run(fresh, "login", "--host", host, "--organization", "unknown", stdin=subprocess.DEVNULL)
    assert done.returncode == 69 and "names no identity provider" in done.stderr
    assert not (tmp_path / ".config/wandb-cred/config.toml").exists()


@pytest.mark.skipif(not SDK.exists(), reason=f"no wandb in {SDK}; run scripts/setup-tests real")
def test_the_real_sdk_trains_while_the_identity_expires(fresh, tmp_path):
    """`exec -- python train.py` with the released SDK, against the sandbox as W&B server."""
    op = Provider(ID_TTL=6)
    ready = tmp_path / "sandbox.url"
    sandbox = subprocess.Popen(
        [BIN / "wandb-cred-sandbox", "serve", "--ready-file", ready, "--trust-issuer", op.issuer, "--audience", "cli",
         "--subject", "alice@example.com", "--subject", "alice", "--token-life", "320"],
        env=fresh, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = until(lambda: ready.exists() and ready.read_text().strip(), what="the sandbox")
        config = tmp_path / ".config/wandb-cred/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[profile.work]\nbase-url = "{url}"\n[profile.work.provider.oidc]\nissuer = "{op.issuer}"\n'
                          'client-id = "cli"\ntoken-store = "file"\n')
        command = subprocess.Popen([BIN / "wandb-cred", "login", "--no-browser"], env=fresh, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        person(until(lambda: next((line.strip() for line in command.stderr if line.startswith("http")), None)), "alice")
        assert command.wait(60) == 0
        train = tmp_path / "train.py"
        train.write_text("import time, wandb\nrun = wandb.init(project='p', entity='e')\n"
                         "for i in range(60):\n    run.log({'i': i}); time.sleep(.5)\nrun.finish()\nprint('rows', i + 1)\n")
        done = run({**fresh, "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}, "exec", "--", SDK, train)
        assert done.returncode == 0 and "rows 60" in done.stdout, done.stderr[-3000:]
        assert "Fatal error" not in done.stderr + done.stdout
        stats = op.stats()
        assert stats["authorization_code success"] == 1 and stats["refresh_token success"] >= 4, stats
        assert "refresh_token invalid_grant" not in stats
    finally:
        op.stop()
        sandbox.kill()
        sandbox.wait()
