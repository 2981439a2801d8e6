"""The command line: every mistake is one line and leaves nothing behind; every command does what
its help says."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import CLASSES, TINY
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torchvision import models as zoo
from transformers import GPT2Config, GPT2ForSequenceClassification

from redense.cli import COMMANDS, main
from redense.cli.flags import one_line
from redense.recipes import RECIPES
from redense.recipes.images.data import Batches, load
from redense.runs.checkpoints import read
from redense.runs.folder import RunFolder
from redense.runs.inspection import inspect
from redense.runs.record import masks_of

ONCE = ("--dense", "1", "--sparse", "1", "--redense", "1")


@pytest.fixture
def refuse(redense, tmp_path, monkeypatch):
    """Run a command that must fail: one line on stderr, exit code 2, not one file written; that
    line."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # where runs/ would be made

    def run(*arguments):
        before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
        answer = redense(*arguments)
        assert answer.code == 2
        assert answer.out == ""
        assert answer.err.count("\n") == 1
        assert answer.err.startswith("redense: error: ")
        assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return answer.err

    return run


# mistakes in a run's flags


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("--sparsity 1.0", "sparsity must lie in [0, 1), got 1.0; 0.3 removes 30 % of the weights"),
        ("--sparsity -0.1", "sparsity must lie in [0, 1), got -0.1"),
        (
            "--sparsity much",
            "--sparsity: expected a number or several with slashes or commas between, as",
        ),
        (
            "--sparsity [0.5,0.2]",
            "sparsity must be one value or 1 (one per pass), got 2: [0.5, 0.2]",
        ),
        ("--sparsty 0.5", "there is no flag --sparsty; did you mean --sparsity"),
        (
            "--sparsit 0.5",
            "there is no flag --sparsit; did you mean --sparsity",
        ),  # no silent abbreviations
        ("--redense -1", "phase 'redense' would never run: length must be at least 1, got -1"),
        ("--passes 0", "passes must be at least 1, got 0"),
        ("--decay exp", "decay must be one of constant, linear, cosine, step, got 'exp'"),
        (
            "--mask least",
            "mask must be one of magnitude, random, global, got 'least'",
        ),
        ("--model resnet19", "no model is called 'resnet19'; did you mean resnet1"),
        ("--model alexnet", "alexnet takes no images of 8 px"),
        ("--include conv9.*", "include='model.conv9.*' matches no prunable weight; near names: "),
        (
            "--data fashon-mnist",
            "no data set is called 'fashon-mnist'; did you mean fashion-mnist?",
        ),
        (
            "--data no/folder",
            "data 'no/folder': no such folder; it needs train/ with one folder per class",
        ),
        (
            "--data no.csv",
            "data 'no.csv': no such list; it needs the columns path, label and split",
        ),
        ("--batch eight", "--batch: expected a whole number, got 'eight'"),
        ("--batch 0", "batch must be at least 1, got 0"),
        ("--size 8.5", "--size: expected a whole number, got '8.5'"),
        ("--lr 0", "lr must be a finite number above 0, got 0.0"),
        ("--seed -1", "seed must lie in 0 to 4294967295, got -1"),
        ("--devices 0", "devices 0: "),
        ("--devices 2", "several processes must share one run folder; pass --out"),
        ("--accelerator abacus", "accelerator='abacus'"),
        ("--precision 13", "Precision '13' is invalid. Allowed precision values"),
        ("--plan no.toml", "plan 'no.toml': no such file"),
        ("--resume no/run", "no/run is no run folder: it has no config.json"),
        ("stray", "unrecognized arguments: stray"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line_that_says_what_to_do(flags, wanted, refuse, pictures):
    usual = () if flags.startswith("--resume") else ("--data", pictures, "--size", "8")
    line = refuse("train", "images", *usual, *flags.split())
    assert wanted in line


@pytest.mark.parametrize("out", ["/proc/run", "/dev/null/run"])
def test_an_output_folder_that_cannot_be_written_is_named(out, refuse, pictures):
    line = refuse("train", "images", "--data", pictures, *TINY, "--out", out)
    assert f"cannot write a run folder at {out}: " in line
    assert line.endswith("choose another --out\n")


def test_a_folder_that_holds_a_run_is_not_overwritten(refuse, pictures, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    line = refuse("train", "images", "--data", pictures, *TINY, "--out", tmp_path / "run")
    assert f"{tmp_path}/run already holds a run; resume it with --resume" in line


def test_a_damaged_config_is_named(refuse, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"recipe": ')
    line = refuse("train", "images", "--resume", tmp_path / "run")
    assert f"{tmp_path}/run/config.json is not valid JSON" in line
    assert line.endswith("; start the run anew\n")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["trian", "images"], "there is no command 'trian'; did you mean train"),
        (["train", "image"], "there is no recipe 'image'; did you mean images?"),
        (["inspect", "no.pt"], "no.pt: no such file"),
        (["inspect"], "the following arguments are required: file"),
        (["export", "no", "hub"], "no is no run folder: it has no config.json"),
        (["data", "fashon"], "no data set is called 'fashon'; did you mean 'fashion-mnist'?"),
    ],
)
def test_a_mistake_in_a_command_is_one_line(arguments, wanted, refuse):
    assert wanted in refuse(*arguments)


