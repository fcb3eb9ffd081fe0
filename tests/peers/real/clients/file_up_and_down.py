"""A file saved by a run, and fetched again by the public API.

file_up_and_down.py RUN
"""

import pathlib
import sys

import wandb

run_id = sys.argv[1]
pathlib.Path("data.txt").write_text("as it was\n")

run = wandb.init(entity="team", project="real", id=run_id)
run.log({"row": 0})
run.save("data.txt", policy="now")
run.finish()

pathlib.Path("down").mkdir(exist_ok=True)
file = wandb.Api().run(f"team/real/{run_id}").file("data.txt")
with file.download(root="down", replace=True) as fetched:
    assert fetched.read() == "as it was\n"
print("the same")
