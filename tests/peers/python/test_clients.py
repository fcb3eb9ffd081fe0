"""`requests` and `httpx` against a W&B server that refuses tokens when it is told to, and against others."""

import asyncio
import io
import json
import threading

import httpx
import loopback
import pytest
import requests

import wandb_cred


@pytest.fixture
def server():
    """Answers what it was sent; 401 to the tokens in `refused`. Its exchange gives token 1, 2, and so on."""

    class Server(loopback.Server):
        refused: set = set()
        seen: list = []
        location = None

    class Handler(loopback.Handler):
        def do_POST(self):
            if self.headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                body = body.decode()
            else:
                body = self.body()
            server = self.server
            if self.path == "/oidc/token":
                server.tokens += 1
                return self.answer(200, {"access_token": f"wb_at_{server.tokens}", "expires_in": 3600})
            token = (self.headers.get("authorization") or "").replace("Bearer ", "")
            server.seen.append((self.path, token, body))
            if self.path == "/away":
                return self.send(307, "", headers={"Location": server.location})
            self.answer(401 if token in server.refused or not token else 200, {"body": body})

        do_GET = do_POST

    server = Server(Handler)
    server.refused, server.seen, server.tokens = set(), [], 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def by_requests(url, **body):
    return requests.post(url, auth=wandb_cred.RequestsAuth(), timeout=30, **body)


def by_httpx(url, **body):
    content = body.pop("data", None)
    with httpx.Client(auth=wandb_cred.HttpxAuth(), timeout=30, follow_redirects=True) as client:
        return client.post(url, content=content, **body)


def by_httpx_in_a_loop(url, **body):
    async def post():
        content = body.pop("data", None)
        if hasattr(content, "__next__"):
            content = _later(content)
        async with httpx.AsyncClient(auth=wandb_cred.HttpxAuth(), timeout=30, follow_redirects=True) as client:
            return await client.post(url, content=content, **body)

    return asyncio.run(post())


async def _later(pieces):
    for piece in pieces:
        yield piece


ALL = pytest.mark.parametrize("post", [by_requests, by_httpx, by_httpx_in_a_loop])


@pytest.fixture
def served(world, server, sandbox, here):
    """A daemon whose exchanges go to the server; the sandbox only mints JWTs."""
    world.configure(sandbox)
    config = world.folder / "config.toml"
    config.write_text(config.read_text().replace(f'base-url = "{sandbox.url}"', f'base-url = "{server.url}"'))
    world.serve()
    here()
    return server


@ALL
def test_requests_to_the_server_carry_the_token(post, served):
    assert post(served.url + "/graphql", data=b"x").status_code == 200
    assert served.seen == [("/graphql", "wb_at_1", "x")]


@ALL
def test_a_refused_token_is_reported_and_the_request_sent_once_more(post, served):
    wandb_cred.token()
    served.refused = {"wb_at_1"}
    answer = post(served.url + "/graphql", json={"a": 1})
    assert (answer.status_code, json.loads(answer.json()["body"])) == (200, {"a": 1})
    assert [token for _, token, _ in served.seen] == ["wb_at_1", "wb_at_2"]
    assert served.seen[0][2] == served.seen[1][2]


@ALL
def test_a_second_refusal_is_the_servers_word(post, served):
    served.refused = {"wb_at_1", "wb_at_2"}
    assert post(served.url + "/graphql", data=b"x").status_code == 401
    assert len(served.seen) == 2


@ALL
def test_a_body_that_cannot_be_read_again_is_not_sent_again(post, served):
    served.refused = {"wb_at_1"}
    assert post(served.url + "/files", data=iter([b"a", b"b"])).status_code == 401
    assert [(token, body) for _, token, body in served.seen] == [("wb_at_1", "ab")]
    assert post(served.url + "/files", data=b"c").status_code == 200, "the next request has the next token"
    assert served.seen[-1][1] == "wb_at_2"


def test_requests_sends_a_file_again_from_where_it_began(served):
    served.refused = {"wb_at_1"}
    file = io.BytesIO(b"skipped, sent")
    file.seek(9)
    assert by_requests(served.url + "/files", data=file).json() == {"body": "sent"}


@ALL
def test_no_other_host_sees_a_token(post, served, sandbox, world):
    other = loopback.Server(served.RequestHandlerClass)
    other.refused, other.seen, other.tokens = set(), [], 0
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        # Another port is another server; the same machine under another name, too.
        for url in (other.url, served.url.replace("127.0.0.1", "localhost")):
            assert post(url + "/x", data=b"x").status_code == 401
        served.location = other.url + "/redirected"
        post(served.url + "/away", data=b"x")
    finally:
        other.shutdown()
        other.server_close()
    assert [(path, token) for path, token, _ in other.seen] == [("/x", ""), ("/redirected", "")]
    assert [(path, token) for path, token, _ in served.seen] == [("/x", ""), ("/away", "wb_at_1")]


def test_many_threads_that_are_refused_share_one_renewal(served):
    wandb_cred.token()
    served.refused = {"wb_at_1"}
    with requests.Session() as session:
        session.auth = wandb_cred.RequestsAuth("work")
        codes = []
        threads = [threading.Thread(target=lambda: codes.append(session.post(served.url + "/x", timeout=30).status_code)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == [200] * 12 and served.tokens == 2


@ALL
def test_without_a_token_the_error_is_the_daemons(post, world, here):
    here()
    with pytest.raises(wandb_cred.Error) as caught:
        post("https://api.wandb.ai/graphql", data=b"x")
    assert caught.value.reason["code"] == "no-source"
