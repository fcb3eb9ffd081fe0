import numpy
import wandb
import xgboost
from wandb.integration.xgboost import WandbCallback

features = numpy.random.default_rng(1).random((200, 4))
labels = features.sum(axis=1) > 2
with wandb.init(entity="team", project="real"):
    model = xgboost.XGBClassifier(n_estimators=5, callbacks=[WandbCallback(log_feature_importance=False)])
    model.fit(features, labels, eval_set=[(features, labels)], verbose=False)
