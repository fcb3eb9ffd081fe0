import optuna
from optuna_integration import WeightsAndBiasesCallback

callback = WeightsAndBiasesCallback(wandb_kwargs={"entity": "team", "project": "real"}, as_multirun=True)


@callback.track_in_wandb()
def objective(trial):
    return trial.suggest_float("x", -1, 1) ** 2


optuna.create_study().optimize(objective, n_trials=2, callbacks=[callback])
