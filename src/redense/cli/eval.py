"""``redense eval``: how good a trained network is on any data."""

from __future__ import annotations

import inspect
from pathlib import Path

from redense.cli.beam import add_beam_flags, check_beam_flags
from redense.cli.flags import Parser, add_flag, convert, given, parse


def eval_command(arguments: list[str]) -> int:
    """Score a trained network."""
    parser = Parser(
        "redense eval",
        "Top-1 and top-5 of an image network, a single centre crop per image; error rates of a "
        "speech network, with --lm by a beam search; BLEU and more of a captions' one.",
    )
    parser.add_argument(
        "network",
        type=lambda text: convert(str, text),
        help="a run, an export, owner/name on the hub, or of images a file of weights or "
        "pretrained: torchvision's",
    )
    parser.add_argument(
        "--data",
        type=lambda text: convert(str, text),
        required=True,
        help="what training takes; of images also one folder per class",
    )
    add_flag(parser, "split", str | None, None, "train, valid or test; default test, else valid")
    add_flag(parser, "data_root", str | None, None, "where torchvision's data sets of images lie")
    add_flag(parser, "model", str | None, None, "whose weights the file has; resnet50, say")
    add_flag(
        parser,
        "size",
        int | None,
        None,
        "of the crop; default the run's, else 224",
        least=1,
        most=4096,
    )
    add_flag(parser, "batch", int, 64, "images at a time", least=1)
    processes = "decoding processes; default one per core"
    add_flag(parser, "workers", int | None, None, processes, least=0, most=1024)
    add_flag(parser, "device", str | None, None, "cpu or cuda; default cuda where there is one")
    add_beam_flags(parser)
    asked = parse(parser, arguments)
    check_beam_flags(arguments)
    from redense.recipes import RECIPES
    from redense.recipes.hub import local
    from redense.recipes.trained import recipe_of

    asked.network = str(local(asked.network))
    recipe = recipe_of(Path(asked.network)) if Path(asked.network).is_dir() else "images"
    evaluate = RECIPES[recipe].evaluation()
    flags = given(arguments) | {"network"}
    if strange := sorted(flags - inspect.signature(evaluate).parameters.keys()):
        raise ValueError(f"--{strange[0]} says nothing to a network of {recipe}; leave it out")
    print(evaluate(**{name: value for name, value in vars(asked).items() if name in flags}))
    return 0
