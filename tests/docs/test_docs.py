"""What the documents say works: the code blocks of README and of the site's pages, and the examples
in docstrings, are run.

A page's Python blocks run in order in one namespace that has tiny stand-ins for the reader's own
model and data. Its lines of redense run in order in one folder, exactly as they are printed, on
small data of the names that they use; a study is stopped by Ctrl-C in its first run. Targets of
`make` are looked up in the Makefile, extras of `pip install` in pyproject.toml. A toml or yaml
block is the file plan.toml or plan.yaml of these lines.
"""

import doctest
import importlib
import pkgutil
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections import OrderedDict
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from conftest import CLASSES, MINE, TINY, torchrun, write_pictures
from PIL import Image
from pyarrow import parquet
from torch import nn
from torch.nn import functional as F

import redense as package

ROOT = Path(__file__).parents[2]
PAGES = {
    path.name: path.read_text("utf-8")
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
}
BLOCKS = {
    name: re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for name, text in PAGES.items()
}


def blocks(page, language):
    return [text for written, text in BLOCKS[page] if written == language]


def pages_with(language):
    return [page for page in sorted(PAGES) if blocks(page, language)]


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

    def build(seed):
        torch.manual_seed(seed)
        network = Network(OrderedDict(layer1=nn.Linear(6, 10), layer2=nn.Linear(10, 2)))
        return network, torch.optim.SGD(network.parameters(), lr=0.1)

    def accuracy(model):
        return (model(data.x).argmax(1) == (data.x[:, 0] > 0).long()).float().mean()

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
        "build": build,
        "accuracy": accuracy,
    }


@pytest.fixture
def quiet():
    """Lightning's and Transformers' advice on loaders and loggers is no concern of a document."""
    with warnings.catch_warnings():
        for module in ("lightning", "transformers", "torch"):
            warnings.filterwarnings("ignore", module=module)
        yield


@pytest.mark.parametrize("page", pages_with("python"))
def test_a_pages_python_blocks_run_in_order(page, tmp_path, monkeypatch, quiet):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    Image.effect_noise((28, 28), 60).save("shirt.png")
    space = stand_ins()
    for number, text in enumerate(blocks(page, "python"), start=1):
        exec(compile(text, f"{page}, python block {number}", "exec"), space)
    assert not any(
        parameter._post_accumulate_grad_hooks for parameter in space["model"].parameters()
    )


def lines(page):
    """Its shell lines, without comments, long ones joined."""
    for text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


@pytest.fixture
def desk(page, tmp_path, monkeypatch, stripes, hub):
    """The folder that a page's reader stands in: plan files and data of the names that it prints.
    What redense would fetch lies prepared, in small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDENSE_DATA", str(stripes))
    (stripes / "amazon-queen").mkdir(exist_ok=True)
    for ending in ("toml", "yaml"):
        for text in blocks(page, ending):
            (tmp_path / f"plan.{ending}").write_text(text)
    write_pictures(tmp_path / "my-pictures", side=64)
    (tmp_path / "mine.py").write_text(MINE)
    shards = tmp_path / "imagenet-1k"
    shards.mkdir()
    for part, many in (("train", 4), ("validation", 2)):
        files = sorted((tmp_path / "my-pictures" / "train").glob("*/*.png"))[:: 24 // many]
        table = pa.table(
            {
                "image": [{"bytes": file.read_bytes(), "path": None} for file in files[:many]],
                "label": [CLASSES.index(file.parent.name) for file in files[:many]],
            }
        )
        parquet.write_table(table, shards / f"{part}-00000-of-00001.parquet")
    (shards / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return tmp_path


@pytest.mark.parametrize("page", pages_with("sh"))
def test_a_pages_commands_run_as_they_are_printed(page, desk, redense):
    for words in lines(page):
        if words[0] == "torchrun":
            program = words[words.index("-m") + 1 :]
            assert torchrun(int(words[2]), "-m", *program)
        elif words[0] == "cp":
            subprocess.run(words, check=True)
        elif words[0] == "redense" and words[1:3] == ["prove", "images"]:
            start_and_stop(words)
        elif words[0] == "redense":
            answer = redense(*words[1:])
            assert answer.code == 0, (words, answer.err)
            assert answer.out, words


def start_and_stop(words):
    """A study takes minutes even of a few pictures: it is stopped by Ctrl-C in its first run."""
    with subprocess.Popen(
        [sys.executable, "-m", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not list(
            Path("runs").glob("prove-*/*/checkpoints/epoch*")
        ):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "nothing is lost: the same command goes on" in err


@pytest.mark.parametrize("page", pages_with("sh"))
def test_other_shell_lines_name_what_exists(page):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    for words in lines(page):
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
            assert words[0] in ("redense", "git", "cd", "cp", "torchrun"), words


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_to_files(page):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    links = re.findall(r"\]\(([^)#]+)\)", PAGES[page])
    assert not [link for link in links if "://" not in link and not (folder / link).exists()]


def test_the_site_shows_every_public_name():
    """Strictly built: a broken link or anchor ends it."""
    shown = re.findall(r"^::: ([\w.]+)$", PAGES["api.md"], re.MULTILINE)
    names = {name.rpartition(".")[2] for name in shown}
    assert names >= {*package.__all__, "load"}
    for name in shown:
        module, _, last = name.rpartition(".")
        assert getattr(importlib.import_module(module), last).__doc__, name


def documented():
    """Every module and docstring of the package that has an example."""
    for found in pkgutil.walk_packages(package.__path__, "redense."):
        if not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            tests = doctest.DocTestFinder(exclude_empty=True).find(module, found.name)
            yield from ((module, test) for test in tests if test.examples)


def test_docstring_examples_run(tmp_path, monkeypatch, quiet, pictures, redense, hub):
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
            if example.exc_msg:
                with pytest.raises(
                    Exception, match=re.escape(example.exc_msg.partition(": ")[2].strip())
                ):
                    exec(code, space)
            elif example.want:
                assert repr(eval(code, space)) == example.want.rstrip(), test.name
            else:
                exec(code, space)
        ran.append(test.name)
    assert len(ran) >= 10
