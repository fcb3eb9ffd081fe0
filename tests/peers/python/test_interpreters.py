"""The package alone, on every Python from 3.8 on that is here. It needs none but this one."""

import pathlib
import shutil
import subprocess
import sys

import pytest

VERSIONS = [f"3.{minor}" for minor in range(8, 16)]


def interpreters():
    found = {}
    for version in VERSIONS:
        kept = sorted(pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        path = kept[-1] if kept else shutil.which(f"python{version}")
        if path and subprocess.run([path, "-c", "import ssl"], capture_output=True).returncode == 0:
            found[version] = path
    if pypy := shutil.which("pypy3"):
        found["pypy"] = pypy
    return found or {"this": sys.executable}


CODE = """
import pickle, subprocess, sys, wandb_cred
token = wandb_cred.token(min_ttl=60)
assert wandb_cred.token() == token and token.expires_at.tzinfo and str(token) not in repr(token)
assert pickle.loads(pickle.dumps(token)).profile == "work"
with wandb_cred.session() as session:
    inner = subprocess.check_output(["sh", "-c", "cat $WANDB_CREDENTIALS_FILE"]).decode()
    assert token in inner and session.profile == "work"
try:
    wandb_cred.token("nobody")
except wandb_cred.Error as error:
    assert error.type == "no-such-profile"
assert "exec" in wandb_cred.ray_runtime_env()["py_executable"]
assert wandb_cred.identity_hook().count(".") == 2
"""


@pytest.mark.parametrize("python", interpreters().items(), ids=lambda found: found[0])
def test_the_package_works_on(python, world, sandbox):
    world.configure(sandbox, extra="serve-identity-token = true\n")
    world.python(CODE, interpreter=python[1])
    assert sandbox.exchanges() == 1
