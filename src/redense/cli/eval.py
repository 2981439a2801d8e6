"""``redense eval``: how many images a network knows."""

from __future__ import annotations

from redense.cli.flags import Parser, add_flag, convert, parse


def eval_command(arguments: list[str]) -> int:
    """Count how many images a network knows."""
    parser = Parser(
        "redense eval", "Top-1 and top-5 of an image network, a single centre crop per image."
    )
    parser.add_argument(
        "network",
        type=lambda text: convert(str, text),
        help="a finished run, an export, a file of weights, or pretrained: torchvision's",
    )
    parser.add_argument(
        "--data",
        type=lambda text: convert(str, text),
        required=True,
        help="one folder per class, or a folder with such a val/; Parquet shards, for their "
        "validation images; or a packaged set (fashion-mnist, emoji-groups), for its test images",
    )
    add_flag(parser, "model", str | None, None, "whose weights the file has; resnet50, say")
    add_flag(parser, "size", int | None, None, "of the crop; default the run's, else 224")
    add_flag(parser, "batch", int, 64, "images at a time")
    add_flag(parser, "workers", int | None, None, "decoding processes; default one per core")
    add_flag(parser, "device", str | None, None, "cpu or cuda; default cuda where there is one")
    asked = parse(parser, arguments)
    from redense.recipes.images.evaluation import evaluate

    print(evaluate(**vars(asked)))
    return 0
