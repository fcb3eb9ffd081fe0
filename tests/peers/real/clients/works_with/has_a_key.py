"""A key in the program or its .env file."""

import os

import wandb

os.environ["WANDB_API_KEY"] = "0123456789abcdef0123456789abcdef01234567"
with wandb.init(entity="team", project="real") as run:
    run.log({"loss": 1.0})
