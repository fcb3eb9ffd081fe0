"""What the small runners share: how a job is cancelled, and which of its processes still run."""

import os
import pathlib
import signal
import subprocess
import time

import programs


def cancel_job(process, ready):
    """Ends a job as a runner does that somebody cancels: by TERM once it is under way, and by KILL if it does not go."""
    programs.wait_for("it to be under way", ready)
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def left_running(mark):
    """Processes that have `mark` in their environment, as (pid, command)."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes() and "\nState:\tZ" not in (folder / "status").read_text():
                found.append((int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
        except OSError:
            # It has ended, or is somebody else's.
            pass
    return found


def outlasting(mark, seconds=3):
    """Those that still run after a while: what has been told to end takes a moment."""
    deadline = time.monotonic() + seconds
    while (found := left_running(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
