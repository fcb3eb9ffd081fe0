import datasets
import tokenizers
import transformers
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import CoSENTLoss
from sentence_transformers.models import Pooling, Transformer

words = tokenizers.models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}, unk_token="[UNK]")
plain = tokenizers.Tokenizer(words)
plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", pad_token="[PAD]")
config = transformers.BertConfig(
    vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
)
transformers.BertModel(config).save_pretrained("tiny")
tokenizer.save_pretrained("tiny")
body = Transformer("tiny", max_seq_length=8)
model = SentenceTransformer(modules=[body, Pooling(8)], device="cpu")
rows = [{"sentence1": "a b", "sentence2": "b a", "score": 1.0}] * 8
trainer = SentenceTransformerTrainer(
    model,
    SentenceTransformerTrainingArguments(
        output_dir="out", report_to="wandb", max_steps=4, logging_steps=1, save_strategy="no", use_cpu=True
    ),
    train_dataset=datasets.Dataset.from_list(rows),
    loss=CoSENTLoss(model),
)
trainer.train()
