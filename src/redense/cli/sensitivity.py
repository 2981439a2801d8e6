"""``redense sensitivity``: how much pruning each layer bears."""

from __future__ import annotations

from shlex import join

from redense.cli.flags import Parser, add_flag, add_path, parse
from redense.cli.train import written


def sensitivity_command(arguments: list[str]) -> int:
    """Prune one layer at a time."""
    parser = Parser(
        "redense sensitivity",
        "How much pruning each layer of a run's dense network bears, on validation data.",
    )
    add_path(parser, "run", "a run folder whose first phase is finished")
    shares = "shares of one layer to set to zero, with commas between them; default 0.2 to 0.9"
    add_flag(parser, "levels", list[float] | None, None, shares, least=0, most=1)
    cost = "what a layer may cost, in the metric's unit"
    add_flag(parser, "tolerance", float, 0.5, cost, least=0)
    asked = parse(parser, arguments)
    from redense.recipes import build_task
    from redense.runs.folder import RunFolder
    from redense.study.sensitivity import LEVELS, measure, print_sensitivity, save, save_plan

    run = RunFolder(asked.run)
    measured = measure(run, build_task(run.config), asked.levels or LEVELS, asked.tolerance)
    print_sensitivity(measured)
    print(*save(measured, run))
    try:
        plan = save_plan(measured, run)
    except ValueError as reason:
        print(f"no plan is written: {reason}")
        return 0
    command = ["redense", "train", run.config.recipe, *written(run.config), "--plan", str(plan)]
    print(f"{plan}: the proposal as a plan, {join(command)}")
    return 0
