"""``redense study``, ``sensitivity`` and ``report``: the proof."""

from __future__ import annotations

import sys
from pathlib import Path

from redense.cli.flags import Machine, Study, build, choose, make_parser, parse, run_config


def study_command(arguments: list[str]) -> int:
    """Put dense-sparse-dense to the proof."""
    from redense.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: redense study RECIPE [flags]\n\nrecipes: {', '.join(RECIPES)}; "
            f"redense study RECIPE --help shows the flags."
        )
        return 0 if arguments else 2
    recipe = RECIPES[choose("recipe", arguments[0], RECIPES)]
    from redense.recipes.schedule import Schedule
    from redense.runs.checkpoints import write_text
    from redense.runs.training import build_task
    from redense.study.jobs import open_study, plan_jobs, records, run_study, saved_share
    from redense.study.methods import build_methods
    from redense.study.summary import as_markdown, print_summary, summarize_records

    _, options = recipe.load()
    parser = make_parser(
        f"redense study {recipe.name}",
        "Compare dense-sparse-dense with controls of equal budget, paired over seeds.",
    )
    parser.add_class_arguments(Study, None)
    parser.add_class_arguments(Schedule, None, skip={"sparsity", "plan", "mask"})
    usual = recipe.schedule.get("sparsity", Schedule.sparsity)
    parser.add_argument(
        "--sparsity",
        type=str,
        default="/".join(map(str, usual)) if isinstance(usual, list) else str(usual),
        help=(
            "one share to hold, several to compare with commas between them; 0.5/0.25 is one "
            "for each of two passes"
        ),
    )
    parser.add_class_arguments(options, None)
    parser.add_class_arguments(Machine, None, skip={"out", "strategy"})
    parser.set_defaults({key: value for key, value in recipe.schedule.items() if key != "sparsity"})
    asked = parse(parser, arguments[1:])
    chosen = build(options, asked)
    study = build(Study, asked)
    fields = {
        name: asked[name]
        for name in Schedule.__dataclass_fields__
        if name in asked and name != "sparsity"
    }
    plans = {
        text: Schedule(sparsity=shares[0] if len(shares) == 1 else shares, **fields).to_plan()
        for text, shares in _levels(asked.sparsity).items()
    }
    methods = build_methods(study.methods.split(","), plans)
    config = run_config(recipe.name, chosen, asked)
    build_task({**config, "seed": 0})
    jobs = plan_jobs(methods, range(study.seeds), config)
    folder = study.out or Path("runs") / f"study-{recipe.name}"
    open_study(
        folder,
        {**config, "methods": {name: method.plan.to_records() for name, method in methods.items()}},
    )
    print(
        f"{folder}: {len(methods)} methods x {study.seeds} seeds, "
        f"{sum(job.epochs for job in jobs)} epochs to train; "
        f"branching spares {100 * saved_share(jobs):.0f} %"
    )
    try:
        failed = [
            o for o in run_study(folder, jobs, workers=study.jobs, backend=study.backend) if o.error
        ]
    except KeyboardInterrupt:
        print("stopped; nothing is lost: the same command goes on", file=sys.stderr)
        return 130
    for outcome in failed:
        print(
            f"{outcome.job.name} failed: {outcome.error} "
            f"({folder / outcome.job.name / 'error.txt'})",
            file=sys.stderr,
        )
    summary = summarize_records(records(folder), study.split)
    write_text(folder / "summary.md", as_markdown(summary) + "\n")
    print_summary(summary)
    return 1 if failed else 0


def _levels(text: str) -> dict[str, list[float]]:
    """Sparsities by how they were written: commas between levels, slashes between passes."""
    try:
        return {level: [float(share) for share in level.split("/")] for level in text.split(",")}
    except ValueError:
        raise ValueError(
            f"--sparsity takes numbers such as 0.3, 0.2,0.5 or 0.5/0.25, got {text!r}"
        ) from None


def sensitivity_command(arguments: list[str]) -> int:
    """Prune one layer at a time."""
    from redense.runs.folder import RunFolder
    from redense.study.sensitivity import LEVELS, measure, print_sensitivity, save

    parser = make_parser(
        "redense sensitivity",
        "How much pruning each layer of a run's dense network bears, on validation data.",
    )
    parser.add_argument("run", type=Path, help="a run folder whose first phase is finished")
    levels = ",".join(map(str, LEVELS))
    parser.add_argument(
        "--levels", type=str, default=levels, help="shares of one layer to set to zero, with commas"
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.5, help="what a layer may cost, in the metric's unit"
    )
    asked = parse(parser, arguments)
    run = RunFolder(asked.run)
    found = measure(run, [float(level) for level in asked.levels.split(",")], asked.tolerance)
    print_sensitivity(found)
    print(*save(found, run))
    return 0


def report_command(arguments: list[str]) -> int:
    """One page on runs and studies."""
    from redense.report.page import report

    parser = make_parser("redense report", "One self-contained HTML page on runs and studies.")
    parser.add_argument("paths", type=Path, nargs="+", help="run folders, study folders, or both")
    parser.add_argument(
        "--out",
        type=Path | None,
        default=None,
        help="the page; default report.html in the first path",
    )
    asked = parse(parser, arguments)
    print(report(asked.paths, asked.out))
    return 0
