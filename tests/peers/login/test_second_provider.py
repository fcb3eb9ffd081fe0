"""A second, different OpenID Provider (nanoidp, in Python), so that nothing is tuned to one."""

import pathlib
import subprocess
import sys
import urllib.request

import pytest
from conftest import Daemon, claims_of, free_port, person, until


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nanoidp")
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    program = pathlib.Path(sys.executable).with_name("nanoidp")
    subprocess.run([program, "init", folder], check=True, capture_output=True)
    (folder / "settings.yaml").write_text(f"""config_version: 1
server: {{host: 127.0.0.1, port: {port}}}
oauth:
  issuer: {issuer}
  audience: cli
  require_pkce: true
  refresh_token_rotation: true
  clients:
    - client_id: cli
      token_endpoint_auth_method: none
      redirect_uris: [http://127.0.0.1/callback, "http://127.0.0.1:{port + 1}/callback"]
""")
    # It writes its keys to the folder that it runs in.
    process = subprocess.Popen([program, "--config", folder, "--port", str(port)], cwd=folder,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up():
        try:
            return urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration").status == 200
        except OSError:
            return False

    until(up, what="nanoidp")
    yield issuer, port + 1
    process.kill()
    process.wait()


@pytest.fixture
def daemon(tmp_path, nano, wandb):
    issuer, port = nano
    # It compares redirect URIs whole, port included, as many providers do.
    daemon = Daemon(tmp_path, issuer, wandb.url, more=f"redirect-port = {port}").start()
    yield daemon
    daemon.kill()


def test_sign_in_refresh_and_sign_out(daemon, wandb):
    login = daemon.begin()
    person(login["url"], "admin")
    assert daemon.ended(login)["state"] == "signed-in"
    assert daemon.token()[0] == 200
    saved = next((daemon.home / ".local").rglob("*.json"))
    before = saved.read_text()
    assert daemon.renew()[0] == 200
    assert saved.read_text() != before, "the refresh token has rotated"
    assert claims_of(wandb.assertions[-1])["sub"] == "admin"
    assert daemon.call("POST", "/v1/logout")[1]["revoked"]


def test_a_device_sign_in(daemon):
    login = daemon.begin("device")
    person(login["url_with_code"] or login["url"], "admin")
    ended = daemon.ended(login)
    assert ended["state"] == "signed-in", ended
