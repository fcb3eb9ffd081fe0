"""Ray's ways to W&B: the callback of Tune, which looks for a key, and `setup_wandb` in a trainable.

ray_tune.py callback|setup
"""

import sys

import ray
from ray import tune
from ray.air.integrations.wandb import WandbLoggerCallback, setup_wandb

way = sys.argv[1]


def train(config):
    run = setup_wandb(config, project="real", entity="team", rank_zero_only=False) if way == "setup" else None
    for row in range(5):
        if run:
            run.log({"row": row})
        tune.report({"row": row})
    if run:
        run.finish()


ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=True)
callbacks = [WandbLoggerCallback(project="real", entity="team", log_config=False)] if way == "callback" else []
results = tune.Tuner(
    train,
    param_space={"lr": tune.grid_search([0.1, 0.2])},
    run_config=tune.RunConfig(callbacks=callbacks, verbose=0),
).fit()
assert not results.errors, results.errors
