import keras
import numpy
import wandb
from wandb.integration.keras import WandbMetricsLogger

features = numpy.random.default_rng(1).random((64, 4))
model = keras.Sequential([keras.layers.Dense(1)])
model.compile(loss="mse")
with wandb.init(entity="team", project="real"):
    model.fit(features, features.sum(axis=1), epochs=2, verbose=0, callbacks=[WandbMetricsLogger(log_freq=1)])
