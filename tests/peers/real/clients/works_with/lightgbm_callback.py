import lightgbm
import numpy
import wandb
from wandb.integration.lightgbm import wandb_callback

features = numpy.random.default_rng(1).random((200, 4))
data = lightgbm.Dataset(features, features.sum(axis=1) > 2)
with wandb.init(entity="team", project="real"):
    lightgbm.train(
        {"objective": "binary", "verbose": -1},
        data,
        num_boost_round=5,
        valid_sets=[data],
        callbacks=[wandb_callback()],
    )
