"""A training script as users have it: init, log, finish.

log_rows.py RUN ROWS [SECONDS_BETWEEN]
"""

import sys
import time

import wandb

run_id, rows = sys.argv[1], int(sys.argv[2])
pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0

run = wandb.init(entity="team", project="real", id=run_id)
for row in range(rows):
    run.log({"row": row, "loss": 1.0 / (row + 1)})
    time.sleep(pause)
run.finish()
