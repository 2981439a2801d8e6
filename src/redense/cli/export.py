"""``redense export``: a run's network for a model hub."""

from __future__ import annotations

from redense.cli.flags import Parser, add_path, parse


def export_command(arguments: list[str]) -> int:
    """Write a run's network as model.safetensors with a model card."""
    parser = Parser(
        "redense export", "A plain dense checkpoint and its model card, ready for a model hub."
    )
    add_path(parser, "run", "a finished run folder")
    add_path(parser, "folder", "where model.safetensors, config.json and README.md go")
    asked = parse(parser, arguments)
    from redense.recipes.export import export

    for file in export(asked.run, asked.folder):
        print(file)
    return 0
