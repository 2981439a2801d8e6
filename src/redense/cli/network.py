"""``redense inspect``, ``export``, ``eval``, ``transcribe`` and ``caption``: what a trained network
is and says."""

from __future__ import annotations

from pathlib import Path

from redense.cli.flags import make_parser, parse


def inspect_command(arguments: list[str]) -> int:
    """Show how many zeros each tensor of a checkpoint holds."""
    from redense.runs.inspection import inspect, print_inspection

    parser = make_parser(
        "redense inspect", "Zeros per tensor of a .pt, .ckpt or .safetensors file."
    )
    parser.add_argument(
        "file", type=Path, help="the checkpoint, or a run folder for its newest one"
    )
    print_inspection(inspect(parse(parser, arguments).file))
    return 0


def export_command(arguments: list[str]) -> int:
    """Write a run's network as model.safetensors with a model card."""
    from redense.recipes.export import export

    parser = make_parser(
        "redense export", "A plain dense checkpoint and its model card, ready for a model hub."
    )
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument(
        "folder", type=Path, help="where model.safetensors, config.json and README.md go"
    )
    asked = parse(parser, arguments)
    for file in export(asked.run, asked.folder):
        print(file)
    return 0


def eval_command(arguments: list[str]) -> int:
    """Count how many images a network knows."""
    from redense.recipes.images.evaluation import evaluate

    parser = make_parser(
        "redense eval", "Top-1 and top-5 of an image network, a single centre crop an image."
    )
    parser.add_argument(
        "network",
        type=str,
        help="a finished run, an export, a file of weights, or pretrained: torchvision's",
    )
    parser.add_argument(
        "--data",
        type=str,
        required=True,
        help="one folder a class, or a folder with such a val/; Parquet shards, for their "
        "validation images; or a "
        "packaged set (fashion-mnist, emoji-groups), for its test images",
    )
    parser.add_argument(
        "--model", type=str | None, default=None, help="whose weights the file has; resnet50, say"
    )
    parser.add_argument(
        "--size", type=int | None, default=None, help="of the crop; default the run's, else 224"
    )
    parser.add_argument("--batch", type=int, default=64, help="images at a time")
    parser.add_argument(
        "--workers", type=int | None, default=None, help="decoding processes; default one a core"
    )
    parser.add_argument(
        "--device",
        type=str | None,
        default=None,
        help="cpu or cuda; default cuda where there is one",
    )
    print(
        evaluate(
            **{
                name: value
                for name, value in vars(parse(parser, arguments)).items()
                if name != "config"
            }
        )
    )
    return 0


def transcribe_command(arguments: list[str]) -> int:
    """Print what is said in recordings."""
    from redense.recipes.speech.transcribe import transcribe

    parser = make_parser("redense transcribe", "Print what is said in recordings, a line a file.")
    parser.add_argument(
        "model", type=Path, help="a finished run of speech, or what redense export wrote of one"
    )
    parser.add_argument(
        "audio",
        type=Path,
        nargs="+",
        help="wav, flac, ogg, mp3, NIST sphere; any rate and channels",
    )
    parser.add_argument(
        "--lm",
        type=Path | None,
        default=None,
        help="n-gram model (ARPA) for a beam search; else greedy",
    )
    parser.add_argument(
        "--beam", type=int, default=64, help="hypotheses that the beam search keeps"
    )
    parser.add_argument(
        "--lm_weight", type=float, default=1.0, help="of a word's log-probability in --lm"
    )
    parser.add_argument("--word_score", type=float, default=1.0, help="added for each word")
    asked = parse(parser, arguments)
    for file, text in transcribe(
        **{name: value for name, value in vars(asked).items() if name != "config"}
    ):
        print(f"{file}: {text}", flush=True)
    return 0


def caption_command(arguments: list[str]) -> int:
    """Say what pictures show."""
    from redense.recipes.captions.captioner import caption

    parser = make_parser("redense caption", "Captions for your pictures, from a trained network.")
    parser.add_argument(
        "network", type=Path, help="a run of captions, or what redense export made of one"
    )
    parser.add_argument("images", type=Path, nargs="+", help="image files")
    parser.add_argument(
        "--beam",
        type=int | None,
        default=None,
        help="sentences side by side; default as in the run",
    )
    parser.add_argument(
        "--cnn_weights",
        type=str | None,
        default=None,
        help="the CNN's weights; default as in the run",
    )
    asked = parse(parser, arguments)
    said = caption(asked.network, asked.images, beam=asked.beam, cnn_weights=asked.cnn_weights)
    for image, text in zip(asked.images, said, strict=True):
        print(f"{image}: {text}")
    return 0
