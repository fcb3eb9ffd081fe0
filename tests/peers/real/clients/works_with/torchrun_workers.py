import os

import torch.distributed
import wandb

torch.distributed.init_process_group("gloo")
with wandb.init(entity="team", project="real") as run:
    run.log({"rank": int(os.environ["RANK"])})
torch.distributed.destroy_process_group()
