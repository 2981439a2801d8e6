"""What `python -m build` makes: a wheel from the sdist, which runs alone in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's files, as pip lays them down, and nothing of the checkout."""
    made, folder = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "build", "--outdir", made, ROOT], check=True)
    (wheel,) = made.glob("redense-*.whl")
    assert list(made.glob("redense-*.tar.gz"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*pip, wheel], check=True)
    return folder


def run(installed, folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_classifies_with_a_shipped_network(installed, tmp_path):
    Image.effect_noise((28, 28), 60).save(tmp_path / "shirt.png")
    model = ROOT / "models" / "fashion-mnist-dsd"
    said = run(installed, tmp_path, "-m", "redense", "classify", model, "shirt.png")
    assert "shirt.png" in said
    where = run(installed, tmp_path, "-c", "import redense; print(redense.__file__)")
    assert where.startswith(str(installed))


THROUGH_ONNX = """
import onnxruntime, redense, sys, torch
network = redense.load(sys.argv[1])
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
(logits,) = session.run(None, {"pixels": network.preprocess("shirt.png").numpy()})
share, place = torch.tensor(logits).softmax(1)[0].max(0)
print(network.classes[place], f"{100 * share:.1f} %")
"""


def test_the_wheel_and_onnx_classify_alike(installed, tmp_path):
    Image.effect_noise((28, 28), 60).save(tmp_path / "shirt.png")
    model = ROOT / "models" / "fashion-mnist-dsd"
    said = run(installed, tmp_path, "-m", "redense", "classify", model, "shirt.png", "--top", "1")
    through = run(installed, tmp_path, "-c", THROUGH_ONNX, str(model))
    assert said.strip() == f"shirt.png: {through.strip()}"


CAPTION_THROUGH_ONNX = """
import numpy as np, onnxruntime, redense
from PIL import Image, ImageDraw
network = redense.load("hub")
cnn = network.predict.__self__.cnn
pixels = np.asarray(Image.open("circle.png").convert("RGB"), np.float32) / 255
pixels = (pixels - np.float32(cnn.mean)) / np.float32(cnn.std)
(features,) = onnxruntime.InferenceSession("hub/cnn.onnx").run(
    None, {"pixels": pixels.transpose(2, 0, 1)[None]}
)
(words,) = onnxruntime.InferenceSession("hub/model.onnx").run(None, {"features": features})
print(" ".join(network.config["vocabulary"][word - 1] for word in words[0] if word))
"""


def test_the_wheel_and_onnx_caption_alike(installed, tmp_path):
    picture = Image.new("RGB", (48, 48), "white")
    ImageDraw.Draw(picture).ellipse((6, 6, 42, 42), fill=(221, 46, 68))
    picture.save(tmp_path / "circle.png")
    model = ROOT / "models" / "emoji-dsd"
    run(installed, tmp_path, "-m", "redense", "export", model, "hub", "--format", "onnx")
    said = run(installed, tmp_path, "-m", "redense", "caption", model, "circle.png", "--beam", "1")
    assert said == f"circle.png: {run(installed, tmp_path, '-c', CAPTION_THROUGH_ONNX)}"
    assert "red" in said


DIGITS_THROUGH_ONNX = """
import onnxruntime, redense, sys, torch
network = redense.load(sys.argv[1])
frames = torch.randn(60, 13, generator=torch.Generator().manual_seed(0))
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
heard = network.preprocess(frames).data
(found,) = session.run(None, {"frames": heard.numpy()})
best = torch.tensor(found)[0].argmax(1).unique_consecutive().tolist()
said = "".join(network.config["alphabet"][symbol - 1] for symbol in best if symbol)
print([" ".join(said.split())] == network.predict(frames), bool(said))
"""


def test_the_wheel_and_onnx_hear_the_same_digits(installed, tmp_path):
    model = ROOT / "models" / "spoken-digits-dsd"
    assert run(installed, tmp_path, "-c", DIGITS_THROUGH_ONNX, str(model)) == "True True\n"


def test_the_wheel_has_what_the_page_needs(installed, tmp_path):
    study = ROOT / "results" / "speech"
    run(installed, tmp_path, "-m", "redense", "report", study, "--out", "page.html")
    assert "Does dense-sparse-dense" in (tmp_path / "page.html").read_text("utf-8")
