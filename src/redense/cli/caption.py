"""``redense caption``: what pictures show."""

from __future__ import annotations

import json
import sys

from redense.cli.flags import Parser, add_flag, add_path, one_line, parse


def caption_command(arguments: list[str]) -> int:
    """Say what pictures show."""
    parser = Parser("redense caption", "Captions for your pictures, from a trained network.")
    add_path(
        parser,
        "network",
        "a run of captions, what redense export made of one, or owner/name on the hub",
    )
    add_path(parser, "images", "image files, folders of them, or - for a pipe", nargs="+")
    add_flag(
        parser,
        "beam",
        int | None,
        None,
        "sentences side by side; default as in the run",
        least=1,
        most=1000,
    )
    add_flag(parser, "cnn_weights", str | None, None, "the CNN's weights; default as in the run")
    parser.add_argument("--json", action="store_true", help="a line of JSON per picture")
    asked = parse(parser, arguments)
    from redense.files.folders import pictures_of
    from redense.recipes.captions.use import caption
    from redense.recipes.hub import local

    network, images, bad = local(asked.network), pictures_of(asked.images), 0
    for image, said in caption(network, images, beam=asked.beam, cnn_weights=asked.cnn_weights):
        if isinstance(said, Exception):
            bad += 1
            print(one_line(said), file=sys.stderr)
        else:
            told = {"picture": str(image), "caption": said}
            print(json.dumps(told) if asked.json else f"{image}: {said}", flush=True)
    return 2 if bad else 0
