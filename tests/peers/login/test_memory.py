"""Nothing of a session stays in the daemon's memory after `logout`. Reading it needs root: the daemon is not dumpable."""

import json
import os
import re
import secrets

import pytest
from conftest import Daemon, until

import loopback

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can read the memory of a daemon")


@pytest.fixture
def tokens():
    """What W&B handed out and was shown."""
    return {}


@pytest.fixture
def daemon(tmp_path, op, tokens):
    class Handler(loopback.Handler):
        def do_POST(self):
            jwt = re.search(r"assertion=([^&]+)", self.body())[1]
            tokens[f"JWT {len(tokens)}"] = jwt.split(".")[2]
            access = f"wb_at_{secrets.token_hex(24)}"
            tokens[f"access token {len(tokens)}"] = access
            self.answer(200, {"access_token": access, "token_type": "bearer", "expires_in": 3600})

    daemon = Daemon(tmp_path, op.issuer, loopback.start(Handler)).start()
    yield daemon
    daemon.kill()


def memory(pid):
    """All that the process can write to, as far as it can be read."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            start, end, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if not mode.startswith("rw"):
                continue
            mem.seek(int(start, 16))
            try:
                yield line.split()[-1], mem.read(int(end, 16) - int(start, 16))
            except OSError:
                pass


def found(daemon, tokens):
    """Names of tokens and where they are. The middle of each: a part of one is as telling, and easier to miss."""
    regions = list(memory(daemon.process.pid))
    return {name: sorted({place for place, content in regions if token[4:-4].encode() in content})
            for name, token in tokens.items() if any(token[4:-4].encode() in content for _, content in regions)}


def test_signing_out_leaves_no_token_in_memory(daemon, tokens):
    def stored():
        [path] = (daemon.home / ".local").rglob("*.json")
        return json.loads(path.read_text())["refresh_token"]

    daemon.sign_in()
    tokens["refresh token 1"] = stored()
    assert daemon.token()[0] == 200
    for number in (2, 3):
        assert daemon.renew()[0] == 200
        tokens[f"refresh token {number}"] = stored()
        assert daemon.token()[0] == 200
    assert len(tokens) >= 8
    served = [name for name in tokens if name.startswith("access")][-1]
    assert served in found(daemon, tokens), "the search finds what is there"
    assert daemon.cli("logout").returncode == 0
    assert daemon.token()[0] == 403
    sdk_files = daemon.socket.parent / "profiles/work"
    until(lambda: not list(sdk_files.iterdir()), what="the end of the SDK files")
    # A connection's buffers and a helper thread's stack go within a second or two.
    try:
        until(lambda: not found(daemon, tokens), 10)
    except AssertionError:
        pytest.fail(f"still in memory: {found(daemon, tokens)}")
