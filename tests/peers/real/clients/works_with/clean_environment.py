"""A launcher that gives its children an environment of its own."""

import os
import pathlib
import subprocess
import sys

program = pathlib.Path(__file__).with_name("plain_run.py")
env = {name: os.environ[name] for name in ("PATH", "HOME")}
sys.exit(subprocess.run([sys.executable, program], env=env, timeout=60).returncode)
