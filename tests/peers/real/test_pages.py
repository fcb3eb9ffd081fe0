"""Output that a page shows is what the programs print. A block after `<!-- run -->` is typed anew: a daemon serves the profile `work`, with
the sandbox as W&B and identity provider."""

import json
import re
import subprocess

import pytest
from programs import BINARIES, ROOT, bare_environment, binary, sandbox, wait_for
from terminal_story import essence

BLOCK = re.compile(r"<!-- run -->\n```\w+\n(.*?)```", re.S)
PAGES = [page for page in sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")) if BLOCK.search(page.read_text())]


@pytest.fixture
def shell(folder, processes):
    """Types a command as the user would: gives what came."""
    with sandbox(folder) as server:
        mint = [str(binary("wandb-cred-sandbox")), "mint", "--url", server.url]
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        env = bare_environment(folder, XDG_RUNTIME_DIR=str(runtime))
        del env["WANDB_ERROR_REPORTING"], env["WANDB_CONSOLE"]
        env["PATH"] = f"{BINARIES}:{env['PATH']}"
        config = folder / "home/.config/wandb-cred/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(
            f'[profile.work]\nbase-url = "{server.url}"\naudience = "sandbox"\n'
            f"[profile.work.provider.command]\nargv = {json.dumps(mint)}\n"
        )
        processes([binary("wandb-credd"), "run"], env=env, log=folder / "daemon.log")
        wait_for("socket", (runtime / "wandb-cred/wandb-cred.sock").exists)

        def typed(command):
            # So that what it prints does not depend on which block came first.
            subprocess.run(["wandb-cred", "token"], env=env, check=True, capture_output=True, timeout=30)
            done = subprocess.run(
                ["sh", "-c", command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            output = done.stdout.replace(str(folder / "home"), "/home/ada").replace(str(runtime), "/run/user/1000")
            return output.replace(server.url, SERVER)

        yield typed


SERVER = "https://api.wandb.ai"


def gist(text):
    """Without line breaks, which depend on the length of paths."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", SERVER, text)
    return "".join(essence(line) for line in re.sub(r'key "[\w-]+"', "key", text).split("\n"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_is_what_is_printed(page, shell):
    for block in BLOCK.findall(page.read_text()):
        for typed in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, shown = typed.split("\n", 1)
            printed = shell(command)
            assert gist(shown) == gist(printed), printed
