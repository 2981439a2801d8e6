"""``redense caption``: what pictures show."""

from __future__ import annotations

from redense.cli.flags import Parser, add_flag, add_path, parse


def caption_command(arguments: list[str]) -> int:
    """Say what pictures show."""
    parser = Parser("redense caption", "Captions for your pictures, from a trained network.")
    add_path(
        parser,
        "network",
        "a run of captions, what redense export made of one, or owner/name on the hub",
    )
    add_path(parser, "images", "image files", nargs="+")
    add_flag(parser, "beam", int | None, None, "sentences side by side; default as in the run")
    add_flag(parser, "cnn_weights", str | None, None, "the CNN's weights; default as in the run")
    asked = parse(parser, arguments)
    from redense.recipes.captions.use import caption
    from redense.recipes.hub import local

    said = caption(
        local(asked.network), asked.images, beam=asked.beam, cnn_weights=asked.cnn_weights
    )
    for image, text in zip(asked.images, said, strict=True):
        print(f"{image}: {text}")
    return 0
