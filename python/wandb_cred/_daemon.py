"""Finds the daemon and asks it: one request on a connection of its own.

Nothing is kept between requests but the place of a daemon that was started on demand, so threads and forked processes
need no care.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import time

from ._error import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Sequence

_MAX_ANSWER = 1024 * 1024
_MOST_DEPARTURES = 5
_COMMAND_TIMEOUT = 90.0

_found: tuple[dict[str, str], str] | None = None
"""A daemon on demand, and the environment in which the command found it."""


class _NotThere(Exception):
    """No daemon that we may ask listens, or it ended before it did anything."""


def ask(method: str, target: str, body: Mapping[str, object] | None = None, timeout: float = 65.0) -> dict[str, Any]:
    """The daemon's answer. Where none runs, one is started."""
    answer, connection, _ = ask_and_hold(method, target, body, timeout)
    connection.close()
    return answer


def ask_and_hold(
    method: str, target: str, body: Mapping[str, object] | None = None, timeout: float = 65.0
) -> tuple[dict[str, Any], socket.socket, str]:
    """The same, and the connection, still open: to a daemon that cannot see this process, its end is ours. And where the daemon
    is."""
    path, guarded = usual_place()
    # In a Slurm job, a daemon that serves the whole job goes first.
    if path and (not guarded or not os.environ.get("SLURM_JOB_ID")):
        try:
            return (*_request(path, guarded, method, target, body, timeout), path)
        except _NotThere:
            pass
    for attempt in range(_MOST_DEPARTURES):
        path = _place_by_command(again=attempt > 0)
        try:
            return (*_request(path, False, method, target, body, timeout), path)
        except _NotThere as error:
            why = str(error)
    raise no_daemon(why, None)


def no_daemon(detail: str, next_command: str | None) -> Error:
    return Error({"type": "no-daemon", "title": "No daemon answers", "detail": detail, "next": next_command})


