import datasets
import tokenizers
import transformers
import trl

words = tokenizers.models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}, unk_token="[UNK]")
plain = tokenizers.Tokenizer(words)
plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=plain, unk_token="[UNK]", pad_token="[PAD]", eos_token="[PAD]"
)
config = transformers.GPT2Config(vocab_size=4, n_positions=16, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1)
trainer = trl.SFTTrainer(
    transformers.GPT2LMHeadModel(config),
    trl.SFTConfig(
        output_dir="out", report_to="wandb", max_steps=4, logging_steps=1, save_strategy="no", use_cpu=True, bf16=False,
        max_length=8,
    ),
    train_dataset=datasets.Dataset.from_list([{"text": "a b a b"}] * 8),
    processing_class=tokenizer,
)
trainer.train()