def test_a_mistake_in_a_real_process_is_one_line_too():
    arguments = [sys.executable, "-m", "redense", "train", "images", "--sparsity", "1.0"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    wanted = "phase 'sparse': sparsity must lie in [0, 1), got 1.0; 0.3 removes 30 % of the weights"
    assert done.stderr == f"redense: error: {wanted}\n"


# mistakes in the data


def train_on(data):
    return ("train", "images", "--data", data, *TINY)


def test_a_truncated_image_is_named(refuse, own_pictures):
    file = own_pictures / "val" / "green" / "0001.png"
    file.write_bytes(file.read_bytes()[:100])
    line = refuse(*train_on(own_pictures))
    assert f"{file} is not a whole image" in line
    assert "repair or remove it" in line


def test_a_text_file_called_png_is_named(refuse, own_pictures):
    (own_pictures / "train" / "red" / "note.png").write_text("not an image")
    assert "red/note.png is not a whole image" in refuse(*train_on(own_pictures))


def test_a_class_that_training_does_not_have_is_named(refuse, own_pictures):
    (own_pictures / "val" / "red").rename(own_pictures / "val" / "crimson")
    assert "png is of class 'crimson', which is none of 3 classes (blue, green, red)" in refuse(
        *train_on(own_pictures)
    )


def test_a_missing_part_is_named(refuse, own_pictures):
    (own_pictures / "train").rename(own_pictures / "other")
    assert "has no folder train/, of one folder per class" in refuse(*train_on(own_pictures))


def test_an_empty_part_is_named(refuse, own_pictures):
    for file in (own_pictures / "val").glob("*/*.png"):
        file.unlink()
    assert "pictures/val holds no image; it needs one folder per class" in refuse(
        *train_on(own_pictures)
    )


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (
            ["train/red/0002.png,red,train", "val/red/0002.png,mauve,val"],
            "val/red/0002.png is of class 'mauve', which is none of 1 classes (red)",
        ),
        (
            ["train/red/0002.png,red,train", "val/red/0002.png,red,held"],
            "line 3 is no picture: split cannot be 'held'; each line has a path, a label or none,",
        ),
        (["train/red/0002.png,red"], "line 2 is no picture: split cannot be ''; each line has"),
        ([",red,train"], "line 2 is no picture: path must be text of length >= 1, got ''; each"),
        (
            [
                "train/red/9.png,red,train",
                "train/blue/0000.png,blue,train",
                "val/red/0002.png,red,val",
            ],
            "red/9.png, which list.csv train lists, does",
        ),
        (
            ["train/red/0002.png,red,train"],
            "list.csv has one class only, red; a classifier needs two or more",
        ),
        (["val/red/0002.png,red,val"], "list.csv has no row with split=train"),
    ],
)
def test_a_mistake_in_a_list_is_named(refuse, own_pictures, rows, wanted):
    (own_pictures / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    assert wanted in refuse(*train_on(own_pictures / "list.csv"))


def test_a_list_without_its_header_is_refused(refuse, own_pictures):
    (own_pictures / "list.csv").write_text("train/red/0002.png,red,train\n" * 2)
    assert "needs a header with the columns path, label and split" in refuse(
        *train_on(own_pictures / "list.csv")
    )


# plans from files

YAML = """
phases:
  - {name: warm up, length: 1}
  - {name: sparse, length: 1, sparsity: 0.5, lr: 0.5, mask: random}
  - {name: dense, length: 1, lr: 0.1, decay: cosine}
"""


def test_a_plan_file_is_trained_as_it_stands(redense, pictures, tmp_path):
    (tmp_path / "mine.yaml").write_text(YAML)
    answer = redense(
        *train_on(pictures), "--plan", tmp_path / "mine.yaml", "--out", tmp_path / "run"
    )
    assert answer.code == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["method"] == "mine"
    assert [phase["name"] for phase in record["phases"]] == ["warm up", "sparse", "dense"]
    assert [phase["rate"] for phase in record["phases"]] == pytest.approx([0.1, 0.05, 0.01])
    assert record["phases"][1]["sparsity_measured"] == pytest.approx(0.5, abs=1e-3)
    assert "warm up" in answer.out


BY_PATTERN = """
[[phases]]
name = "sparse 1"
length = 1
sparsity = {"hidden.weight" = 0.5, "features.*" = 0.25, "classifier.weight" = 0}
[[phases]]
name = "redense 1"
length = 1
[[phases]]
name = "sparse 2"
length = 1
sparsity = {"features.*" = 0.2, "*" = 0.4}
[[phases]]
name = "redense 2"
length = 1
"""


def test_a_plan_file_may_give_each_layer_a_sparsity_of_its_own(redense, pictures, tmp_path):
    (tmp_path / "mine.toml").write_text(BY_PATTERN)
    folder = tmp_path / "run"
    answer = redense(*train_on(pictures), "--plan", tmp_path / "mine.toml", "--out", folder)
    assert answer.code == 0, answer.err
    run = RunFolder(folder)
    for phase, shares in (
        ("sparse 1", {"hidden.weight": 0.5, "features.4.weight": 0.25, "features.8.weight": 0.25}),
        ("sparse 2", {"hidden.weight": 0.4, "features.4.weight": 0.2, "classifier.weight": 0.4}),
    ):
        masks = masks_of(read(run.phase_file(phase)))
        for name, share in shares.items():
            mask = masks[f"model.{name}"]
            assert int((~mask).sum()) == round(share * mask.numel()), (phase, name)
    assert "model.classifier.weight" not in masks_of(read(run.phase_file("sparse 1")))
    record = json.loads(run.record.read_text())
    written = {"hidden.weight": 0.5, "features.*": 0.25, "classifier.weight": 0}
    assert record["plan"][0]["sparsity"] == record["phases"][0]["sparsity"] == written
    assert "0-50 %" in answer.out
    assert "sparse 2 holds 20 % of features.*; 40 % of * (the first match counts)" in answer.out
    page = redense("report", run.path, "--out", tmp_path / "page.html")
    assert page.code == 0, page.err
    assert "sparse 2 (1, 20-40 % held)" in (tmp_path / "page.html").read_text()
    assert redense("export", run.path, tmp_path / "export").code == 0
    assert "| sparse 2 | 1 |" in (tmp_path / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        (
            "plan.toml",
            '[[phases]]\nname = "s"\nlength = 1\nsparsity = {"hiden.*" = 0.5}\n',
            "'model.hiden.*' matches no weight; near names: model.hidden.weight",
        ),
        (
            "plan.toml",
            '[[phases]]\nname = "s"\nlength = 1\nsparsity = {hidden = {weight = 0.5}}\n',
            "plan.toml: phase 's': hidden: sparsity must be a number in [0, 1), got {'weight'",
        ),
        ("plan.yaml", "phases:\n- {name: s, length: 1, sparsity: {*: 0.5}}", "not valid YAML: "),
        ("plan.toml", "[[phases]\n", "plan.toml is not valid TOML: "),
        ("plan.yaml", "phases: [a: b: c", "plan.yaml is not valid YAML: "),
        ("plan.toml", "dense = 3\n", "it needs a list called phases, each with"),
        (
            "plan.yaml",
            "phases:\n- {name: dense, len: 1}",
            "plan.yaml: a phase has no field 'len'; it has name, length",
        ),
        ("plan.yaml", "phases:\n- {name: dense}", "plan.yaml: a phase needs a length"),
        (
            "plan.toml",
            '[[phases]]\nname = "s"\nlength = 0\n',
            "plan.toml: phase 's' would never run: length must be at",
        ),
        (
            "plan.yaml",
            "phases:\n- {name: s, length: 1, sparsity: 2}",
            "plan.yaml: phase 's': sparsity must lie in [0, 1)",
        ),
        (
            "plan.yaml",
            "phases:\n- {name: s, length: 1, decay: [1]}",
            "plan.yaml: phase 's': decay must be one of constant, linear, cosine, step, got [1]",
        ),
        (
            "plan.yaml",
            "phases:\n- {name: s, length: 1, sparsity: 0.1, mask: most}",
            "mask must be one of magnitude, random",
        ),
    ],
)
def test_a_mistake_in_a_plan_file_is_named_with_the_file(
    refuse, pictures, tmp_path, name, text, wanted
):
    (tmp_path / name).write_text(text)
    assert wanted in refuse(*train_on(pictures), "--plan", tmp_path / name)


