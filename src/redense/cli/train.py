"""``redense train``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from redense.cli.flags import Machine, build, choose, make_parser, parse, run_config


def train_command(arguments: list[str]) -> int:
    """Train dense, sparse, re-dense."""
    from redense.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        listed = "\n".join(f"  {recipe.name:10} {recipe.summary}" for recipe in RECIPES.values())
        print(
            f"usage: redense train RECIPE [flags]\n\nrecipes:\n{listed}\n\nredense train RECIPE "
            "--help shows its flags."
        )
        return 0 if arguments else 2
    recipe = RECIPES[choose("recipe", arguments[0], RECIPES)]
    from redense.recipes.schedule import Schedule
    from redense.runs.folder import RunFolder, next_folder
    from redense.runs.progress import print_result
    from redense.runs.trainer import check_config
    from redense.runs.training import build_task, train

    _, options = recipe.load()
    presets = getattr(import_module(recipe.module), "PRESETS", {})
    parser = make_parser(
        f"redense train {recipe.name}", f"{recipe.summary[0].upper()}{recipe.summary[1:]}."
    )
    parser.add_class_arguments(Schedule, None)
    parser.add_class_arguments(options, None)
    parser.add_class_arguments(Machine, None)
    parser.add_argument(
        "--seed", type=int, default=0, help="initial weights, data order, augmentation and dropout"
    )
    parser.add_argument(
        "--resume", type=Path | None, default=None, help="go on with this run folder, bit for bit"
    )
    parser.add_argument(
        "--print_plan", action="store_true", help="print the plan and every setting, train nothing"
    )
    parser.set_defaults(dict(recipe.schedule))
    preset = _use_preset(parser, presets, arguments[1:]) if presets else None
    given = {
        flag.partition("=")[0][2:].replace("-", "_")
        for flag in arguments[1:]
        if flag.startswith("--")
    }
    if "init" in given and "dense" not in given:
        parser.set_defaults({"dense": 0})
    asked = parse(parser, arguments[1:])
    if asked.resume is not None:
        if others := [
            flag
            for flag in arguments[1:]
            if flag.startswith("--") and not flag.startswith("--resume")
        ]:
            raise ValueError(
                f"--resume takes everything from the run folder; leave out {', '.join(others)}"
            )
        run = RunFolder(asked.resume)
        if run.config["recipe"] != recipe.name:
            raise ValueError(f"{run.path} is a run of {run.config['recipe']}, not of {recipe.name}")
        if run.record.exists():
            print(f"{run.path} is finished; its record is {run.record}")
            return 0
        task = build_task(run.config)
    else:
        if asked.plan and (others := given & Schedule.__dataclass_fields__.keys() - {"plan"}):
            raise ValueError(
                f"--plan says it all; leave out --{', --'.join(sorted(others)).replace('_', '-')}"
            )
        plan = build(Schedule, asked).to_plan()
        chosen = build(options, asked)
        if asked.print_plan:
            _print_plan(plan, chosen, asked, preset)
            return 0
        rank = int(
            os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))
        )  # torchrun's, or Lightning's
        if asked.out is None and (asked.devices > 1 or int(os.environ.get("WORLD_SIZE", 1)) > 1):
            raise ValueError("several processes must share one run folder; pass --out")
        config = {
            "method": "dsd" if asked.plan is None else asked.plan.stem,
            "seed": asked.seed,
            "plan": plan.to_records(),
            **run_config(recipe.name, chosen, asked),
            "strategy": asked.strategy,
        }
        check_config(config)
        task = build_task(config)
        if rank == 0:
            run = RunFolder.create(asked.out or next_folder(recipe.name), config, str(plan))
            print(f"{run.path}\n\n{plan}\n", flush=True)
        else:
            run = RunFolder.wait_for(asked.out)
    try:
        record = train(run, task)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        print(
            f"stopped; nothing is lost: redense train {recipe.name} --resume {run.path}",
            file=sys.stderr,
        )
        return 130
    if record:
        print_result(record)
        print(
            f"{run.path}: record.json, metrics.csv, curves.png, histograms.png, checkpoints/, "
            "tensorboard/"
        )
    return 0


def _use_preset(parser: Any, presets: Mapping[str, Any], arguments: list[str]) -> Any:
    """Add ``--preset``, whose flags become the defaults of all others, and return the one that is
    asked for."""
    listed = "; ".join(
        f"{name} ({' + '.join(f'{epochs:g}' for epochs in preset.epochs)} epochs at "
        f"{100 * preset.sparsity:.0f} %, "
        f"top-1 error {preset.expected[0][0]:.2f} to {preset.expected[-1][0]:.2f} % in the paper)"
        for name, preset in presets.items()
    )
    parser.add_argument(
        "--preset",
        type=str | None,
        default=None,
        help=f"the paper's settings as defaults of the other flags: {listed}",
    )
    names = [
        value
        for flag, value in zip(arguments, [*arguments[1:], ""], strict=True)
        if flag == "--preset"
    ]
    names += [
        argument.partition("=")[2] for argument in arguments if argument.startswith("--preset=")
    ]
    if not names:
        return None
    preset = presets[choose("preset", names[-1], presets)]
    parser.set_defaults(preset.flags)
    return preset


def _print_plan(plan: Any, options: Any, asked: Any, preset: Any) -> None:
    """The plan, what is trained and how, and what the preset's paper reports."""
    print(f"{plan}\n")
    settings = {
        **vars(options),
        **{name: asked[name] for name in ("precision", "devices", "strategy", "seed")},
    }
    for name, value in settings.items():
        print(f"{name.replace('_', '-'):14} {'-' if value is None else value}")
    if preset is not None:
        print(f"\n{preset}")
