"""``redense study``: the proof."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from redense.cli.flags import Machine, Parser, add_flag, build, choose, parse
from redense.cli.train import run_config, usual_schedule


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        seeds: how many; every method runs once with each of 0, 1, 2, ...
        methods: with commas: dense, longer, lower_lr (the matched control), pruned, random_dsd,
            dsd, dsdsd, swa.
        jobs: runs at a time, one thread each; default one per core that this process may use.
        backend: loky on this machine, dask or ray for a cluster.
        split: what the verdict reads: test, or valid while choosing a setting.
        out: study folder; default runs/study-RECIPE. An unfinished study there goes on.
    """

    seeds: int = 5
    methods: str = "dense,longer,lower_lr,pruned,random_dsd,dsd"
    jobs: int | None = None
    backend: str = "loky"
    split: str = "test"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.split not in ("test", "valid"):
            raise ValueError(f"split must be test or valid, got {self.split!r}")
        if self.seeds < 2:
            raise ValueError(
                f"seeds must be at least 2, got {self.seeds}; a verdict needs 6 and more"
            )
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")

    @property
    def workers(self) -> int:
        """Jobs at a time: slurm, taskset and a container's quota may leave fewer cores than there
        are."""
        from joblib import cpu_count

        return self.jobs or cpu_count()


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
    flags = arguments[1:]
    usual = usual_schedule(recipe, flags)
    shares = usual.pop("sparsity", Schedule.sparsity)
    parser = Parser(
        f"redense study {recipe.name}",
        "Compare dense-sparse-dense with controls of equal budget, paired over seeds.",
    )
    parser.add_fields(Study)
    parser.add_fields(Schedule, skip={"sparsity", "plan", "mask"}, defaults=usual)
    add_flag(
        parser,
        "sparsity",
        str,
        "/".join(map(str, shares)) if isinstance(shares, list) else str(shares),
        "one share to hold, several to compare with commas between them; 0.5/0.25 is one for each "
        "of two passes",
    )
    parser.add_fields(options, defaults=usual)
    parser.add_fields(Machine, skip={"out", "strategy"})
    asked = parse(parser, flags)
    chosen = build(options, asked)
    study = build(Study, asked)
    fields = {
        name: getattr(asked, name)
        for name in Schedule.__dataclass_fields__
        if name in vars(asked) and name != "sparsity"
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
        outcomes = run_study(folder, jobs, workers=study.workers, backend=study.backend)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        raise KeyboardInterrupt("nothing is lost: the same command goes on") from None
    failed = [outcome for outcome in outcomes if outcome.error]
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
