"""Does dense-sparse-dense help a Hugging Face training? Its own loop, checkpoints and resume; a
study of 3 methods and 7 seeds, in some minutes.

You should see a table with a row per method, then the verdict, and that a loop of its own shares no
epochs between methods.
"""

import torch
import transformers

import redense
from redense.huggingface import DSDCallback, last_checkpoint


def sentences(rows, seed):
    """Eight words each, of which word 1 is to be counted: are there more than two?"""
    words = torch.randint(1, 5, (rows, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": int((row == 1).sum() > 2)} for row in words]


def train(run):
    transformers.set_seed(run.seed)
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=5, hidden_size=16, **size)
    args = transformers.TrainingArguments(
        output_dir=str(run.folder / "huggingface"),
        num_train_epochs=len(run.plan),
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=32,
        seed=run.seed,
        save_strategy="epoch",
        save_total_limit=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        transformers.BertForSequenceClassification(config),
        args,
        train_dataset=sentences(320, seed=0),
        eval_dataset=sentences(500, seed=1),
        callbacks=[DSDCallback(run.plan)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(args.output_dir))
    answers = trainer.predict(trainer.eval_dataset)
    right = answers.predictions.argmax(1) == answers.label_ids
    return {"valid": {"accuracy": 100 * right.mean()}}


if __name__ == "__main__":
    plan = redense.dsd(dense=4, sparse=2, redense=2, sparsity=0.3)
    methods = ("dense", "lower_lr", "dsd")
    print(redense.prove(train, plan, seeds=7, methods=methods, out="runs/prove-huggingface"))
