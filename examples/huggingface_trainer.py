"""Dense-Sparse-Dense training in the Hugging Face Trainer: a tiny BERT with random weights learns
to count.

In some seconds you should see the plan, then the share of zero weights and the accuracy after every
epoch: 30 % of the encoder's weights are zero in the sparse phase and none after it. The schedule is
constant, so the rates are the plan's.
"""

import tempfile

import torch
import transformers

import redense
from redense.huggingface import DSDCallback


def sentences(rows, seed):
    """Eight words each, of which word 1 is to be counted: are there more than two?"""
    words = torch.randint(1, 5, (rows, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": int((row == 1).sum() > 2)} for row in words]


class Report(transformers.TrainerCallback):
    def on_evaluate(self, args, state, control, model=None, metrics=None, **kwargs):
        encoder = torch.cat([weight.flatten() for weight in redense.prunable(model).values()])
        zeros, accuracy = (encoder == 0).float().mean(), metrics["eval_accuracy"]
        print(f"after epoch {state.epoch:.0f}: {zeros:4.0%} zeros, accuracy {accuracy:.1%}")


torch.manual_seed(0)
layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
config = transformers.BertConfig(vocab_size=5, hidden_size=16, **layers)
model = transformers.BertForSequenceClassification(config)
plan = redense.dsd(dense=4, sparse=2, redense=2, sparsity=0.3)
print(plan, "\n")
quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none"}
args = transformers.TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    num_train_epochs=len(plan),
    learning_rate=5e-3,
    lr_scheduler_type="constant",
    per_device_train_batch_size=32,
    per_device_eval_batch_size=500,
    eval_strategy="epoch",
    use_cpu=True,
    disable_tqdm=True,
    **quiet,
)
trainer = transformers.Trainer(
    model,
    args,
    train_dataset=sentences(1000, seed=0),
    eval_dataset=sentences(500, seed=1),
    compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())},
    callbacks=[DSDCallback(plan), Report()],
)
trainer.remove_callback(transformers.PrinterCallback)
trainer.train()
