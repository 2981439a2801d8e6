"""``redense train``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from redense.cli.flags import Machine, Parser, add_flag, build, choose, given, parse


def train_command(arguments: list[str]) -> int:
    """Train dense, sparse, re-dense."""
    from redense.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(_recipes(RECIPES))
        return 0 if arguments else 2
    recipe = RECIPES[choose("recipe", arguments[0], RECIPES)]
    flags = arguments[1:]
    presets = getattr(import_module(recipe.module), "PRESETS", {})
    preset = _preset(presets, flags)
    asked = parse(_parser(recipe, presets, preset, flags), flags)
    if asked.print_plan:
        from redense.recipes.schedule import Schedule

        _, options = recipe.load()
        _print_plan(build(Schedule, asked).to_plan(), build(options, asked), asked, preset)
        return 0
    if asked.resume is not None:
        return _go_on(recipe, asked, flags)
    return _start(recipe, asked, ["redense", "train", *arguments])


def run_config(recipe: str, options: Any, asked: argparse.Namespace) -> dict[str, Any]:
    """What a run folder's config.json says besides method, seed and plan."""
    return {
        "recipe": recipe,
        "options": dict(vars(options)),
        "include": [pattern for pattern in asked.include.split(",") if pattern],
        "exclude": [pattern for pattern in asked.exclude.split(",") if pattern],
        "accelerator": asked.accelerator,
        "devices": asked.devices,
        "precision": asked.precision,
    }


def usual_schedule(recipe: Any, flags: list[str]) -> dict[str, Any]:
    """A recipe's own schedule; where its lists have more passes than ``--passes`` asks for, the
    later ones fall away."""
    usual = dict(recipe.schedule)
    passes = Parser("redense", "")
    add_flag(passes, "passes", int, usual.get("passes", 1), "")
    many = passes.parse_known_args([word for word in flags if word not in ("-h", "--help")])[0]
    for name, value in usual.items():
        if isinstance(value, list) and 1 <= many.passes < len(value):
            usual[name] = value[0] if many.passes == 1 else value[: many.passes]
    return usual


def _recipes(recipes: Mapping[str, Any]) -> str:
    listed = "\n".join(f"  {name:10} {recipe.summary}" for name, recipe in recipes.items())
    return (
        f"usage: redense train RECIPE [flags]\n\nrecipes:\n{listed}\n\n"
        "redense train RECIPE --help shows its flags."
    )


def _parser(recipe: Any, presets: Mapping[str, Any], preset: Any, flags: list[str]) -> Parser:
    from redense.recipes.schedule import Schedule

    _, options = recipe.load()
    usual = usual_schedule(recipe, flags) | (preset.flags if preset else {})
    if "init" in given(flags):
        usual["dense"] = 0
    parser = Parser(
        f"redense train {recipe.name}", f"{recipe.summary[0].upper()}{recipe.summary[1:]}."
    )
    parser.add_fields(Schedule, defaults=usual)
    parser.add_fields(options, defaults=usual)
    parser.add_fields(Machine)
    add_flag(parser, "seed", int, 0, "initial weights, data order, augmentation and dropout")
    add_flag(parser, "resume", Path | None, None, "go on with this run folder, bit for bit")
    if presets:
        add_flag(parser, "preset", str | None, None, _presets(presets))
    parser.add_argument(
        "--print-plan", action="store_true", help="print plan and settings, train nothing"
    )
    return parser


def _preset(presets: Mapping[str, Any], flags: list[str]) -> Any:
    """The preset that is asked for; its flags become the defaults of all others."""
    if not presets or not {"preset"} & given(flags):
        return None
    parser = Parser("redense train", "")
    parser.add_argument("--preset")
    name = parser.parse_known_args([word for word in flags if word not in ("-h", "--help")])[
        0
    ].preset
    return presets[choose("preset", name, presets)]


def _presets(presets: Mapping[str, Any]) -> str:
    listed = "; ".join(
        f"{name} ({' + '.join(f'{epochs:g}' for epochs in preset.epochs)} epochs at "
        f"{100 * preset.sparsity:.0f} %, "
        f"top-1 error {preset.expected[0][0]:.2f} to {preset.expected[-1][0]:.2f} % in the paper)"
        for name, preset in presets.items()
    )
    return f"the paper's settings as defaults of the other flags: {listed}"


def _go_on(recipe: Any, asked: argparse.Namespace, flags: list[str]) -> int:
    """Resume a run folder, which says everything itself."""
    from redense.runs.folder import RunFolder
    from redense.runs.training import build_task

    if others := given(flags) - {"resume"}:
        named = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in others))
        raise ValueError(f"--resume takes everything from the run folder; leave out {named}")
    run = RunFolder(asked.resume)
    if run.config["recipe"] != recipe.name:
        raise ValueError(f"{run.path} is a run of {run.config['recipe']}, not of {recipe.name}")
    if run.record.exists():
        print(f"{run.path} is finished; its record is {run.record}")
        return 0
    return _train(run, build_task(run.config))


def _start(recipe: Any, asked: argparse.Namespace, command: list[str]) -> int:
    """Make a run folder and train in it."""
    from redense.recipes.schedule import Schedule
    from redense.runs.folder import RunFolder, next_folder
    from redense.runs.trainer import check_config
    from redense.runs.training import build_task

    if asked.plan and (others := given(command) & vars(Schedule()).keys() - {"plan"}):
        named = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in others))
        raise ValueError(f"--plan says it all; leave out {named}")
    plan = build(Schedule, asked).to_plan()
    _, options = recipe.load()
    several = asked.devices > 1 or int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several and asked.out is None:
        raise ValueError("several processes must share one run folder; pass --out")
    config = {
        "method": "dsd" if asked.plan is None else asked.plan.stem,
        "seed": asked.seed,
        "plan": plan.to_records(),
        **run_config(recipe.name, build(options, asked), asked),
        "strategy": asked.strategy,
        "command": command,
    }
    check_config(config)
    task = build_task(config)
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))  # torchrun's, or Lightning's
    if int(rank) > 0:
        return _train(RunFolder.wait_for(asked.out), task)
    run = RunFolder.create(asked.out or next_folder(recipe.name), config, str(plan))
    print(f"{run.path}\n\n{plan}\n", flush=True)
    return _train(run, task)


def _train(run: Any, task: Any) -> int:
    from redense.runs.progress import print_result
    from redense.runs.training import train

    recipe = run.config["recipe"]
    try:
        record = train(run, task)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        raise KeyboardInterrupt(
            f"nothing is lost: redense train {recipe} --resume {run.path}"
        ) from None
    if record:
        print_result(record)
        print(
            f"{run.path}: record.json, metrics.csv, curves.png, histograms.png, model.safetensors"
        )
    return 0


def _print_plan(plan: Any, options: Any, asked: argparse.Namespace, preset: Any) -> None:
    """The plan, what is trained and how, and what the preset's paper reports."""
    print(f"{plan}\n")
    machine = {name: getattr(asked, name) for name in ("precision", "devices", "strategy", "seed")}
    for name, value in {**vars(options), **machine}.items():
        print(f"{name.replace('_', '-'):14} {'-' if value is None else value}")
    if preset is not None:
        print(f"\n{preset}")
