"""The stand-ins that jobs meet: a W&B server, and the identity services of GitHub and Buildkite."""

import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile
import threading
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

import loopback
import programs

SUBJECT = "repo:acme/train:environment:training"


@pytest.fixture(scope="session")
def built():
    """A folder with both programs, without debug information: each job copies them."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wcb-"))
    for name in ["wandb-cred", "wandb-credd"]:
        subprocess.run(["strip", "-o", folder / name, programs.binary(name)], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="wci-"))
    yield path
    for made in [path, *path.rglob("*")]:
        if made.is_dir() and not made.is_symlink():
            made.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def wandb(tmp_path):
    with programs.sandbox(tmp_path, "--audience", "acme", "--audience", "api://AzureADTokenExchange", "--subject", SUBJECT) as server:
        yield server


class Identity(loopback.Handler):
    """GitHub's ID token service, Buildkite's agent API and Azure DevOps'; the JWTs are of the sandbox, which W&B's stand-in trusts."""

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path != "/idtoken" or query.get("api-version") != ["2.0"]:
            return self.answer(404, {"message": "not found"})
        if self.headers.get("authorization") != f"bearer {self.server.request_token}":
            return self.answer(401, {"message": "unauthorized"})
        self.server.gate.wait(30)
        self.answer(200, {"value": self.server.mint(query["audience"][0])})

    def do_POST(self):
        if urlsplit(self.path).path == "/azure/oidctoken":
            if self.headers.get("authorization") != f"Bearer {self.server.request_token}":
                return self.answer(401, {"message": "unauthorized"})
            return self.answer(200, {"oidcToken": self.server.mint("api://AzureADTokenExchange")})
        body = json.loads(self.body())
        if self.path != "/v3/jobs/0189-job/oidc/tokens":
            return self.answer(404, {"message": "Not Found"})
        if self.headers.get("authorization") != f"Token {self.server.request_token}":
            return self.answer(401, {"message": "Authentication required"})
        self.answer(200, {"token": self.server.mint(body["audience"])})


@pytest.fixture
def identity(wandb):
    server = loopback.Server(Identity)
    server.request_token, server.minted, server.wandb = "request-token", [], wandb

    # A test that clears it has an identity service that does not answer.
    server.gate = threading.Event()
    server.gate.set()

    def mint(audience):
        token = wandb.mint(urlencode({"audience": audience, "subject": SUBJECT, "life": 300}))
        server.minted.append(token)
        return token

    server.mint = mint
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()


class Releases(loopback.Handler):
    def do_GET(self):
        file = self.server.folder / (self.path.lstrip("/") + ("index.html" if self.path.endswith("/") else ""))
        if not file.is_file():
            return self.send(404, "Not Found")
        data = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if file.suffix == ".html" else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def releases(tmp_path):
    """A server of files, and its folder."""
    with serving(tmp_path / "releases") as server:
        yield server


@contextlib.contextmanager
def serving(folder):
    folder.mkdir()
    server = loopback.Server(Releases)
    server.folder = folder
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
