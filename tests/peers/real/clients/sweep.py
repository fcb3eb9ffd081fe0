"""A sweep and its agent, in one process: as many runs as the server asks for.

sweep.py
"""

import wandb


def train():
    run = wandb.init()
    for row in range(5):
        run.log({"row": row, "lr": run.config["lr"]})
    run.finish()


config = {"method": "grid", "parameters": {"lr": {"values": [0, 1]}}}
sweep = wandb.sweep(config, entity="team", project="real")
wandb.agent(sweep, function=train, entity="team", project="real", count=2)
