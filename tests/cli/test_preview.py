"""``redense preview``: the table of what may be held, of a model by name or folder."""

import pytest
from transformers import GPT2Config, GPT2ForSequenceClassification

import redense
from redense.cli import main


def preview(capsys, *arguments):
    code = main(["preview", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_model_of_torchvision_or_timm_by_name(capsys):
    code, out, _ = preview(capsys, "resnet18")
    assert code == 0
    assert "ResNet: 11,669,504 of 11,689,512 weights may be held" in out
    assert any("conv1.weight" in row and "the first convolution" in row for row in out.split("\n"))
    code, out, _ = preview(capsys, "timm:vit_tiny_patch16_224", "--exclude", "head.*")
    assert code == 0
    assert any("head.weight" in row and "excluded" in row for row in out.split("\n"))


def test_a_hugging_face_folder_is_built_as_its_own_class(capsys, tmp_path):
    config = GPT2Config(
        n_layer=2,
        n_embd=8,
        n_head=2,
        vocab_size=9,
        n_positions=8,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    code, out, _ = preview(capsys, tmp_path)
    assert code == 0
    assert "GPT2ForSequenceClassification: " in out
    assert "Conv1D" in out


def test_a_plan_file_adds_what_its_phases_hold_of_each_weight(capsys, tmp_path):
    plan, wrong = tmp_path / "plan.toml", tmp_path / "wrong.toml"
    plan.write_text(redense.dsd(2, 1, 1, {"layer4.*": 0.5, "fc.weight": 0.25}).to_toml())
    code, out, _ = preview(capsys, "resnet18", "--plan", plan)
    assert code == 0
    row = next(line for line in out.splitlines() if " fc.weight " in line)
    assert "25 %" in row
    assert "sparse holds 50 % of layer4.*; 25 % of fc.weight" in out
    plan.write_text(redense.dsd(2, 1, 1, 0.3, passes=2).to_toml())
    lines = preview(capsys, "resnet18", "--plan", plan)[1].splitlines()
    assert lines[0].split()[-4:] == ["sparse", "1", "why", "not"]  # both passes hold the same
    assert next(line for line in lines if " fc.weight " in line).endswith(" 30 %")
    wrong.write_text(redense.dsd(2, 1, 1, {"layer5.*": 0.5}).to_toml())
    code, out, err = preview(capsys, "resnet18", "--plan", wrong)
    assert (code, out) == (2, "")
    assert "'layer5.*' matches no weight; near names: layer" in err


@pytest.mark.parametrize("name", ["resnet19", "timm:resnet19"])
def test_a_name_that_nobody_knows_is_one_line(capsys, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = preview(capsys, name)
    assert code == 2
    assert "there is no model 'resnet19': " in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_of_tensors_says_what_is_missing(capsys, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    code, _, err = preview(capsys, tmp_path / "weights.pt")
    assert code == 2
    assert "holds tensors but no layers" in err
