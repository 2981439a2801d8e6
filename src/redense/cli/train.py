"""``redense train``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from redense.cli.flags import Machine, Parser, add_flag, build, choose, given, parse
from redense.cli.stopping import goes_on_by

if TYPE_CHECKING:
    from redense.recipes import Preset, Recipe
    from redense.runs.configuration import RunConfig
    from redense.runs.folder import RunFolder
    from redense.runs.task import Task


def train_command(arguments: list[str]) -> int:
    """Train dense, sparse, re-dense."""
    from redense.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(_recipes(RECIPES))
        return 0 if arguments else 2
    recipe = RECIPES[choose("recipe", arguments[0], RECIPES)]
    flags = arguments[1:]
    presets = recipe.all_presets()
    preset = _preset(presets, flags)
    asked = parse(_parser(recipe, presets, preset, flags), flags)
    if asked.print_plan:
        from redense.recipes.schedule import Schedule

        options = build(recipe.options_class(), asked)
        say_if_random(options, asked)
        _print_plan(build(Schedule, asked).to_plan(), options, asked, preset)
        return 0
    if asked.resume is not None:
        return _go_on(recipe, asked, flags)
    return _start(recipe, asked, ["redense", "train", *arguments])


def run_config(
    recipe: str, options: Any, asked: argparse.Namespace, command: list[str]
) -> RunConfig:
    """What the flags say of a run, besides method, seed and plan."""
    from redense.recipes import RECIPES
    from redense.runs.configuration import RunConfig

    return RunConfig(
        recipe=recipe,
        options=RECIPES[recipe].settings(options),
        include=[pattern for pattern in asked.include.split(",") if pattern],
        exclude=[pattern for pattern in asked.exclude.split(",") if pattern],
        accelerator=asked.accelerator,
        devices=asked.devices,
        precision=asked.precision,
        command=command,
    )


def say_if_random(options: Any, asked: argparse.Namespace) -> None:
    """Whether the flags leave out the dense phase of a network that was not trained before."""
    from redense.files.folders import say

    if asked.plan is None and not asked.dense and getattr(options, "init", None) is None:
        say("--dense 0 without --init: the first sparse phase holds weights that are still random")


def written(config: RunConfig) -> list[str]:
    """The flags that ask for a run's data and settings again, without its plan.

    >>> from redense.runs.configuration import RunConfig
    >>> written(RunConfig(recipe="images", options={"size": 8, "data": "pets", "lr": 0.1}))
    ['--size', '8', '--data', 'pets']
    """
    from redense.recipes import RECIPES

    usual = vars(RECIPES[config.recipe].options_class()()) | vars(Machine())
    machine = {"precision": config.precision, "accelerator": config.accelerator}
    patterns = {"include": ",".join(config.include), "exclude": ",".join(config.exclude)}
    flags = []
    for name, value in {**config.options, **machine, **patterns}.items():
        if value is not None and value != usual[name]:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            flags += [f"--{name.replace('_', '-')}", text]
    return flags


def usual_schedule(recipe: Recipe, flags: list[str]) -> dict[str, Any]:
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


def _parser(
    recipe: Recipe, presets: Mapping[str, Preset], preset: Preset | None, flags: list[str]
) -> Parser:
    from redense.recipes.schedule import Schedule

    usual = usual_schedule(recipe, flags) | (preset.flags if preset else {})
    if "init" in given(flags):
        usual["dense"] = 0
    parser = Parser(
        f"redense train {recipe.name}", f"{recipe.summary[0].upper()}{recipe.summary[1:]}."
    )
    parser.add_fields(Schedule, defaults=usual)
    parser.add_fields(recipe.options_class(), defaults=usual)
    parser.add_fields(Machine)
    add_flag(parser, "seed", int, 0, "initial weights, data order, augmentation and dropout")
    add_flag(parser, "resume", Path | None, None, "go on with this run folder, bit for bit")
    if presets:
        add_flag(parser, "preset", str | None, None, _presets(presets))
    parser.add_argument(
        "--print-plan", action="store_true", help="print plan and settings, train nothing"
    )
    return parser


def _preset(presets: Mapping[str, Preset], flags: list[str]) -> Preset | None:
    """The preset that is asked for; its flags become the defaults of all others."""
    if not presets or not {"preset"} & given(flags):
        return None
    parser = Parser("redense train", "")
    parser.add_argument("--preset")
    name = parser.parse_known_args([word for word in flags if word not in ("-h", "--help")])[
        0
    ].preset
    return presets[choose("preset", name, presets)]


def _presets(presets: Mapping[str, Preset]) -> str:
    listed = "; ".join(preset.summary for preset in presets.values())
    return f"the paper's settings as defaults of the other flags: {listed}"


def _go_on(recipe: Recipe, asked: argparse.Namespace, flags: list[str]) -> int:
    """Resume a run folder, which says everything itself but where its data lie now."""
    from redense.recipes import build_task
    from redense.runs.folder import RunFolder
    from redense.runs.lean import import_lightning

    moved = given(flags) - {"resume"}
    if others := moved.difference(recipe.data):
        raise ValueError(
            f"--resume takes everything from the run folder but for {_flags(recipe.data)}, where "
            f"the same data lie now; leave out {_flags(others)}"
        )
    folder = RunFolder(asked.resume)
    if folder.config.recipe != recipe.name:
        raise ValueError(f"{folder.path} is a run of {folder.config.trained}, not of {recipe.name}")
    if folder.record.exists():
        print(f"{folder.path} is finished; its record is {folder.record}")
        return 0
    options = recipe.options_of(folder.config)
    options = replace(options, **{name: getattr(asked, name) for name in moved})
    for name in recipe.data:
        file = getattr(options, name)
        if file and Path(file).is_absolute() and not Path(file).exists():
            raise FileNotFoundError(
                f"{file}, the run's {_flags([name])}, is not there; add {_flags([name])} and where "
                "it is now"
            )
    config = folder.config
    if moved:
        config = replace(config, options=recipe.settings(options))
    import_lightning()
    return _train(folder, build_task(config), config)


def _flags(names: Iterable[str]) -> str:
    return ", ".join(sorted(f"--{name.replace('_', '-')}" for name in names))


def _start(recipe: Recipe, asked: argparse.Namespace, command: list[str]) -> int:
    """Make a run folder and train in it."""
    from redense.recipes import build_task
    from redense.recipes.schedule import Schedule, read_settings
    from redense.runs.folder import RunFolder, check_new, next_folder
    from redense.runs.lean import import_lightning

    if asked.plan and (others := given(command) & vars(Schedule()).keys() - {"plan"}):
        raise ValueError(f"--plan says it all; leave out {_flags(others)}")
    plan = build(Schedule, asked).to_plan()
    several = asked.devices > 1 or int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several and asked.out is None:
        raise ValueError("several processes must share one run folder; pass --out")
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))  # torchrun's, Lightning's
    if asked.out is not None and rank == 0:
        check_new(asked.out)  # before data are read
    options = build(recipe.options_class(), asked)
    if rank == 0:
        say_if_random(options, asked)
    config = replace(
        run_config(recipe.name, options, asked, command),
        method="dsd" if asked.plan is None else asked.plan.stem,
        seed=asked.seed,
        plan=plan.to_records(),
        strategy=asked.strategy,
        **(read_settings(asked.plan) if asked.plan else {}),
    )
    import_lightning()
    from redense.runs.trainer import check_machine

    check_machine(config)
    task = build_task(config)
    if rank > 0:
        return _train(RunFolder.wait_for(asked.out), task)
    folder = RunFolder.create(asked.out or next_folder(recipe.name), config)
    print(f"{folder.path}\n\n{plan}\n", flush=True)
    return _train(folder, task)


def _train(folder: RunFolder, task: Task, config: RunConfig | None = None) -> int:
    from redense.runs.outcome import carry_out
    from redense.runs.progress import print_result
    from redense.runs.run import Run
    from redense.runs.training import fit

    run = Run(folder, config=config)
    resume = f"--resume {quote(str(folder.path))}"
    with goes_on_by(f"redense train {folder.config.recipe} {resume}"):
        record = carry_out(lambda run: fit(run, task), run)
    if record:
        print_result(record)
        print(
            f"{folder.path}: record.json, metrics.csv, curves.png, histograms.png, "
            "model.safetensors"
        )
    return 0


def _print_plan(plan: Any, options: Any, asked: argparse.Namespace, preset: Any) -> None:
    """The plan, what is trained and how, and what the preset's paper reports."""
    from redense.recipes.schedule import read_settings

    print(f"{plan}\n")
    for name, value in (read_settings(asked.plan) if asked.plan else {}).items():
        print(f"{name.replace('_', '-'):14} {value}  (of {asked.plan})")
    machine = {name: getattr(asked, name) for name in ("precision", "devices", "strategy", "seed")}
    for name, value in {**vars(options), **machine}.items():
        print(f"{name.replace('_', '-'):14} {'-' if value is None else value}")
    if preset is not None:
        print(f"\n{preset}")
