"""Around apk.sh: a name server that knows one name, and a root like Alpine's with the package's files.

Runs as root in namespaces of its own for the network and mounts: apk_world.py SANDBOX PACKAGE.apk ROOT
"""

import os
import pathlib
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time

NAME = b"\x05wandb\x04test\x00"


def serve_names():
    """Answers A questions for wandb.test with 127.0.0.1, and says that nothing else is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        while True:
            question, peer = server.recvfrom(512)
            rest = question[12:]
            end = rest.index(b"\0") + 5
            known = rest[: len(NAME)].lower() == NAME
            a = known and rest[end - 4 : end - 2] == b"\0\1"
            head = question[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + bytes([0, int(a)]) + b"\0\0\0\0"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if a else b""
            server.sendto(head + rest[:end] + answer, peer)


def unpack(package, root):
    """As apk does: three gzip members, one tar each; what begins with a dot is about the package."""
    with tarfile.open(package, "r:gz", ignore_zeros=True) as files:
        for member in files:
            if member.name.startswith("."):
                continue
            assert (member.uid, member.gid) == (0, 0) and not member.mode & 0o022, member
            files.extract(member, root)


def main():
    sandbox, package, root = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    threading.Thread(target=serve_names, daemon=True).start()
    unpack(package, root)
    assert not (root / "usr/lib/systemd").exists(), "Alpine has no systemd"
    ready = root / "url"
    # The name is another than the sandbox's own, so the JWT and the exchange are about its address.
    child = subprocess.Popen([sandbox, "serve", "--ready-file", ready], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not (ready.exists() and ready.read_text()):
            assert time.monotonic() < deadline, "the sandbox did not come up"
            time.sleep(0.05)
        url = ready.read_text()
        home = root / "home/tester"
        home.mkdir(parents=True)
        jwt = subprocess.run([sandbox, "mint", "--url", url], check=True, capture_output=True, text=True).stdout
        (home / "jwt").write_text(jwt.strip())
        for path in (home, home / "jwt"):
            os.chown(path, 1000, 1000)
            path.chmod(0o700 if path.is_dir() else 0o600)
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\ntester:x:1000:1000::/home/tester:/bin/sh\n")
        (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        (root / "proc").mkdir()
        subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
        (root / "dev").mkdir()
        os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (root / "dev/null").chmod(0o666)
        (root / "tmp").mkdir(exist_ok=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy(pathlib.Path(__file__).with_name("apk.sh"), root / "apk.sh")
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/home/tester", "XDG_RUNTIME_DIR": "/home/tester/run"}
        command = [shutil.which("chroot"), "--userspec=1000:1000", root, "/bin/sh", "/apk.sh", url.replace("127.0.0.1", "wandb.test")]
        sys.exit(subprocess.run(command, env=environment, timeout=120).returncode)
    finally:
        child.kill()


main()
