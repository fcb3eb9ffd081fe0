import stable_baselines3
import wandb
from wandb.integration.sb3 import WandbCallback

with wandb.init(entity="team", project="real", sync_tensorboard=True) as run:
    agent = stable_baselines3.PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, device="cpu", tensorboard_log="tb")
    agent.learn(64, callback=WandbCallback())
