"""``redense export``: a run's network for people and other programs."""

from __future__ import annotations

from pathlib import Path

from redense.cli.flags import Parser, add_flag, add_path, choose, parse


def export_command(arguments: list[str]) -> int:
    """Write a run's network as model.safetensors with a model card."""
    parser = Parser(
        "redense export",
        "A plain dense checkpoint and its model card, ready for a model hub (redense push), and "
        "files for other runtimes, each checked against the network.",
    )
    add_path(parser, "run", "a finished run folder")
    add_path(parser, "folder", "where model.safetensors, config.json and README.md go")
    add_flag(
        parser,
        "format",
        str,
        "safetensors",
        "onnx writes model.onnx too, for onnxruntime; pt2 model.pt2, for torch.export.load; "
        "onnx,pt2 both",
    )
    add_flag(
        parser,
        "study",
        Path | None,
        None,
        "whose verdict the card tells; default the study that the run lies in",
    )
    asked = parse(parser, arguments)
    from redense.recipes.export import export
    from redense.recipes.portable import FORMATS

    names = [choose("format", name, ("safetensors", *FORMATS)) for name in asked.format.split(",")]
    formats = [name for name in FORMATS if name in names]
    verdict = _verdict(asked.run, asked.study)
    for file in export(asked.run, asked.folder, formats=formats, verdict=verdict):
        print(file)
    return 0


def _verdict(run: Path, study: Path | None) -> str:
    """What a study says of its methods; empty where the run lies in none, or in one that is not
    done."""
    from redense.study.folder import study_of

    folder = study or study_of(run)
    if folder is None:
        return ""
    from redense.report.page import verdict

    try:
        return verdict(folder)
    except ValueError:
        if study is not None:
            raise
        return ""
