"""A pod without a kubelet: the containers of the rendered manifest, run by crun from the image of scripts/image.

What the kubelet would do is done here as it does it: an in-memory volume, a projected token that is replaced by a rename of
its `..data` link, one network for all containers, and the security contexts of the manifest.
"""

import contextlib
import copy
import itertools
import json
import os
import pathlib
import shutil
import subprocess

import yaml

from programs import BINARIES, ROOT, wait_for

MANIFEST = ROOT / "contrib/kubernetes/manifest.yaml"
TOOLS = ["buildah", "skopeo", "umoci", "crun", "strip", "unshare"]
# What `runAsUser` and `runAsGroup` of the manifest are.
USER = 65532


def missing():
    """Why there can be no pod here, if so."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in TOOLS:
        if not shutil.which(tool):
            return f"{tool} is not installed; run: scripts/setup-tests kubernetes"
    cgroup = subprocess.run(["unshare", "--mount", "sh", "-c", CGROUP], capture_output=True, text=True)
    return cgroup.stderr.strip() or None


# crun looks for a plain cgroup2 there, whatever the machine has.
CGROUP = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"


class Image:
    def __init__(self, folder):
        self.folder = folder
        self.archive = folder / "image.tar"
        env = {**os.environ, "WANDB_CRED_BIN_DIR": str(BINARIES)}
        subprocess.run([ROOT / "scripts/image", self.archive], env=env, check=True, timeout=300)
        subprocess.run(["skopeo", "copy", "--quiet", f"oci-archive:{self.archive}", f"oci:{folder}/oci:image"], check=True)
        self.count = itertools.count()

    def bundle(self):
        """The image unpacked for one container."""
        bundle = self.folder / f"bundle-{next(self.count)}"
        subprocess.run(["umoci", "unpack", "--image", f"{self.folder}/oci:image", bundle], check=True, capture_output=True)
        return bundle


class Pod:
    def __init__(self, image, folder, base_url, more_config=""):
        self.image, self.folder = image, folder
        documents = {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}
        self.spec = documents["Job"]["spec"]["template"]["spec"]
        self.names = itertools.count()
        self.volumes = {volume["name"]: folder / volume["name"] for volume in self.spec["volumes"]}
        for name, volume in self.volumes.items():
            volume.mkdir()
        # An emptyDir's own root is open to everybody.
        self.volumes["wandb-cred-run"].chmod(0o777)
        config = documents["ConfigMap"]["data"]["config.toml"].replace("https://api.wandb.ai", base_url)
        config = config.replace('audience = "acme"', 'audience = "sandbox"')
        (self.volumes["wandb-cred-config"] / "config.toml").write_text(more_config + config)
        self.stack = contextlib.ExitStack()

    def project(self, token):
        """Replaces the projected token as the kubelet's atomic writer does: a new folder with a time in its name, a link
        to it beside `..data`, and a rename over that; then the old folder goes."""
        volume = self.volumes["wandb-cred-token"]
        old = os.readlink(volume / "..data") if (volume / "..data").is_symlink() else None
        fresh = volume / f"..2026_11_26_05_00_00.{next(self.names)}"
        fresh.mkdir(mode=0o755)
        (fresh / "token").write_text(token)
        # One user for all containers: the kubelet gives the file to that user.
        (fresh / "token").chmod(0o600)
        os.chown(fresh / "token", USER, USER)
        (volume / "..data_tmp").symlink_to(fresh.name)
        (volume / "..data_tmp").rename(volume / "..data")
        if not (volume / "token").is_symlink():
            (volume / "token").symlink_to("..data/token")
        if old:
            shutil.rmtree(volume / old)

    def container(self, manifest, args=None, uid=None, gid=None, groups=(), env=()):
        """The crun bundle of one container of the manifest."""
        bundle = self.image.bundle()
        image = json.loads((bundle / "config.json").read_text())
        pod = self.spec["securityContext"]
        context = manifest.get("securityContext", {})
        user = {"uid": uid or pod["runAsUser"], "gid": gid or pod["runAsGroup"], "additionalGids": list(groups)}
        named = [f"{variable['name']}={variable['value']}" for variable in manifest.get("env", [])]
        variables = dict(pair.split("=", 1) for pair in [*image["process"]["env"], *named, *env])
        process = {
            "terminal": False, "cwd": "/", "user": user, "env": [f"{name}={value}" for name, value in variables.items()],
            "args": args or image["process"]["args"], "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in ["bounding", "effective", "inheritable", "permitted", "ambient"]},
        }
        binds = [bind(self.volumes[mount["name"]], mount) for mount in manifest["volumeMounts"]]
        spec = {
            "ociVersion": "1.0.0", "process": process, "hostname": "pod",
            "root": {"path": "rootfs", "readonly": context.get("readOnlyRootFilesystem", True)},
            "mounts": [*copy.deepcopy(MOUNTS), *binds],
            # One network for the pod; each container has its own processes.
            "linux": {"namespaces": [{"type": kind} for kind in ["pid", "mount", "ipc", "uts"]]},
        }
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle

    def crun(self, *argv):
        line = ["crun", "--cgroup-manager=disabled", f"--root={self.folder}/crun", *(str(arg) for arg in argv)]
        return ["unshare", "--mount", "sh", "-c", f'{CGROUP} && exec "$@"', "sh", *line]

    def start_sidecar(self):
        """Starts the daemon as the manifest has it, and waits for its startup probe."""
        [sidecar] = self.spec["initContainers"]
        assert sidecar["restartPolicy"] == "Always"
        self.sidecar = f"sidecar-{os.getpid()}-{next(self.names)}"
        self.log = self.folder / f"{self.sidecar}.log"
        bundle = self.container(sidecar)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.crun("run", "--bundle", bundle, self.sidecar), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.stack.callback(self.stop)
        probe = sidecar["startupProbe"]["exec"]["command"]

        def ready():
            assert self.process.poll() is None, self.log.read_text()
            self.probe = self.exec(*probe)
            return self.probe.returncode == 0

        try:
            wait_for("startup probe that passes", ready)
        finally:
            print(self.probe)

    def exec(self, *argv):
        """What `kubectl exec` and a probe do in the sidecar: they run as its user."""
        user = f"--user={USER}:{self.spec['securityContext']['runAsGroup']}"
        return subprocess.run(self.crun("exec", user, self.sidecar, *argv), capture_output=True, text=True, timeout=30)

    def run(self, *argv, uid=None, gid=None, groups=(), env=()):
        """Runs a command in a container that has the main container's mounts, variables and user, but our image."""
        [main] = self.spec["containers"]
        name = f"main-{os.getpid()}-{next(self.names)}"
        bundle = self.container(main, args=[str(arg) for arg in argv], uid=uid, gid=gid, groups=groups, env=env)
        return subprocess.run(
            self.crun("run", "--bundle", bundle, name), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def file(self, name):
        """A file of the shared volume, as seen from outside."""
        return self.volumes["wandb-cred-run"] / "daemon" / name

    def stop(self):
        subprocess.run(self.crun("kill", self.sidecar, "TERM"), capture_output=True)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            subprocess.run(self.crun("delete", "--force", self.sidecar), capture_output=True)
            self.process.wait(15)
            raise AssertionError("the sidecar did not end by SIGTERM") from None
        finally:
            print(self.log.read_text(errors="replace")[-8000:])


def bind(source, mount):
    options = ["bind", "nosuid", "nodev", *(["ro"] if mount.get("readOnly") else [])]
    return {"destination": mount["mountPath"], "source": str(source), "type": "bind", "options": options}


MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
]