def is_private(folder: str) -> bool:
    """Whether it is a real folder, ours, and closed to everybody else."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def usual_place() -> tuple[str, bool]:
    """The usual socket, and whether it is to be used in a private folder only. The rules are those of the command
    (src/paths.rs, src/client/find.rs); empty where it has something to say about them."""
    named = os.environ.get("WANDB_CRED_SOCKET")
    if named:
        return named if os.path.isabs(named) else "", False
    return os.path.join(_runtime_folder(), "wandb-cred.sock"), True


def _runtime_folder() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return os.path.join(runtime, "wandb-cred")
    uid = os.geteuid()
    try:
        status = os.lstat(f"/run/user/{uid}")
        if stat.S_ISDIR(status.st_mode) and status.st_uid == uid:
            return f"/run/user/{uid}/wandb-cred"
    except OSError:
        pass
    temporary = os.environ.get("TMPDIR", "")
    return os.path.join(temporary if os.path.isabs(temporary) else "/tmp", f"wandb-cred-{uid}")


def _place_by_command(again: bool) -> str:
    """Asks the command, which knows where a daemon on demand is, and starts one if need be."""
    global _found
    environment = dict(os.environ)
    if _found is not None and not again and _found[0] == environment:
        return _found[1]
    path = run_command(["socket"]).rstrip("\n")
    _found = (environment, path)
    return path


def run_command(arguments: Sequence[str]) -> str:
    """What `wandb-cred` prints; an error with its words if it fails."""
    import subprocess

    program = command()
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise no_daemon(f"{program} cannot be run: {error}", None) from None
    if done.returncode != 0:
        said, _, next_command = done.stderr.strip().partition("\n  next: ")
        said = said.replace("wandb-cred: ", "", 1) or f"{program} ended with code {done.returncode}"
        raise no_daemon(said, next_command or None)
    if done.stderr:
        # Such as a line on a variable that was passed over.
        sys.stderr.write(done.stderr)
    return done.stdout


def command() -> str:
    """The command that was installed with this package, else the one in PATH."""
    import shutil
    import sysconfig

    # A virtual environment's, that of `pip install --target`, that of `pip install --user`.
    folders = [
        os.path.dirname(sys.executable),
        sysconfig.get_path("scripts"),
        os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin"),
        sysconfig.get_path("scripts", "posix_user"),
    ]
    for path in [os.path.join(folder, "wandb-cred") for folder in folders] + [shutil.which("wandb-cred") or ""]:
        if path and os.access(path, os.X_OK):
            return path
    detail = "the command wandb-cred is neither beside this Python nor in PATH"
    raise no_daemon(detail, "pip install --force-reinstall wandb-cred")


def _request(
    path: str, guarded: bool, method: str, target: str, body: Mapping[str, object] | None, timeout: float
) -> tuple[dict[str, Any], socket.socket]:
    deadline = time.monotonic() + timeout
    data = b"" if body is None else json.dumps(body).encode()
    kind = "Content-Type: application/json\r\n" if data else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: wandb-cred\r\nConnection: close\r\nContent-Length: {len(data)}\r\n{kind}\r\n"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    received = b""
    try:
        # It bounds connect, too, which waits while the queue of a stuck daemon is full.
        connection.settimeout(timeout)
        _connect(connection, path, guarded)
        try:
            connection.sendall(head.encode() + data)
            while not _is_whole(received):
                # A daemon that sends a byte at a time does not get a new time-out with each.
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                piece = connection.recv(65536)
                if not piece:
                    break
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        if not received:
            raise _NotThere(f"the daemon at {path} broke off")
        return _answer(received, path), connection
    except socket.timeout:
        connection.close()
        detail = f"the daemon at {path} did not answer within {timeout:.0f} s"
        raise _no_answer(detail, "wandb-cred service status") from None
    except BaseException:
        connection.close()
        raise


def unreadable(detail: str) -> Error:
    problem = {"type": "not-found", "title": "The answer cannot be read", "detail": detail}
    return Error({**problem, "next": "restart wandb-credd, so that it has the same version as wandb-cred"})


def _no_answer(detail: str, next_command: str) -> Error:
    problem = {"type": "no-answer", "title": "The daemon does not answer", "detail": detail}
    return Error({**problem, "next": next_command})


def _connect(connection: socket.socket, path: str, guarded: bool) -> None:
    """Nothing is sent to somebody else's daemon, whoever put it there."""
    private = is_private(os.path.dirname(path))
    if guarded and not private:
        raise _NotThere(f"no daemon answers at {path}")
    try:
        connection.connect(path)
    except socket.timeout:
        raise
    except OSError as error:
        raise _NotThere(f"no daemon answers at {path}: {error.strerror or error}") from None
    if not private and _server_uid(connection, path) not in _trusted():
        raise _NotThere(f"{path} is served by another user")


def _server_uid(connection: socket.socket, path: str) -> int:
    if sys.platform == "linux":
        # struct ucred: pid, uid, gid (unix(7)).
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[4:8], sys.byteorder)
    return os.stat(path).st_uid


def _trusted() -> set[int]:
    named = os.environ.get("WANDB_CRED_SOCKET_UID", "")
    return {os.geteuid(), 0} | ({int(named)} if named.isdecimal() else set())


def _length(head: bytes) -> int | None:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return None


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return len(received) > _MAX_ANSWER
    length = _length(head)
    return length is None or length > _MAX_ANSWER or len(body) >= length


def _answer(received: bytes, path: str) -> dict[str, Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    length = _length(head)
    if length is not None and len(body) < length <= _MAX_ANSWER:
        detail = f"the daemon at {path} broke off after {len(received)} bytes of its answer"
        raise _no_answer(detail, "wandb-cred check")
    try:
        if length is None or length > _MAX_ANSWER:
            raise ValueError
        status = int(head.split(b" ", 2)[1])
        document = json.loads(body[:length])
        if not isinstance(document, dict):
            raise ValueError
    except (ValueError, IndexError):
        raise unreadable(f"what answers at {path} is not a wandb-credd of this version") from None
    if 200 <= status < 300:
        return document
    if document.get("type") == "shutting-down":
        raise _NotThere(str(document.get("detail")))
    raise Error(document)
