"""A Slurm cluster for each kind of process tracking, a W&B stand-in for each test, and jobs of users in between."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

import programs
from nodes import HERE, USERS, Cluster, missing
from programs import wait_for

PROCTRACKS = ["linuxproc", "cgroup"]
RANK = HERE / "rank.sh"
EXEC = ["wandb-cred", "exec", "--"]
# A daemon on demand lives for 10 s after its last job; the rest is for a busy machine.
GRACE = 10
SOON = GRACE + 15
CONTRIB = programs.ROOT / "contrib/slurm"


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="every test under both proctracks, and budgets")
    parser.addoption("--proctrack", choices=PROCTRACKS, help="only the tests under this kind of process tracking")


def pytest_configure(config):
    config.addinivalue_line("markers", "every_proctrack: depends on how Slurm follows processes")
    config.addinivalue_line("markers", "long: only with --long")


def pytest_generate_tests(metafunc):
    if "slurm" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("every_proctrack")
        every = marked or metafunc.config.getoption("--long")
        # A module names one for its other tests, so that both clusters of the short form have enough to do.
        kinds = PROCTRACKS if every else [getattr(metafunc.module, "PROCTRACK", PROCTRACKS[0])]
        metafunc.parametrize("slurm", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    only = config.getoption("--proctrack")
    others = [item for item in items if only and item.callspec.params.get("slurm") != only]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="only with --long"))


@pytest.fixture(scope="session")
def slurm(request):
    why = missing(request.param)
    if why:
        pytest.skip(f"no Slurm with proctrack/{request.param}: {why}")
    cluster = Cluster(request.param)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def wandb(request, tmp_path):
    """Starts a W&B stand-in whose exchange takes 200 ms, and gives each user the configuration for it."""
    slurm = request.getfixturevalue("slurm")
    with contextlib.ExitStack() as stack:

        def start(*options):
            server = stack.enter_context(programs.sandbox(tmp_path, "--exchange-delay", "200", *options))
            for user in USERS:
                configure(slurm, user, server)
            return server

        yield start


def configure(slurm, user, server, name="wandb-cred/config.toml", subject=None, provider=None):
    """Writes a configuration of the user; gives its path."""
    argv = [str(slurm.bin / "wandb-cred-sandbox"), "mint", "--url", server.url]
    argv += ["--subject", subject] if subject else []
    provider = provider or f"[profile.work.provider.command]\nargv = {json.dumps(argv)}\n"
    path = slurm.home / user / ".config" / name
    write(slurm, user, path, f'[profile.work]\nbase-url = "{server.url}"\naudience = "sandbox"\n{provider}', 0o600)
    return path


def write(slurm, user, path, text, mode=0o644):
    """Writes a file of the user's, and the folders above it."""
    for folder in reversed([above for above in path.parents if slurm.home in above.parents]):
        if not folder.exists():
            folder.mkdir(mode=0o700)
            os.chown(folder, USERS[user], USERS[user])
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, USERS[user], USERS[user])


@pytest.fixture
def jobs(slurm, request):
    """Starts jobs of users; afterwards nothing is left of them, and a failed test shows what the nodes logged."""
    started = Jobs(slurm)
    if slurm.proctrack == "cgroup":
        # Slurm kills what a step started when the step ends, daemons too: without an Epilog their files stay.
        slurm.hook("epilog", f"exec {CONTRIB}/epilog.sh")
    yield started
    started.end()
    slurm.cancel_all()
    for hook in ["epilog", "taskprolog"]:
        slurm.hook(hook, "exit 0")
    for node in slurm.nodes:
        node_folders = [path for top in ["/tmp", "/run/user"] for path in node.path(top).glob("wandb-cred-*")]
        for folder in node_folders:
            subprocess.run(["rm", "-rf", "--", folder], check=True)


