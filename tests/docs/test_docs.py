"""What the documents say works: README's code blocks and the examples in docstrings are run.

Python blocks run in order in one namespace that has tiny stand-ins for the reader's own model and
data. Shell lines run in order in one folder: `redense train images` on tiny pictures with the small
network, `inspect`, `export` and `report` as they stand; the flags of every other redense command
are looked up in its help, targets of `make` in the Makefile, extras of `pip install` in
pyproject.toml. A toml or yaml block is the file plan.toml or plan.yaml of these lines.
"""

import doctest
import importlib
import pkgutil
import re
import shlex
import tomllib
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch import nn
from torch.nn import functional as F

import redense as package

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [text for found, text in BLOCKS if found == language]


class Rows(torch.utils.data.Dataset):
    """Twenty points in two classes, as a Lightning module and as the Hugging Face Trainer want
    them."""

    def __init__(self):
        self.x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 20

    def __getitem__(self, row):
        return {"x": self.x[row], "labels": int(self.x[row, 0] > 0)}


def stand_ins():
    """What the documents leave to their reader, in small."""
    import lightning
    import transformers

    import redense.huggingface
    import redense.lightning

    class Network(nn.Sequential):
        def forward(self, x, labels=None):
            logits = super().forward(x)
            return (
                logits
                if labels is None
                else {"loss": F.cross_entropy(logits, labels), "logits": logits}
            )

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Network(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 2))

        def training_step(self, batch, index):
            return self.model(**batch)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    layers = OrderedDict(layer1=nn.Linear(6, 10), relu=nn.ReLU(), layer2=nn.Linear(10, 2))
    model, module, data = Network(layers), Module(), Rows()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train_one_epoch(model, optimizer):
        optimizer.zero_grad()
        model(data.x, (data.x[:, 0] > 0).long())["loss"].backward()
        optimizer.step()

    def train(epochs, lr=0.1):
        for _ in range(epochs):
            train_one_epoch(model, optimizer)

    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    return {
        "redense": package,
        "torch": torch,
        "lightning": lightning,
        "Trainer": lambda *args, **named: lightning.Trainer(
            *args, **quiet, enable_model_summary=False, **named
        ),
        "DSDCallback": redense.lightning.DSDCallback,
        "transformers": transformers,
        "TrainingArguments": lambda *args, **named: transformers.TrainingArguments(
            *args,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            **named,
        ),
        "model": model,
        "module": module,
        "optimizer": optimizer,
        "data": data,
        "loader": torch.utils.data.DataLoader(data, batch_size=10),
        "plan": package.dsd(dense=2, sparse=1, redense=1, sparsity=0.3),
        "train": train,
        "train_one_epoch": train_one_epoch,
        "save": lambda *states: None,
    }


@pytest.fixture
def quiet():
    """Lightning's and Transformers' advice on loaders and loggers is no concern of a document."""
    with warnings.catch_warnings():
        for module in ("lightning", "transformers", "torch"):
            warnings.filterwarnings("ignore", module=module)
        yield


def test_readmes_python_blocks_run_in_order(tmp_path, monkeypatch, quiet):
    monkeypatch.chdir(tmp_path)
    space = stand_ins()
    assert len(blocks("python")) >= 3
    for number, text in enumerate(blocks("python"), start=1):
        exec(compile(text, f"README.md, python block {number}", "exec"), space)
    assert not any(
        parameter._post_accumulate_grad_hooks for parameter in space["model"].parameters()
    )


def lines():
    """README's shell lines, without comments, long ones joined."""
    for text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def test_readmes_shell_lines_run(tmp_path, monkeypatch, pictures, redense):
    monkeypatch.chdir(tmp_path)
    for ending in ("toml", "yaml"):
        for text in blocks(ending):
            (tmp_path / f"plan.{ending}").write_text(text)
    tiny = ("--data", pictures, "--model", "small", *TINY)
    lengths = ("--dense", "1", "--sparse", "1", "--redense", "1")
    ran = set()
    for words in lines():
        if words[0] != "redense":
            continue
        if words[1:3] == ["train", "images"] and "--resume" not in words:
            words = [*words, *tiny, *(() if "--plan" in words else lengths)]
        elif words[1] not in ("inspect", "export", "report") and "--resume" not in words:
            check_flags(words, redense)
            continue
        answer = redense(*words[1:])
        assert answer.code == 0, (words, answer.err)
        ran.add(words[1])
    assert ran == {"train", "inspect", "export", "report"}
    assert (tmp_path / "runs" / "images-1" / "record.json").exists()


def check_flags(words, redense):
    command = [word for word in words[1:3] if not word.startswith("-")]
    answer = redense(*command[: 2 if command[0] in ("train", "study") else 1], "--help")
    assert answer.code == 0, words
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f"{flag} " in answer.out, (words, flag)


def test_readmes_other_shell_lines_name_what_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    for words in lines():
        if words[0] == "make":
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:]), (
                words
            )
        elif words[0].endswith("pip"):
            asked = [
                name
                for found in re.findall(r"\[([\w,]+)\]", " ".join(words))
                for name in found.split(",")
            ]
            assert set(asked) <= extras.keys(), words
            assert "constraints.txt" not in words or (ROOT / "constraints.txt").exists()
        else:
            assert words[0] in ("redense", "git", "cd", ".venv/bin/redense", "torchrun"), words


def test_readmes_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert not [link for link in links if not (ROOT / link).exists()]


def documented():
    """Every module and docstring of the package that has an example."""
    for found in pkgutil.walk_packages(package.__path__, "redense."):
        if not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            tests = doctest.DocTestFinder(exclude_empty=True).find(module, found.name)
            yield from ((module, test) for test in tests if test.examples)


def test_docstring_examples_run(tmp_path, monkeypatch, quiet, pictures, redense):
    monkeypatch.chdir(tmp_path)
    lengths = ("--dense", "1", "--sparse", "1", "--redense", "1")
    assert redense("train", "images", "--data", pictures, *TINY, *lengths, "--out", "run").code == 0
    assert redense("export", "run", "hub").code == 0
    ran = []
    for module, test in documented():
        space = stand_ins() | vars(module) | {"redense": package}
        if module.__name__ == "redense.huggingface":
            space |= {
                "TrainingArguments": stand_ins()["TrainingArguments"],
                "Trainer": space["transformers"].Trainer,
            }
        for example in test.examples:  # without a printed answer it is enough that it runs
            code = example.source.rstrip()
            if example.want:
                assert repr(eval(code, space)) == example.want.rstrip(), test.name
            else:
                exec(code, space)
        ran.append(test.name)
    assert len(ran) >= 10
