import datasets
import transformers

config = transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
rows = [{"input_ids": list(range(8)), "labels": list(range(8))}] * 8
arguments = transformers.TrainingArguments(
    output_dir="out", report_to="wandb", max_steps=4, logging_steps=1, save_strategy="no", use_cpu=True
)
trainer = transformers.Trainer(
    transformers.GPT2LMHeadModel(config), arguments, train_dataset=datasets.Dataset.from_list(rows)
)
trainer.train()
