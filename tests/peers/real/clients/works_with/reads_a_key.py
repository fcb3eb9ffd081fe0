"""Programs that look for a key before they start."""

import os
import sys

import wandb

key = {"api": lambda: wandb.api.api_key, "environment": lambda: os.environ.get("WANDB_API_KEY")}[sys.argv[1]]()
if not key:
    sys.exit("set WANDB_API_KEY first")
with wandb.init(entity="team", project="real") as run:
    run.log({"loss": 1.0})
