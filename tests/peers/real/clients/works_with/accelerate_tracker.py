import accelerate

accelerator = accelerate.Accelerator(cpu=True, log_with="wandb")
accelerator.init_trackers("real", init_kwargs={"wandb": {"entity": "team"}})
for step in range(4):
    accelerator.log({"loss": 1.0 / (step + 1)}, step=step)
accelerator.end_training()
