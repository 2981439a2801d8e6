"""The door to weights: what is read, and that what cannot be is named."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from redense.files.weights import BadWeightsError, load_exactly, read_weights

STATE = {"layer.weight": torch.arange(6.0).view(2, 3), "layer.bias": torch.ones(2)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1\n"


def test_the_networks_tensors_are_read_of_every_kind_of_file(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    save_file(STATE, tmp_path / "renamed.bin")
    torch.save(STATE, tmp_path / "state.pt")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    lightning = {"state_dict": STATE, "epoch": 3, "optimizers": [{"step": torch.ones(1)}]}
    torch.save(lightning, tmp_path / "lightning.ckpt")
    torch.save({"model": {"state_dict": STATE}, "loss": torch.ones(1)}, tmp_path / "timm.pt")
    torch.save(
        {"layer": {"weight": STATE["layer.weight"], "bias": STATE["layer.bias"]}},
        tmp_path / "nested.pt",
    )
    files = sorted(tmp_path.iterdir())
    assert len(files) == 7
    for file in files:
        weights = read_weights(file)
        assert set(weights) == set(STATE), file
        assert all(torch.equal(weights[name], STATE[name]) for name in STATE), file


def damaged(folder):
    """Files as half a clone, a full disk or a mistake leave them."""
    save_file(STATE, folder / "whole.safetensors")
    torch.save(STATE, folder / "whole.pt")
    whole, archive = (folder / "whole.safetensors").read_bytes(), (folder / "whole.pt").read_bytes()
    flipped = bytearray(archive)
    flipped[archive.index(STATE["layer.weight"].numpy().tobytes())] ^= 1
    torch.save(nn.Linear(2, 2), folder / "module.pt")
    return {
        "pointer.safetensors": (POINTER, "git lfs pull"),
        "pointer.pt": (POINTER, "git lfs pull"),
        "empty.safetensors": (b"", "it is empty"),
        "empty.ckpt": (b"", "it is empty"),
        "header.safetensors": (whole[:20], "cut off"),
        "cut.safetensors": (whole[:-8], "cut off"),
        "page.safetensors": (b"<!doctype html><html>not found</html>", "cut off"),
        "cut.pt": (archive[:600], "checkpoint"),
        "flipped.pt": (bytes(flipped), "checksum"),
        "text.pt": (b"no checkpoint at all", "something else"),
        "module.pt": ((folder / "module.pt").read_bytes(), "more than tensors"),
    }


def test_what_holds_no_whole_weights_is_named_in_one_line(tmp_path):
    for name, (content, why) in damaged(tmp_path).items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(BadWeightsError) as told:
            read_weights(file)
        assert str(told.value).startswith(f"{file} is no whole checkpoint of plain tensors: ")
        assert why in str(told.value), (name, told.value)
        assert "\n" not in str(told.value)


def test_a_file_without_tensors_and_no_file_are_told_apart(tmp_path):
    torch.save({"epoch": 3, "list": [1, 2]}, tmp_path / "numbers.pt")
    with pytest.raises(BadWeightsError, match=r"numbers.pt .* holds no tensors by name"):
        read_weights(tmp_path / "numbers.pt")
    with pytest.raises(FileNotFoundError, match=r"none.pt: no such file"):
        read_weights(tmp_path / "none.pt")


def test_weights_under_a_wrappers_prefix_fit(tmp_path):
    network = nn.Sequential(nn.Linear(3, 2))
    wrapped = {"module.0.weight": STATE["layer.weight"], "module.0.bias": STATE["layer.bias"]}
    load_exactly(network, wrapped, "x.pt", "two")
    assert torch.equal(network[0].weight, STATE["layer.weight"])
    with pytest.raises(ValueError, match=r"x.pt does not fit two .* 1 missing: 0.bias"):
        load_exactly(network, {"0.weight": STATE["layer.weight"]}, "x.pt", "two")
