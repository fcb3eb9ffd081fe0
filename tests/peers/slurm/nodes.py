"""A real Slurm on one machine: a login node and three compute nodes that share nothing but one folder and the network.

Each node is a process with PID, mount and host namespaces of its own (`node.sh`), so ending that process ends all that
ever ran there and takes its mounts away.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from programs import BINARIES, ROOT, binary, wait_for

HERE = pathlib.Path(__file__).resolve().parent

COMPUTE = ["n1", "n2", "n3"]
CPUS = 16
# Numbers that no user of this machine has; 40001 is the first.
USERS = {"alice": 40001, "bob": 40002}
FREEZER = pathlib.Path("/sys/fs/cgroup/freezer")
PROGRAMS = ["slurmctld", "slurmd", "srun", "sbatch", "munged", "unshare", "nsenter", "setpriv"]


def missing(proctrack):
    """Why there can be no cluster here, if so."""
    if sys.platform != "linux":
        return "this is no Linux"
    if os.geteuid() != 0:
        return "needs root"
    for program in PROGRAMS:
        if not shutil.which(program, path=PATH):
            return f"{program} is not installed; run: scripts/setup-tests slurm"
    if proctrack == "cgroup" and not os.access(FREEZER / "cgroup.procs", os.W_OK):
        return "no freezer cgroup (v1) that we may write to, which this Slurm needs"
    namespaces = subprocess.run(["unshare", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True)
    return namespaces.stderr.decode().strip() or None


class Node:
    def __init__(self, name, base, log):
        self.name, self.base, self.log = name, base, log
        self.outer = self.init = None

    def start(self, visible, *command):
        # It ends with the test run, however that ends.
        argv = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", HERE / "node.sh"]
        with self.log.open("ab") as log:
            self.outer = subprocess.Popen(
                [*argv, self.name, self.base, *visible, "--", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )

    def ready(self):
        assert self.outer.poll() is None, self.log.read_text()
        if not (self.base / self.name / "ready").exists():
            return False
        children = pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        self.init = int(children[0])
        self.namespace = os.readlink(f"/proc/{self.init}/ns/pid")
        return True

    def kill(self):
        if self.outer:
            self.outer.kill()

    def wait(self):
        """The kernel ends everything in the PID namespace before its first process is gone."""
        if self.outer:
            self.outer.wait()
            wait_for(f"end of {self.name}", lambda: not os.path.exists(f"/proc/{self.init}"))

    def enter(self, user, argv, env):
        """The command line that runs `argv` on this node as `user`."""
        uid = USERS.get(user, 0)
        into = ["nsenter", "-t", str(self.init), "-m", "-u", "-p", f"--wd={self.base / 'home' / user if uid else '/'}"]
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        clean = ["env", "-i", *(f"{name}={value}" for name, value in env.items())]
        return [*into, *become, *clean, *(str(arg) for arg in argv)]

    def processes(self, name):
        """The numbers of the processes here with this name, as the machine counts them."""
        found = []
        for process in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and os.readlink(process / "ns/pid") == self.namespace:
                    if (process / "comm").read_text().strip() == name:
                        found.append(int(process.name))
        return found

    def path(self, path):
        """A file of this node, as seen from outside."""
        return pathlib.Path(f"/proc/{self.init}/root{path}")

    def leftovers(self):
        """Every file of ours in the folders that this node has for itself."""
        names = {"identity-token", "credentials.json", "wandb-cred.sock", "s", "jobs.json"}
        found = []
        for top in ["/tmp", "/run/user", "/dev/shm", "/var/tmp"]:
            for folder, _, files in os.walk(self.path(top)):
                found += [pathlib.Path(folder, file) for file in files if file in names and "wandb-cred" in folder]
        root = str(self.path("/"))
        return ["/" + os.path.relpath(path, root) for path in found if not str(path).startswith(root + str(self.base))]


class Cluster:
    def __init__(self, proctrack):
        self.proctrack = proctrack
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="wcs-"))
        self.base.chmod(0o755)
        self.bin, self.home, self.slurm = (self.base / name for name in ["bin", "home", "slurm"])
        self.login = Node("login", self.base, self.base / "login.log")
        self.nodes = [Node(name, self.base, self.base / f"{name}.log") for name in COMPUTE]

    def up(self):
        for folder in [self.bin, self.home, self.slurm]:
            folder.mkdir()
        for program in ["wandb-cred", "wandb-credd", "wandb-cred-sandbox"]:
            shutil.copy2(binary(program), self.bin)
        self.users()
        self.configure()
        venvs = [venv.resolve() for venv in (ROOT / ".test/venvs").glob("*")]
        visible = [pathlib.Path(sys.base_prefix), *venvs, HERE.parent, ROOT / "contrib"]
        self.login.start(visible, HERE / "login.sh", self.slurm)
        for node in self.nodes:
            node.start(visible, "slurmd", "-D", "-N", node.name, "-f", self.slurm / "slurm.conf")
        for node in [self.login, *self.nodes]:
            wait_for(f"node {node.name}", node.ready)
        for user, uid in USERS.items():
            runtime = self.login.path(f"/run/user/{uid}")
            runtime.mkdir(mode=0o700)
            os.chown(runtime, uid, uid)
        idle = lambda: self.run("root", ["sinfo", "-h", "-N", "-o", "%t"]).stdout.split() == ["idle"] * 3
        try:
            wait_for("three idle nodes", idle, 40)
        except BaseException:
            print(self.logs())
            raise

    def down(self):
        machines = [self.login, *self.nodes]
        for machine in machines:
            machine.kill()
        for machine in machines:
            machine.wait()
        self.remove_cgroups()
        shutil.rmtree(self.base)

    def remove_cgroups(self):
        if self.proctrack != "cgroup":
            return
        deadline = time.monotonic() + 10
        for name in COMPUTE:
            top = FREEZER / f"slurm_{name}"
            while top.exists() and time.monotonic() < deadline:
                for folder, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)

    def logs(self):
        files = [*self.base.glob("*.log"), *self.base.glob("*/log"), *self.slurm.glob("*.log")]
        return "\n".join(f"== {file}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def users(self):
        for database, line in [("passwd", "{0}:x:{1}:{1}::{2}:/bin/bash"), ("group", "{0}:x:{1}:")]:
            own = [line.format(user, uid, self.home / user) for user, uid in USERS.items()]
            (self.base / database).write_text(pathlib.Path("/etc", database).read_text() + "\n".join(own) + "\n")
        for user, uid in USERS.items():
            home = self.home / user
            home.mkdir(mode=0o700)
            os.chown(home, uid, uid)

    def configure(self):
        ports = free_ports(1 + len(COMPUTE))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} State=UNKNOWN"
            for name, port in zip(COMPUTE, ports[1:])
        )
        for hook in ["epilog", "taskprolog"]:
            self.hook(hook, "exit 0")
        (self.slurm / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost=login(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={self.slurm}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={self.slurm}/state
SlurmdSpoolDir={self.slurm}/spool.%n
SlurmctldPidFile={self.slurm}/slurmctld.pid
SlurmdPidFile={self.slurm}/slurmd.%n.pid
SlurmctldLogFile={self.slurm}/slurmctld.log
SlurmdLogFile={self.slurm}/slurmd.%n.log
ProctrackType=proctrack/{self.proctrack}
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
PlugStackConfig=/dev/null
SlurmdTimeout=30
InactiveLimit=0
SlurmdParameters=config_overrides
KillWait=2
OverTimeLimit=0
JobRequeue=1
Epilog={self.slurm}/epilog
TaskProlog={self.slurm}/taskprolog
{nodes}
PartitionName=p Nodes={",".join(COMPUTE)} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""
        )
        (self.slurm / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n"
            "ConstrainCores=no\nConstrainRAMSpace=no\n"
        )

    def hook(self, name, script):
        """Puts a shell script in the place of Slurm's Epilog or TaskProlog."""
        path = self.slurm / name
        new = path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\n{script}\n")
        new.chmod(0o755)
        new.rename(path)

    def environment(self, user, **variables):
        """What a login shell of the user has."""
        return {
            "PATH": f"{self.bin}:{PATH}", "HOME": self.home / user, "USER": user, "LOGNAME": user, "LANG": "C.UTF-8",
            "SHELL": "/bin/bash", "SLURM_CONF": self.slurm / "slurm.conf",
            "WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off", **variables,
        }

    def run(self, user, argv, timeout=60, on=None, check=True, **variables):
        """Runs a command as the user, on the login node if no other is named."""
        line = (on or self.login).enter(user, argv, self.environment(user, **variables))
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        if check:
            assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def daemons(self):
        """How many daemons run on each compute node that has any."""
        counts = {node.name: len(node.processes("wandb-credd")) for node in self.nodes}
        return {name: count for name, count in counts.items() if count}

    def leftovers(self):
        found = {node.name: node.leftovers() for node in self.nodes}
        return {name: files for name, files in found.items() if files}

    def cancel_all(self):
        """Ends every job, so that the next test has the nodes for itself."""
        for user in USERS:
            self.run("root", ["scancel", "--signal=KILL", "--full", f"--user={user}"], check=False)
            self.run("root", ["scancel", f"--user={user}"], check=False)
        wait_for("end of all jobs", lambda: not self.run("root", ["squeue", "-h"]).stdout.strip(), 30)
        for node in self.nodes:
            for daemon in node.processes("wandb-credd"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon, 15)
        wait_for("end of all daemons", lambda: not self.daemons(), 10)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
