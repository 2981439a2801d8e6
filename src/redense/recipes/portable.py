"""A trained network for other runtimes: ONNX, and PyTorch's own exported programs. Each file is
asked once what the network itself is asked, and must give the same answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redense.runs.checkpoints import write_whole

FORMATS = {"onnx": ".onnx", "pt2": ".pt2"}
"""How each is called, and how its file's name ends; a ``.pt2`` is what `torch.export.save` writes.
"""

_CLOSE = 1e-3
"""Of the largest answer: what float32 may differ by, summed in another order."""


@dataclass(frozen=True)
class Portable:
    """A network, or a part of one, as a function of one tensor.

    Args:
        name: of its file, without an ending.
        module: maps a tensor like ``examples`` to a tensor, without what other runtimes lack.
        answer: what the trained network itself gives for the same.
        examples: inputs that differ in the sizes that may differ.
        moving: the dimensions of the input that may have any size, with their names.
        input, output: their names.
        meaning: of the input, in a few words.
    """

    name: str
    module: nn.Module
    answer: Callable[[Tensor], Tensor]
    examples: Sequence[Tensor]
    moving: Mapping[int, str]
    input: str
    output: str
    meaning: str


def write_portable(part: Portable, form: str, folder: Path, config: Mapping[str, Any]) -> Path:
    """Write one part in one format, with what rebuilds the network inside, and check it.

    Raises:
        ImportError: what writes and checks ONNX is not installed.
        ValueError: the network cannot be written so, or the file gives other answers.
    """
    file = folder / f"{part.name}{FORMATS[form]}"
    write, read = {"onnx": (_write_onnx, _read_onnx), "pt2": (_write_program, _read_program)}[form]
    about = json.dumps(config, ensure_ascii=False)

    def write_checked(partial: Path) -> None:
        write(part, partial, about)
        _check(part, read(partial), file)

    write_whole(file, write_checked)
    return file


def program_of(part: Portable, form: str, folder: str) -> str:
    """Lines of Python that use the file without redense."""
    shape = ", ".join(map(str, part.examples[0].shape))
    file = f'f"{{folder}}/{part.name}{FORMATS[form]}"'
    if form == "onnx":
        return f"""import numpy as np
import onnxruntime

folder = {json.dumps(folder)}
session = onnxruntime.InferenceSession({file})
{part.input} = np.zeros(({shape}), np.float32)  # {part.meaning}
({part.output},) = session.run(None, {{"{part.input}": {part.input}}})
print({part.output}.shape)
"""
    return f"""import torch

folder = {json.dumps(folder)}
network = torch.export.load({file}).module()
{part.input} = torch.zeros({shape})  # {part.meaning}
print(network({part.input}).shape)
"""


def _traced(part: Portable) -> torch.export.ExportedProgram:
    moving = dict.fromkeys(part.moving, torch.export.Dim.DYNAMIC)
    try:
        with torch.no_grad():
            return torch.export.export(
                part.module.eval(),
                (part.examples[0],),
                dynamic_shapes=(moving,),
                strict=True,  # a scan is traced so only
            )
    except Exception as error:  # of its tracer many kinds
        raise ValueError(
            f"torch.export cannot trace this {part.name}: {str(error).partition(chr(10))[0]}"
        ) from error


def _write_onnx(part: Portable, file: Path, about: str) -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ONNX files need onnx, onnxscript and onnxruntime: pip install 'redense[onnx]'"
        ) from error
    program = torch.onnx.export(
        _traced(part),
        input_names=[part.input],
        output_names=[part.output],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["redense"] = about
    program.save(file)


def _write_program(part: Portable, file: Path, about: str) -> None:
    with file.open("wb") as opened:  # of a name that does not end in pt2 torch warns
        torch.export.save(_traced(part), opened, extra_files={"config.json": about})


def _read_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes())
    (given,) = session.get_inputs()

    def ask(tensor: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {given.name: tensor.numpy()})[0])

    return ask


def _read_program(file: Path) -> Callable[[Tensor], Tensor]:
    with file.open("rb") as opened:
        return torch.export.load(opened).module()


def _check(part: Portable, ask: Callable[[Tensor], Tensor], file: Path) -> None:
    for example in part.examples:
        with torch.no_grad():
            wanted, told = part.answer(example), ask(example)
        apart = (told.double() - wanted.double()).abs().max() if told.numel() else 0
        if told.shape != wanted.shape or apart > _CLOSE * max(1.0, float(wanted.abs().max())):
            raise ValueError(
                f"{file} answers otherwise than the network to {tuple(example.shape)}: "
                f"{tuple(told.shape)} for {tuple(wanted.shape)}, up to {float(apart):.3g} apart; "
                "it was not kept"
            )
