"""A small runner of GitLab jobs: the component is included as GitLab does it (two documents, inputs put into the values), and
before_script and script are run by one shell, as text that it evaluates in a subshell (gitlab-runner, shells/bash.go); then
the after_script by another.
"""

import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import uuid

import yaml

import programs
from runners import cancel_job, outlasting

COMPONENT = programs.ROOT / "templates/wandb-cred.yml"
INPUT = re.compile(r"\$\[\[ inputs\.([\w-]+) \]\]")


def include(**inputs):
    """The component's jobs with these inputs. A hyphen in the name of an input is an underscore here."""
    header, body = yaml.safe_load_all(COMPONENT.read_text())
    spec = header["spec"]["inputs"]
    values = {name: declared["default"] for name, declared in spec.items() if "default" in declared}
    values |= {name.replace("_", "-"): value for name, value in inputs.items()}
    assert set(values) == set(spec), "unknown or missing inputs"

    def put(node):
        if isinstance(node, dict):
            return {put(key): put(value) for key, value in node.items()}
        if isinstance(node, list):
            return [put(item) for item in node]
        if not isinstance(node, str):
            return node
        whole = INPUT.fullmatch(node)
        if whole:
            return values[whole[1]]
        text = lambda value: str(value).lower() if isinstance(value, bool) else str(value)
        return INPUT.sub(lambda found: text(values[found[1]]), node)

    return put(body)


class Job:
    def __init__(self, folder, mint, shell="bash", env=None):
        self.temp, self.project = folder / "tmp", folder / "project"
        for made in [self.temp, self.project]:
            made.mkdir(parents=True)
        self.mark, self.mint, self.shell = f"gitlab_{uuid.uuid4()}", mint, shell
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(self.temp), "LANG": "C.UTF-8", "CI": "true",
            "GITLAB_CI": "true", "CI_JOB_ID": "9876543210", "CI_JOB_TIMEOUT": "3600", "MARK": self.mark,
            "WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off", **(env or {}),
        }
        self.log, self.masks = "", []

    def run(self, template, script, id_token=True, cancel=None, **own):
        """A job that extends the template. Its exit code."""
        job = template | own | {"script": script if isinstance(script, list) else [script]}
        assert all(isinstance(value, str) for value in job["variables"].values()), job["variables"]
        env = self.env | job["variables"]
        for name, wanted in job["id_tokens"].items():
            if id_token:
                env[name] = self.mint(wanted["aud"])
                # Rails marks the variables of ID tokens as masked.
                self.masks.append(env[name])
        code = self._shell(job.get("before_script", []) + job["script"], env, cancel)
        self._shell(job.get("after_script", []), env)
        return code

    def remains(self):
        return [*outlasting(self.mark), *self.temp.iterdir()]

    def _shell(self, commands, env, cancel=None):
        text = "\n".join(f"echo $ {shlex.quote(command.splitlines()[0])}\n{command}" for command in commands)
        whole = (f"trap exit 1 TERM\nif set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n"
                 f"set +o noclobber\n: | eval {shlex.quote(text)}\nexit 0\n")
        with tempfile.TemporaryFile("w+") as file:
            file.write(whole)
            file.seek(0)
            process = subprocess.Popen(self.shell.split(), env=env, cwd=self.project, stdin=file, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, start_new_session=True)
        if cancel:
            threading.Thread(target=cancel_job, args=(process, cancel), daemon=True).start()
        try:
            said, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError("the job does not end") from None
        for secret in self.masks:
            said = said.replace(secret, "[MASKED]")
        self.log += said
        return process.returncode
