"""The door to weights: whatever is wrong with a file, its name is said."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import redense as package
from redense.files.weights import load_exactly, read_weights

DAMAGED = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n",
        "only points to the weights; git lfs pull fetches them",
    ),
    "cut off": (b'\x10\x27\0\0\0\0\0\0{"a":', "is no whole checkpoint"),
    "empty": (b"", "is no whole checkpoint"),
    "text": (b"<html>Sign in</html>", "is no whole checkpoint"),
}
IMAGES = {
    "recipe": "images",
    "architecture": "small",
    "classes": ["a", "b"],
    "channels": 3,
    "size": 8,
    "resize": 8,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}
CAPTIONS = {
    "recipe": "captions",
    "architecture": "neuraltalk",
    "vocabulary": ["a", "cat"],
    "features": 8,
    "hidden": 4,
    "cnn": {"name": "words", "weights": "", "size": 48},
    "beam": 1,
    "length_penalty": 0.0,
    "most_words": 5,
}


@pytest.mark.parametrize("ending", ["safetensors", "pt", "ckpt"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named(tmp_path, ending, damage):
    content, message = DAMAGED[damage]
    file = tmp_path / f"model.{ending}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} {message}"):
        read_weights(file)


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("config", [IMAGES, CAPTIONS])
def test_an_export_that_is_not_whole_is_named_by_whoever_opens_it(
    tmp_path, damage, config, redense
):
    content, message = DAMAGED[damage]
    hub, picture = tmp_path / "hub", tmp_path / "pictures/a/0.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(picture)
    hub.mkdir()
    (hub / "config.json").write_text(json.dumps(config))
    (hub / "model.safetensors").write_bytes(content)
    if config is IMAGES:
        answer = redense("eval", hub, "--data", tmp_path / "pictures", "--workers", 0)
    else:
        answer = redense("caption", hub, picture)
    assert answer.code == 2
    assert f"{hub}/model.safetensors {message}" in answer.err
    with pytest.raises(ValueError, match=rf"model\.safetensors {message}"):
        package.load(hub)


def test_a_list_of_tensors_has_no_names(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds no tensors by name"):
        read_weights(tmp_path / "a.pt")


def test_a_wrapper_s_prefix_is_no_part_of_a_key(tmp_path):
    network = torch.nn.Linear(2, 2)
    state = {f"module.{key}": value + 1 for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    load_exactly(network, read_weights(tmp_path / "a.safetensors"), "a", "linear")
    assert torch.equal(network.weight, state["module.weight"])
