import hydra
import wandb


@hydra.main(version_base=None)
def train(config):
    with wandb.init(entity="team", project="real", config={"lr": config.lr}) as run:
        run.log({"loss": config.lr})


train()
