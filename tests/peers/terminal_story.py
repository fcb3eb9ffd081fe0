"""The picture in the README, played anew: a person signs in, trains and looks, on a terminal of 104 columns.

The programs, the OpenID Provider and the released SDK are real; the person, their browser and the W&B server are stand-ins
on loopback. The folders of this run are shown as /home/ada and /run/user/1000.
"""

import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import tempfile
import termios
import time

from programs import BINARIES, ROOT, interpreter, sandbox

COLUMNS, ROWS = 104, 50
TRAIN = """\
import wandb

run = wandb.init(entity="acme", project="train", settings=wandb.Settings(quiet=True))
for step in range(100):
    run.log({"loss": 1 / (step + 1)})
run.finish()
"""


def play():
    """What was typed, and what came, with its colours."""
    with tempfile.TemporaryDirectory(prefix="wc-") as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        issuer = stack.enter_context(openid_provider())
        people = ["--subject", "ada@example.com"]
        server = stack.enter_context(sandbox(folder, "--trust-issuer", issuer, "--audience", "cli", *people))
        home, runtime = folder / "home", folder / "run"
        runtime.mkdir(mode=0o700)
        (home / "train.py").write_text(TRAIN)
        browser = folder / "browser"
        browser.write_text(f'#!/bin/sh\nexec node {ROOT}/tests/peers/login/person.mjs "$1" ada >/dev/null\n')
        browser.chmod(0o700)
        env = {
            "PATH": f"{BINARIES}:{interpreter('wandb-0.31.0').parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "BROWSER": str(browser),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "WANDB_BASE_URL": server.url,
            "WANDB_ERROR_REPORTING": "false",
        }
        # Nobody's keyring is open here.
        sign_in = f"wandb-cred login --issuer {issuer} --client-id cli --token-store file"
        for command in [sign_in, "wandb-cred exec -- python train.py", "wandb-cred status"]:
            output = typed(command, env, home)
            for place, shown in [(home, "/home/ada"), (runtime, "/run/user/1000")]:
                output = output.replace(str(place), shown)
            yield command, output
            # The configuration names the server now.
            env.pop("WANDB_BASE_URL", None)
        subprocess.run(["wandb-cred", "logout"], env=env, check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def openid_provider():
    argv = ["node", ROOT / "tests/peers/openid_provider.mjs"]
    env = {**os.environ, "ID_TTL": "3600"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, env=env, text=True, **pipes) as process:
        try:
            yield next(line.split()[1] for line in process.stdout if line.startswith("ready"))
        finally:
            process.kill()


def typed(command, env, folder, seconds=90):
    """What a terminal shows of a command that ends well."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        ["sh", "-c", command], env=env, cwd=folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    shown, end = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 1)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError:
                    break
        else:
            raise AssertionError(f"{command}: not over after {seconds} s")
    finally:
        os.close(master)
        process.kill() if process.poll() is None and time.monotonic() >= end else None
    output = shown.decode().replace("\r\n", "\n")
    assert process.wait(10) == 0, output
    return output


def essence(line):
    """A line without what differs from run to run: times, numbers of processes and ports, names of runs, blanks."""
    line = re.sub(r"(\d+\s(h|min|s)\b\s?)+", "TIME", line)
    line = re.sub(r"(?<=[?&]state=).*", "NAME", line)
    line = re.sub(r"\brun-\d{8}_\d{6}-\w{8}|\buser-[0-9a-f]{16}|(?<=runs/)\w{8}|(?<=run\s)\w{8}\b", "NAME", line)
    return re.sub(r"\s+|\d+", lambda found: "" if found[0].isspace() else "0", line)


def lines(story):
    """As they are drawn: a long line is cut at the edge, not wrapped."""
    for command, output in story:
        for line in [f"$ {command}", *re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output).split("\n")]:
            # What was written over, such as what a slow command waits for, is not there in the end.
            line = line.rsplit("\r", 1)[-1]
            yield line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…"