def test_a_plan_file_beside_flags_that_it_would_silence_is_refused(refuse, pictures, tmp_path):
    (tmp_path / "plan.yaml").write_text(YAML)
    line = refuse(
        *train_on(pictures),
        "--plan",
        tmp_path / "plan.yaml",
        "--sparsity",
        "0.3",
        "--redense-lr=0.1",
    )
    assert "--plan says it all; leave out --redense-lr, --sparsity" in line


# help


def test_help_names_every_command(redense):
    answer = redense("--help")
    assert answer.code == 0
    assert all(f"  {command} " in answer.out for command in COMMANDS)
    assert redense().code == 2
    assert redense("--version").out == f"redense {sys.modules['redense'].__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, redense):
    answer = redense(command, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"usage: redense {command} ")
    assert answer.err == ""


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_flag_of_a_recipe_is_explained(recipe, redense):
    answer = redense("train", recipe, "--help")
    assert answer.code == 0
    options = RECIPES[recipe].options_class()
    for name in (
        *options.__dataclass_fields__,
        "dense",
        "sparsity",
        "plan",
        "out",
        "seed",
        "resume",
    ):
        flag = f"--{name.replace('_', '-')} "
        start = answer.out.index(flag, answer.out.index("options:"))
        told = " ".join(answer.out[start : answer.out.find("\n  --", start)].split())
        assert len(told.split()) > 3, told