class Jobs:
    def __init__(self, slurm):
        self.slurm = slurm
        self.running = []
        self.count = 0

    def start(self, user, nodes, ranks, *command, step=(), **variables):
        """Starts `srun` of a command (a template: OUT stands for the reports' folder)."""
        out = self.folder(user)
        where = nodes if isinstance(nodes, str) else None
        shape = [f"--nodelist={where}"] if where else [f"-N{nodes}"]
        argv = ["srun", *shape, f"-n{ranks}", "-O", *step, *fill(command, out)]
        line = self.slurm.login.enter(user, argv, self.slurm.environment(user, **variables))
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        job = Job(self.slurm, user, out, process)
        self.running.append(job)
        return job

    def batch(self, user, nodes, ranks, script, options=(), **variables):
        """Submits a batch script (a template, as above)."""
        out = self.folder(user)
        text = "#!/bin/bash\n" + script.replace("OUT", str(out)) + "\n"
        path = out / "job.sh"
        write(self.slurm, user, path, text, 0o755)
        argv = ["sbatch", "--parsable", f"-N{nodes}", f"-n{ranks}", "-O", f"--output={out}/log", *options, path]
        number = self.slurm.run(user, argv, **variables).stdout.strip()
        return Batch(self.slurm, user, out, number)

    def folder(self, user):
        self.count += 1
        out = self.slurm.home / user / f"out-{time.monotonic_ns()}-{self.count}"
        out.mkdir(mode=0o700)
        os.chown(out, USERS[user], USERS[user])
        return out

    def end(self):
        for job in self.running:
            if job.process.poll() is None:
                job.process.send_signal(signal.SIGKILL)
                job.process.wait()


def fill(command, out):
    return [str(out) if word == "OUT" else str(word) for word in command]


class Reports:
    """What the ranks of a job said."""

    def __init__(self, slurm, user, out):
        self.slurm, self.user, self.out = slurm, user, out

    def reports(self):
        found = [path for path in self.out.iterdir() if path.name[0].isdigit()]
        return [Report(*path.read_text().splitlines()) for path in found]

    def wait_for_ranks(self, count, seconds=60):
        """The reports of all ranks, once they have the files."""

        def look():
            self.check()
            found = self.reports()
            return len(found) >= count and found

        return wait_for(f"{count} ranks with files", look, seconds)

    def go(self):
        (self.out / "go").touch()

    def check(self):
        pass


class Job(Reports):
    def __init__(self, slurm, user, out, process):
        super().__init__(slurm, user, out)
        self.process = process

    def check(self):
        if self.process.poll() not in [None, 0]:
            pytest.fail(f"srun ended with {self.process.returncode}: {self.process.stdout.read()}")

    def finish(self, seconds=60, check=True):
        """Waits for the end of `srun`; gives its output."""
        output, _ = self.process.communicate(timeout=seconds)
        print(output)
        if check:
            assert self.process.returncode == 0, output
        return output


class Batch(Reports):
    def __init__(self, slurm, user, out, number):
        super().__init__(slurm, user, out)
        self.number = number

    def state(self):
        shown = self.slurm.run("root", ["squeue", "-h", "-o", "%T", "-j", self.number], check=False)
        return shown.stdout.strip()

    def log(self):
        path = self.out / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def check(self):
        if not self.state():
            pytest.fail(f"job {self.number} has ended: {self.log()}\n{self.slurm.logs()}")

    def wait_for_end(self, seconds=60):
        wait_for(f"end of job {self.number}", lambda: not self.state(), seconds)
        return self.log()


class Report:
    def __init__(self, node, start, now, credentials, jwt):
        self.node = node
        self.seconds = float(now) - float(start)
        self.credentials = credentials
        payload = jwt.split(".")[1]
        self.claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))

    @property
    def daemon(self):
        """What tells one daemon's files from another's."""
        return self.node, self.credentials


def nothing_is_left(slurm, seconds=SOON):
    """Within the grace every daemon has ended, and no file of ours is on any node."""
    wait_for("end of all daemons", lambda: not slurm.daemons(), seconds)
    wait_for(f"clean nodes (left: {slurm.leftovers()})", lambda: not slurm.leftovers(), 5)


def median(values):
    return sorted(values)[len(values) // 2]


def show(text):
    """What was measured: in the summary, though the test passes."""
    MEASURED.append(text)


def pytest_terminal_summary(terminalreporter):
    for text in MEASURED:
        terminalreporter.write_line(text)


MEASURED = []
