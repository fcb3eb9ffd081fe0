import wandb

with wandb.init(entity="team", project="real") as run:
    run.log({"loss": 1.0})
