"""lightning_logger.py DEVICES: more than one is DDP, whose first process logs."""

import sys

import lightning
import torch
from lightning.pytorch.loggers import WandbLogger


class Line(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, _):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


devices = int(sys.argv[1])
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(32, 4)), batch_size=4)
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=devices,
    strategy="ddp" if devices > 1 else "auto",
    max_epochs=1,
    log_every_n_steps=1,
    logger=WandbLogger(entity="team", project="real"),
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(Line(), data)