def test_ctrl_c_before_training_starts_is_no_traceback(redense, pictures, monkeypatch, tmp_path):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("redense.recipes.build_task", interrupted)
    answer = redense(*train_on(pictures), "--out", tmp_path / "run")
    assert (answer.code, answer.out, answer.err) == (130, "", "stopped\n")


# inspect and export


def test_inspect_leaves_out_what_an_optimizer_keeps(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    file = tmp_path / "mine.pt"
    torch.save({"net": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    assert [tensor.name for tensor in inspect(file)] == ["net.weight", "net.bias"]


@pytest.mark.parametrize("form", ["state.pt", "lightning.ckpt", "model.safetensors"])
def test_inspect_counts_zeros_exactly(form, redense, tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        "a.weight": torch.randn(40, 25, generator=generator),
        "b.weight": torch.randn(7, 3, generator=generator),
    }
    state["a.weight"].view(-1)[:123] = 0.0
    state["a.weight"].view(-1)[200:210] = -0.0
    state["half"] = torch.tensor([0.0, 1.0, 0.0], dtype=torch.bfloat16)
    file = tmp_path / form
    if form.endswith("safetensors"):
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form.endswith("ckpt") else state, file)
    assert {t.name: (t.numel, t.zeros) for t in inspect(file)} == {
        "a.weight": (1000, 133),
        "b.weight": (21, 0),
        "half": (3, 2),
    }
    answer = redense("inspect", file)
    assert answer.code == 0
    rows = [[cell for cell in line.split() if cell not in "│┃"] for line in answer.out.splitlines()]
    assert ["a.weight", "40x25", "float32", "1,000", "133", "13.30", "%"] in rows
    assert ["all", "1,024", "135", "13.18", "%"] in rows


def test_inspect_refuses_what_is_no_checkpoint(refuse, tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    no = "is no whole checkpoint of plain tensors"
    assert f"text.pt {no}" in refuse("inspect", tmp_path / "text.pt")
    torch.save({"a": torch.ones(9)}, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:600])
    assert f"cut.pt {no}" in refuse("inspect", tmp_path / "cut.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    assert f"cut.safetensors {no}" in refuse("inspect", tmp_path / "cut.safetensors")
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
    assert f"pickled.pt {no}: it is something else, or holds more than tensors" in refuse(
        "inspect", tmp_path / "pickled.pt"
    )


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """A finished run of a torchvision network."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    flags = (
        "--size",
        "32",
        "--batch",
        "8",
        "--accelerator",
        "cpu",
        "--model",
        "shufflenet_v2_x0_5",
        *ONCE,
    )
    assert main(["train", "images", "--data", str(pictures), *flags, "--out", str(folder)]) == 0
    return folder


def test_inspect_reads_a_run_folder(run, redense):
    answer = redense("inspect", run)
    assert answer.code == 0
    assert "model.conv1.0.weight" in answer.out


@pytest.mark.parametrize("parts", ["one file", "several files"])
def test_inspect_reads_a_hugging_face_folder_and_tells_names_apart(redense, tmp_path, parts):
    sizes = {"n_layer": 3, "n_embd": 8, "n_head": 2, "vocab_size": 9, "n_positions": 8}
    model = GPT2ForSequenceClassification(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[:, ::2] = 0.0
    most = {"max_shard_size": 2000} if parts == "several files" else {}
    model.save_pretrained(tmp_path, **most)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (parts == "several files")
    answer = redense("inspect", tmp_path)
    assert answer.code == 0, answer.err
    rows = {line.split()[0]: line for line in answer.out.splitlines() if "transformer.h." in line}
    assert len(rows) == 3 * 12
    assert "50.00 %" in rows["transformer.h.1.mlp.c_fc.weight"]
    assert " 0.00 %" in rows["transformer.h.2.mlp.c_fc.weight"]


def test_inspect_names_a_folder_without_weights_and_an_index_without_a_map(refuse, tmp_path):
    assert "no model.safetensors or adapter_model.safetensors" in refuse("inspect", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert "model.safetensors.index.json has no weight_map" in refuse("inspect", tmp_path)


def test_an_export_loads_strictly_into_torchvisions_network_and_scores_the_same(
    run, pictures, tmp_path, redense
):
    answer = redense("export", run, tmp_path / "hub")
    assert answer.code == 0
    assert [line.rpartition("/")[2] for line in answer.out.split()] == [
        "model.safetensors",
        "config.json",
        "README.md",
    ]
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["classes"] == list(CLASSES)
    network = zoo.get_model(config["architecture"], num_classes=len(config["classes"]))
    network.load_state_dict(load_file(tmp_path / "hub" / "model.safetensors"), strict=True)
    network.eval()
    data = load(str(pictures), size=config["size"])
    assert (data.mean, data.std) == (tuple(config["mean"]), tuple(config["std"]))
    ((images, labels),) = Batches(data, data.test, 100)
    with torch.no_grad():
        logits = network(images)
    test = json.loads((run / "record.json").read_text())["test"]
    assert test["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)
    assert test["top1"] == pytest.approx(100 * float((logits.argmax(1) == labels).double().mean()))


def test_the_model_card_has_the_runs_numbers(run, tmp_path, redense):
    redense("export", run, tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    record = json.loads((run / "record.json").read_text())
    for phase in record["phases"]:
        assert (
            f"| {phase['name']} | 1 | {phase['rate']:.3g} | {100 * phase['sparsity']:.0f} % |"
            in card
        )
        assert f"{phase['valid']['loss']:.4f} | {phase['valid']['top1']:.2f} |" in card
    assert record["weights_sha256"] in card
    assert record["data"]["sha256"] in card
    assert "shufflenet_v2_x0_5" in card


def test_an_unfinished_run_is_not_exported(refuse, run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "run is not finished, it has no record.json; redense train images --resume" in refuse(
        "export", tmp_path / "run", tmp_path / "hub"
    )


def test_an_export_to_where_nothing_can_be_written_is_refused(refuse, run):
    assert (
        "cannot write an export at /dev/null/hub: Not a directory; choose another folder"
        in refuse("export", run, "/dev/null/hub")
    )


def test_a_word_of_an_error_that_is_far_too_long_is_cut_in_its_middle():
    line = one_line(FileNotFoundError(f"/data/{'x' * 5000}/name.png: no such file"))
    assert line.startswith("/data/xxx")
    assert line.endswith("xxx/name.png: no such file")
    assert len(line) < 300
