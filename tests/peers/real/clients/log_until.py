"""A long training script: a row each half second until the file STOP appears.

log_until.py RUN STOP

Prints the number of rows.
"""

import pathlib
import sys
import time

import wandb

run_id, stop = sys.argv[1], pathlib.Path(sys.argv[2])

run = wandb.init(entity="team", project="real", id=run_id)
rows = 0
while not stop.exists():
    run.log({"row": rows})
    rows += 1
    time.sleep(0.5)
run.finish()
print(f"rows {rows}")
