"""A pod from the rendered manifest, with a W&B stand-in on its loopback."""

import pathlib
import shutil
import tempfile

import pytest

import pod
import programs


@pytest.fixture(scope="session")
def image():
    why = pod.missing()
    if why:
        pytest.skip(f"no pod: {why}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wcp-"))
    folder.chmod(0o755)
    try:
        yield pod.Image(folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="wcp-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def wandb(folder):
    with programs.sandbox(folder) as server:
        yield server


@pytest.fixture
def start_pod(image, folder, wandb):
    """Starts the sidecar of a pod, with a projected token."""
    pods = []

    def start(more_config=""):
        started = pod.Pod(image, folder, wandb.url, more_config)
        pods.append(started)
        started.project(wandb.mint())
        started.start_sidecar()
        return started

    yield start
    for started in pods:
        started.stack.close()
