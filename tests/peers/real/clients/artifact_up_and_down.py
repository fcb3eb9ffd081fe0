"""An artifact logged by a run, and fetched again by the public API, which finds nothing in a cache.

artifact_up_and_down.py RUN
"""

import os
import pathlib
import subprocess
import sys

NAMES = ("one.txt", "two.txt")


def up(run_id):
    import wandb

    pathlib.Path("data").mkdir(exist_ok=True)
    for name in NAMES:
        pathlib.Path("data", name).write_text(f"{name} of {run_id}\n")
    run = wandb.init(entity="team", project="real", id=run_id)
    artifact = wandb.Artifact("numbers", type="dataset")
    artifact.add_dir("data")
    run.log_artifact(artifact)
    artifact.wait()
    run.finish()


def down(run_id):
    import wandb

    fetched = wandb.Api().artifact("team/real/numbers:latest")
    folder = pathlib.Path(fetched.download(root=f"down-{run_id}"))
    for name in NAMES:
        assert (folder / name).read_text() == f"{name} of {run_id}\n"
    print("the same")


if sys.argv[2:] == ["down"]:
    down(sys.argv[1])
else:
    up(sys.argv[1])
    os.environ["WANDB_CACHE_DIR"] = str(pathlib.Path(f"cache-{sys.argv[1]}").absolute())
    subprocess.run([sys.executable, *sys.argv, "down"], check=True)
