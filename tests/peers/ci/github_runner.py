"""A small runner of GitHub jobs: what GitHub's documentation and its runner's source (actions/runner, ActionRunner.cs,
ProcessInvoker.cs, FileCommandManager.cs) say happens to a step, and nothing else.

Inputs are variables; each step has files of its own for variables, paths, outputs and state; masks apply to all output; post
steps run last, whatever happened; a cancelled step gets SIGINT, then SIGTERM, then SIGKILL; what still runs at the end of the
job is killed.
"""

import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
import uuid

import yaml

import programs
from runners import outlasting

ACTION = programs.ROOT / "action.yml"
COMMAND = re.compile(r"^\s*::(?P<name>[\w-]+)(?: (?P<properties>[^:]*))?::(?P<data>.*)$")
# GitHub waits 7.5 s and 2.5 s.
PATIENCE = {signal.SIGINT: 2.0, signal.SIGTERM: 1.0}


class Job:
    """One job on a self-hosted runner: a folder of its own below `folder`."""

    def __init__(self, folder, identity, env=None, id_token=True):
        self.temp, self.workspace = folder / "_temp", folder / "work"
        for made in [self.temp, self.workspace]:
            made.mkdir(parents=True)
        self.tracking = f"github_{uuid.uuid4()}"
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "CI": "true", "GITHUB_ACTIONS": "true",
            "GITHUB_RUN_ID": "1658821493", "GITHUB_JOB": "train", "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_WORKSPACE": str(self.workspace), "RUNNER_TEMP": str(self.temp), "RUNNER_OS": "Linux",
            "RUNNER_TRACKING_ID": self.tracking, "WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off",
        }
        if id_token:
            self.env["ACTIONS_ID_TOKEN_REQUEST_URL"] = f"{identity.url}/idtoken?api-version=2.0"
            self.env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = identity.request_token
        self.env |= env or {}
        self.paths, self.masks, self.posts = [], [], []
        # Of each step's command: how a step gets into the job's container.
        self.enter = []
        self.lines, self.outputs, self.failed = [], {}, False
        self.killed = []

    @property
    def log(self):
        return "\n".join(self.lines)

    def uses(self, name="wandb-cred", cancel=None, **inputs):
        """The action of this tree. A hyphen in the name of an input is an underscore here. Its exit code."""
        action = yaml.safe_load(ACTION.read_text())
        given = {key.replace("_", "-"): str(value) for key, value in inputs.items()}
        assert set(given) <= set(action["inputs"]), given
        values = {key: str(spec.get("default", "")) for key, spec in action["inputs"].items()} | given
        env = {f"INPUT_{key.replace(' ', '_').upper()}": value for key, value in values.items()}
        state = {}
        self.posts.append((action["runs"]["post"], env, state))
        return self._step(name, self._node(action["runs"]["main"]), env, state, cancel)

    def run(self, script, name="run", shell=("bash", "--noprofile", "--norc", "-eo", "pipefail"), cancel=None, **env):
        file = self.temp / f"{uuid.uuid4()}.sh"
        file.write_text(script)
        return self._step(name, [*shell, file], env, {}, cancel)

    def finish(self):
        """Post steps, the last first; then whatever the job left running is killed, and its folder emptied."""
        for script, env, state in reversed(self.posts):
            assert self._step("post", self._node(script), env | {f"STATE_{k}": v for k, v in state.items()}, {}) == 0
        self.posts = []
        self.killed = outlasting(self.tracking)
        for pid, _ in self.killed:
            os.kill(pid, signal.SIGKILL)
        for made in [*self.temp.glob("*.sh"), *self.temp.glob("_*")]:
            shutil.rmtree(made) if made.is_dir() else made.unlink()

    def remains(self):
        """What the job left behind: processes that the runner had to kill, and files."""
        return [*self.killed, *outlasting(self.tracking), *self.temp.iterdir()]

    def _node(self, script):
        return [shutil.which("node"), ACTION.parent / script]

    def step_env(self, env, files):
        path = os.pathsep.join([*reversed(self.paths), self.env["PATH"]])
        return self.env | {"PATH": path} | {f"GITHUB_{kind}": str(file) for kind, file in files.items()} | env

    def _step(self, name, argv, env, state, cancel=None):
        files = {}
        for kind in ["ENV", "PATH", "OUTPUT", "STATE", "STEP_SUMMARY"]:
            files[kind] = self.temp / "_runner_file_commands" / f"{kind.lower()}_{uuid.uuid4()}"
            files[kind].parent.mkdir(exist_ok=True)
            files[kind].touch()
        process = subprocess.Popen(
            [str(arg) for arg in [*self.enter, *argv]], env=self.step_env(env, files), cwd=self.workspace, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if cancel:
            threading.Thread(target=self._cancel, args=(process, cancel), daemon=True).start()
        code = self._read(process)
        self.env |= dict(file_command(files["ENV"]))
        self.paths += files["PATH"].read_text().split()
        self.outputs |= {f"{name}.{key}": value for key, value in file_command(files["OUTPUT"])}
        state |= dict(file_command(files["STATE"]))
        self.failed |= code != 0
        return code

    def _read(self, process):
        """Both streams to their ends: a background process that keeps one open would hold the step up."""
        lines = queue.Queue()

        def follow(stream):
            for line in stream:
                lines.put(line.rstrip("\n"))
            lines.put(None)

        for stream in [process.stderr, process.stdout]:
            threading.Thread(target=follow, args=(stream,), daemon=True).start()
        open_streams, deadline = 2, time.monotonic() + 60
        while open_streams:
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                # Of a process that was killed, children may live on.
                if process.poll() == -signal.SIGKILL:
                    break
                assert time.monotonic() < deadline, f"the step does not end:\n{self.log}"
                continue
            if line is None:
                open_streams -= 1
            else:
                self._line(line)
        return process.wait(30)

    def _line(self, line):
        command = COMMAND.match(line)
        if command and command["name"] == "add-mask":
            secret = command["data"].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
            assert secret, "an empty mask"
            self.masks.append(secret)
            return
        for secret in self.masks:
            line = line.replace(secret, "***")
        self.lines.append(line)

    def _cancel(self, process, ready):
        programs.wait_for("the step to be under way", ready)
        for name, patience in PATIENCE.items():
            process.send_signal(name)
            try:
                process.wait(patience)
                return
            except subprocess.TimeoutExpired:
                pass
        process.kill()


def file_command(file):
    """NAME=VALUE, and NAME<<END with lines until END."""
    lines = iter(file.read_text().splitlines())
    for line in lines:
        equals, here = line.find("="), line.find("<<")
        if here >= 0 and (equals < 0 or here < equals):
            name, end = line.split("<<", 1)
            value = []
            for part in lines:
                if part == end:
                    break
                value.append(part)
            else:
                raise AssertionError(f"no line {end!r} after {name}")
            yield name, "\n".join(value)
        elif line:
            assert equals > 0, line
            yield tuple(line.split("=", 1))
