"""A small Buildkite agent for one job: hooks are sourced by a wrapper that hands the changes of the environment on to the next
hooks and to the command (internal/job/hook/wrapper.go of buildkite/agent); pre-exit runs whatever happened; output is redacted.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid

import yaml

import programs
from runners import cancel_job, outlasting

PLUGIN = programs.ROOT / "contrib/buildkite/wandb-cred"

AGENT = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1:3] == ["env", "dump"]:
    json.dump(dict(os.environ), sys.stdout)
elif sys.argv[1:3] == ["redactor", "add"]:
    open(os.environ["REDACTIONS"], "a").write(json.dumps(sys.stdin.read()) + "\\n")
else:
    sys.exit(f"unknown: {{sys.argv}}")
"""


class Job:
    def __init__(self, folder, identity, env=None):
        self.temp, self.checkout = folder / "tmp", folder / "checkout"
        for made in [self.temp, self.checkout, folder / "bin"]:
            made.mkdir(parents=True)
        self.agent, self.redactions = folder / "bin/buildkite-agent", folder / "redactions"
        self.agent.write_text(AGENT)
        self.agent.chmod(0o755)
        self.mark, self.log = f"buildkite_{uuid.uuid4()}", ""
        self.env = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder), "TMPDIR": str(self.temp), "LANG": "C.UTF-8",
            "CI": "true", "BUILDKITE": "true", "BUILDKITE_JOB_ID": "0189-job", "MARK": self.mark,
            "REDACTIONS": str(self.redactions), "BUILDKITE_AGENT_ENDPOINT": f"{identity.url}/v3",
            "BUILDKITE_AGENT_ACCESS_TOKEN": identity.request_token, "WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off",
            **(env or {}),
        }

    def run(self, command, cancel=None, **configuration):
        """The plugin with this configuration, and the command. Its exit code. A hyphen in a name is an underscore here."""
        known = yaml.safe_load((PLUGIN / "plugin.yml").read_text())["configuration"]["properties"]
        configuration = {name.replace("_", "-"): value for name, value in configuration.items()}
        assert set(configuration) <= set(known), configuration
        for name, value in configuration.items():
            value = str(value).lower() if isinstance(value, bool) else str(value)
            self.env[f"BUILDKITE_PLUGIN_WANDB_CRED_{name.replace('-', '_').upper()}"] = value
        code = self.hook("environment")
        if code == 0:
            code = self._process(["bash", "-e", "-c", command], cancel)
        self.hook("pre-exit")
        return code

    def remains(self):
        return [*outlasting(self.mark), *self.temp.iterdir()]

    def wrapper(self, name):
        before, after = (self.checkout.parent / f"{when}-env" for when in ["before", "after"])
        return (f'"{self.agent}" env dump > "{before}"\n. "{PLUGIN}/hooks/{name}"\nexport BUILDKITE_HOOK_EXIT_STATUS=$?\n'
                f'"{self.agent}" env dump > "{after}"\nexit $BUILDKITE_HOOK_EXIT_STATUS\n')

    def hook(self, name):
        script = self.checkout.parent / f"wrapper-{name}"
        script.write_text(self.wrapper(name))
        code = self._process(["bash", script])
        # A hook that fails hands nothing on.
        if code == 0:
            before, after = (json.loads((self.checkout.parent / f"{when}-env").read_text()) for when in ["before", "after"])
            for gone in set(before) - set(after):
                self.env.pop(gone, None)
            self.env |= {key: value for key, value in after.items() if before.get(key) != value}
        return code

    def _process(self, argv, cancel=None):
        process = subprocess.Popen([str(arg) for arg in argv], env=self.env, cwd=self.checkout, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        if cancel:
            threading.Thread(target=cancel_job, args=(process, cancel), daemon=True).start()
        try:
            said, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError("the hook or command does not end") from None
        for line in self.redactions.read_text().splitlines() if self.redactions.exists() else []:
            said = said.replace(json.loads(line).strip(), "[REDACTED]")
        self.log += said
        return process.returncode
