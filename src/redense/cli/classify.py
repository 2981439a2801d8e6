"""``redense classify``: which class pictures are of."""

from __future__ import annotations

import json
import sys

from redense.cli.flags import Parser, add_flag, add_path, one_line, parse


def classify_command(arguments: list[str]) -> int:
    """Say which class pictures are of."""
    parser = Parser("redense classify", "The likeliest classes of your pictures, and their shares.")
    add_path(
        parser,
        "network",
        "a run of images, what redense export made of one, or owner/name on the hub",
    )
    add_path(parser, "pictures", "image files, folders of them, or - for a pipe", nargs="+")
    add_flag(parser, "top", int, 5, "classes per picture", least=1)
    parser.add_argument("--json", action="store_true", help="a line of JSON per picture")
    asked = parse(parser, arguments)
    from redense.files.folders import pictures_of
    from redense.recipes.hub import local
    from redense.recipes.images.use import Classifier
    from redense.recipes.trained import restore

    folder = local(asked.network)
    classifier, bad = Classifier(*restore(folder, "images"), folder), 0
    for picture in pictures_of(asked.pictures):
        try:
            (shares,) = classifier.predict(picture, asked.top)
        except (ValueError, OSError) as error:
            bad += 1
            print(one_line(error), file=sys.stderr)
            continue
        if asked.json:
            print(json.dumps({"picture": str(picture), "classes": shares}), flush=True)
        else:
            listed = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
            print(f"{picture}: {listed}", flush=True)
    return 2 if bad else 0
