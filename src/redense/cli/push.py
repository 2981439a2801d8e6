"""``redense push``: an exported network to Hugging Face's hub."""

from __future__ import annotations

from redense.cli.flags import Parser, add_path, parse


def push_command(arguments: list[str]) -> int:
    """Share an exported network."""
    parser = Parser(
        "redense push",
        "Upload what redense export wrote to Hugging Face's hub; redense.load('owner/name') and "
        "the commands that take a network have it from there.",
    )
    add_path(parser, "folder", "what redense export wrote")
    parser.add_argument("name", help="owner/name on the hub; hf auth login says who you are")
    parser.add_argument("--private", action="store_true", help="a new model that you alone see")
    asked = parse(parser, arguments)
    from redense.recipes.push import push

    print(push(asked.folder, asked.name, private=asked.private))
    return 0
