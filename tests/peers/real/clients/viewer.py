"""Who the public API says we are."""

import wandb

print(wandb.Api().viewer.email)
