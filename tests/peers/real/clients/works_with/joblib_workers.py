import joblib
import wandb


def train(number):
    with wandb.init(entity="team", project="real") as run:
        run.log({"number": number})


joblib.Parallel(n_jobs=2)(joblib.delayed(train)(number) for number in range(2))
