"""The benchmarks run, on sizes that show nothing about speed; what they count and is no time is
asserted."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision import models as zoo

sys.path.insert(
    0, str(Path(__file__).parents[2])
)  # benchmarks/ is no part of the installed package

from benchmarks import gpu, hooks, loader, masks, selection, start, steps
from benchmarks.__main__ import ROWS, main, table
from benchmarks.compiled import switch
from benchmarks.contenders import CONTENDERS
from benchmarks.cost import cost, tables
from redense.recipes.images.presets import PRESETS

ROOT = Path(__file__).parents[2]
TINY = "3 x Linear(16), batch 4"


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_every_contender_takes_its_turns_on_one_model(optimizer):
    record = steps.steps(TINY, optimizer, rounds=2)
    assert list(record["contenders"]) == list(CONTENDERS)
    assert record["held"] == 3 * 16 * 16
    assert record["contenders"]["dense"]["ratio"]["median"] == 1
    peers = len(CONTENDERS) - 2
    taken = {name: row["seconds"]["n"] for name, row in record["contenders"].items()}
    assert taken == dict.fromkeys(CONTENDERS, 2) | dict.fromkeys(
        ("dense", "redense"), 2 * -(-peers // 2)
    )
    assert json.loads(json.dumps(record)) == record
    assert len(list(ROWS["steps"](record))) == len(CONTENDERS)


def test_choosing_growing_and_holding_are_measured():
    chosen = masks.choose(TINY, rounds=2, slow_rounds=1)
    assert {"redense layerwise", "redense global", "torch l1_unstructured"} <= set(chosen["rows"])
    assert chosen["weights"] == 3 * 16 * 16
    grown = masks.grow([1000, 100_000, 10**15], rounds=2)
    assert [point.get("exact") for point in grown["points"]] == [True, True, None]
    assert "are free" in grown["points"][2]["not_run"]
    held = masks.hold(TINY)
    assert held["masks"] == 1
    assert held["hooks_after_release"] == 0
    rows = [
        row
        for part, run in (("masks", chosen), ("growth", grown), ("memory", held))
        for row in ROWS[part](run)
    ]
    assert len(table(rows).splitlines()) == len(rows)


def test_the_hooks_are_timed_beside_a_change_of_signs_and_change_nothing():
    record = hooks.hooks(TINY, "SGD", rounds=2)
    assert record["tensors"] == 3
    assert record["calls"] == {"neg_": 3, "redense": 3 + 3}
    assert record["ratio"]["n"] == record["seconds"]["redense"]["n"] == 2
    assert len(list(ROWS["hooks"](record))) == 2
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("with_step", [False, True])
def test_a_phase_switch_breaks_no_graph_and_recompiles_once_at_most(with_step):
    phases = switch("eager", with_step)["phases"]
    assert [phase["phase"] for phase in phases] == [
        "dense",
        *(f"{kind} {n}" for n in (1, 2, 3) for kind in ("sparse", "dense")),
    ]
    assert all(phase["graphs"] == phase["graph_breaks"] == 0 for phase in phases[1:])
    assert (
        sum(phase["recompiled"] for phase in phases) <= with_step
    )  # torch's own wrapper of step, which looks at hooks
    assert all(phase["recompiled"] == 0 for phase in phases[2:])
    assert all(phase["exact"] for phase in phases if phase["phase"].startswith("sparse"))


def test_the_command_writes_records_a_picture_and_a_table(tmp_path, capsys):
    main(["--quick", "--only", "growth", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "growth.json").read_text())
    assert record["runs"][0]["machine"]["torch"]
    assert [run["threads"] for run in record["runs"]] == [
        many for many in (1, 2, 4, 8, 16) if many <= max(os.cpu_count() or 1, 1)
    ]
    assert (tmp_path / "growth.svg").read_text().count("<svg") == 1
    assert "1,000,000 weights" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_says_so_in_a_line(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 2
    said = capsys.readouterr()
    assert said.err == "benchmarks.gpu: torch sees no CUDA device here, nothing was run\n"
    assert said.out == ""
    assert not (tmp_path / "gpu.json").exists()


def test_what_a_gpu_is_measured_by_runs_on_a_cpu():
    taken = steps.steps(TINY, "SGD", 1, gpu.PEERS, device="cpu")
    assert list(taken["contenders"]) == gpu.PEERS
    chosen = gpu.choose(TINY, "cpu", rounds=1)
    assert chosen["weights"] == 3 * 16 * 16
    assert all(row["seconds"]["n"] == 1 for row in chosen["rows"].values())
    assert gpu.hold(TINY, "cpu")["masks"] == 1
    few, many = (gpu.launches(layers, "cpu") for layers in (2, 4))
    assert many["dense"] > few["dense"]
    assert json.loads(json.dumps([chosen, few])) == [chosen, few]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_launches_do_not_grow_nothing_waits_and_a_graph_keeps_zeros():
    assert len({gpu.launches(layers, "cuda")["ours"] for layers in (10, 40)}) == 1
    assert not gpu.waits()
    replayed = gpu.replay(3)
    assert replayed["held_weights_stay_zero"]
    assert replayed["others_train"]


@pytest.mark.network
def test_the_loaders_race_on_the_same_files_and_every_step_is_timed(tmp_path, capsys):
    record = tmp_path / "loader.json"
    small = [
        "--rounds",
        "2",
        "--images",
        "8",
        "--train-images",
        "4",
        "--batch",
        "4",
        "--workers",
        "0",
    ]
    loader.main([*small, "--out", str(record)])
    found = json.loads(record.read_text())
    assert set(found["runs"]) == {"loader, 0 workers", "loader, CPU time", "training, 0 workers"}
    for run in found["runs"].values():
        assert run["ratio"]["n"] == 2
    steps = [
        "read",
        "decode",
        "crop, resize",
        "flip",
        "to tensor",
        "collate",
        "forward",
        "backward",
        "step",
    ]
    for seconds in found["seconds_an_image"].values():
        assert list(seconds) == steps
        assert all(value > 0 for value in seconds.values())
    assert "images/s, torchvision's" in capsys.readouterr().out


def test_the_picture_of_selection_is_drawn_from_the_shipped_network(tmp_path):
    network = load_file(ROOT / "models/fashion-mnist-dsd/model.safetensors")
    selection.picture(network[selection.LAYER], tmp_path / "selection.svg")
    assert (tmp_path / "selection.svg").read_text() == selection.OUT.read_text()


SPEED = (ROOT / "docs" / "speed.md").read_text("utf-8")
RIVALS = {
    "redense, layerwise": "redense layerwise",
    "`torch.nn.utils.prune.l1_unstructured`": "torch l1_unstructured",
    "redense, global": "redense global",
    "`torch.nn.utils.prune.global_unstructured`": "torch global_unstructured",
    "`w.abs().sum()`, one read and a copy": "w.abs().sum(), one read and a copy",
    "`w.sum()`, one read": "w.sum(), one read",
}


def bench(part):
    return json.loads((ROOT / "results" / "bench" / f"{part}.json").read_text())["runs"]


@pytest.mark.parametrize("shown", RIVALS)
def test_the_speed_pages_masks_are_the_record_s(shown):
    one, two = (run["rows"][RIVALS[shown]] for run in bench("masks") if run["weights"] > 1e8)
    (line,) = (line for line in SPEED.splitlines() if line.startswith(f"| {shown} | "))
    alone, together, peak = map(float, line.strip("| ").split(" | ")[1:])
    assert alone == pytest.approx(one["seconds"]["median"], rel=0.03)
    assert together == pytest.approx(two["seconds"]["median"], rel=0.03)
    assert peak == pytest.approx(one["peak_bytes_a_weight"], abs=0.06)


def test_how_many_times_as_fast_as_torch_masks_are_is_the_record_s():
    page = " ".join(SPEED.split())
    told = []
    for run in bench("masks"):
        taken = {name: row["seconds"]["median"] for name, row in run["rows"].items()}
        layerwise = taken["torch l1_unstructured"] / taken["redense layerwise"]
        told.append((layerwise, taken["torch global_unstructured"] / taken["redense global"]))
    (alone, globally), (two, two_globally) = told
    assert f"{alone:.0f} times as fast as torch layerwise and {globally:.0f} times glob" in page
    assert f"with two threads {two:.0f} and {two_globally:.0f}: ours" in page


def test_the_speed_page_s_hooks_are_the_record_s():
    runs = {(run["workload"], run["threads"]): run for run in bench("hooks")}
    for workload in {name for name, _ in runs}:
        one, two = runs[workload, 1], runs[workload, 2]
        taken, both = (run["seconds"]["redense"]["median"] for run in (one, two))
        share = 100 * taken / one["step"]["median"]
        row = (
            f"| {workload}, {one['tensors']} tensors | {1e3 * taken:.1f} / {1e3 * both:.1f} "
            f"| {one['ratio']['median']:.2f} / {two['ratio']['median']:.2f} | {share:.1f} % |"
        )
        assert row in SPEED
    each = [
        1e6
        * (run["seconds"]["redense"]["median"] - run["seconds"]["neg_"]["median"])
        / run["tensors"]
        for (name, threads), run in runs.items()
        if threads == 1 and name.startswith(("ResNet", "transformer"))
    ]
    assert f"costs {min(each):.0f} to {max(each):.0f} microseconds" in SPEED


def test_the_speed_page_s_growth_is_the_record_s():
    runs = {
        run["threads"]: {point["weights"]: point for point in run["points"]}
        for run in bench("growth")
    }
    for weights, said in ((10**6, "1 M"), (10**7, "10 M"), (10**8, "100 M"), (10**9, "1 B")):
        one, two = runs[1][weights], runs[2][weights]
        taken = one["seconds"], two["seconds"], one["read"]
        cells = [f"{times['median'] / weights * 1e9:.2f}" for times in taken]
        peak = f"{one['peak_bytes_a_weight']:.2f}"
        assert f"| {' | '.join([said, *cells, peak])} |" in SPEED
        assert one["exact"]
        assert two["exact"]


def test_the_speed_pages_steps_are_the_record_s():
    lines = [line.strip("| ").split(" | ") for line in SPEED.splitlines() if line.count(" / ") == 6]
    runs = {(one["workload"], one["optimizer"], one["threads"]): one for one in bench("steps")}
    names = list(CONTENDERS)[1:]
    counted = 0
    for label, *cells in lines:
        work, optimizer = label.rsplit(", ", 1)
        (workload,) = {key[0] for key in runs if key[0].startswith(work.split(",")[0])}
        for name, cell in zip(names, cells, strict=True):
            for threads, value in zip((1, 2), cell.split(" / "), strict=True):
                ratio = runs[workload, optimizer, threads]["contenders"][name]["ratio"]["median"]
                assert value == f"{ratio:.2f}", (label, name, threads)
                counted += 1
    assert counted == 6 * 6 * 2


def test_the_speed_pages_studies_are_the_records():
    two, outside = (
        json.loads((ROOT / "results" / "bench" / f"{part}.json").read_text())
        for part in ("study_jobs", "study_overhead")
    )
    assert f"{two['ratio']:.2f} times as fast" in SPEED
    assert f"{100 * outside['share_outside']:.1f} % of the time" in SPEED
    assert two["ratio"] >= 1.7
    assert outside["share_outside"] < 0.05


def record_of(part):
    return json.loads((ROOT / "results" / "bench" / f"{part}.json").read_text())


def test_the_speed_page_s_race_with_an_older_commit_is_the_record_s():
    work = record_of("beside")["work"].values()
    said = []
    for part in ("sparse step", "dense step", "masks"):
        ratios = [
            row["ratio"]["median"]
            for rows in work
            for what, row in rows.items()
            if what.startswith(part)
        ]
        said.append(f"{min(ratios):.2f} to {max(ratios):.2f}")
    page = " ".join(SPEED.split())
    assert f"take {said[0]} times as long where dense ones take {said[1]}: noise" in page
    assert f"Masks take {said[2]} times as long" in page
    assert record_of("beside")["commit"] in page


def test_a_start_is_timed_part_by_part_until_the_first_step(stripes, monkeypatch):
    monkeypatch.setenv("REDENSE_DATA", str(stripes))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    parts = start.start("as redense imports it", ["--batch", "24", "--accelerator", "cpu"])
    assert list(parts)[-2:] == ["trainer and first step", "in all"]
    assert all(seconds >= 0 for seconds in parts.values())
    assert sum(parts.values()) == pytest.approx(2 * parts["in all"])


def test_the_speed_page_s_start_is_the_record_s():
    ours, plain = record_of("start")["starts"].values()
    for part, row in ours.items():
        cells = f"| {part} | {row['median']:.2f} | {plain[part]['median']:.2f} |"
        assert cells in SPEED, part
    assert ours["in all"]["median"] < 4


def test_the_speed_page_s_imports_are_the_record_s():
    alone, named = record_of("imports")["imports"].values()
    assert f"adds {alone['added']['median']:.3f} s to `import torch`" in SPEED
    assert f"and {named['added']['median']:.2f} s once" in SPEED
    assert named["added"]["median"] < 0.2


RELIABILITY = " ".join((ROOT / "docs" / "reliability.md").read_text("utf-8").split())


def test_the_promises_on_damaged_files_are_the_record_s():
    fuzz = record_of("fuzz")
    assert fuzz["cases"] >= 5000
    assert set(fuzz["kinds"]) == {"refused", "read"}
    assert not fuzz["faults"]
    kinds, read = len(fuzz["targets"]), fuzz["kinds"]
    said = (
        f"{fuzz['cases']:,} damaged files of {kinds} kinds, damaged in {len(fuzz['damages'])} ways"
    )
    assert f"{said}: {read['refused']:,} were refused and {read['read']:,} read" in RELIABILITY


def test_the_promises_on_kills_are_the_record_s():
    kills = record_of("kills")
    assert kills["kills"] >= 50
    assert not kills["faults"]
    assert f"{kills['kills']} kills over {len(kills['commands'])} commands" in RELIABILITY


def test_the_promises_on_the_kernel_are_the_record_s():
    found = record_of("sanitize")
    ways = found["ways"]
    assert not found["differences"]
    assert not found["sanitizers"]
    said = f"{found['cases']:,} odd tensors of {len(found['kinds'])} kinds"
    assert said in RELIABILITY
    took, left, refused = (ways[w] for w in ("by the kernel", "by plain torch", "refused"))
    assert f"took {took:,}, left {left:,} to plain torch and refused {refused:,}" in RELIABILITY
    assert f"Nor do the {found['masks chosen']:,} masks" in RELIABILITY


def test_the_promises_on_searches_are_the_record_s():
    found = record_of("search")
    assert f"in {found['found']} of {found['of']} tasks" in RELIABILITY
    assert f"{found['null_said']} of {found['of_nulls']} where none does" in RELIABILITY


def test_the_cost_page_says_what_is_computed():
    page = (ROOT / "docs" / "cost.md").read_text("utf-8")
    for part in tables().split("\n\n"):
        assert part in page
    resnet = cost(PRESETS["resnet50"])
    weights = sum(parameter.numel() for parameter in zoo.resnet50().parameters())
    assert (resnet.weights, resnet.state, resnet.mask) == (
        weights,
        12 * weights,
        weights - 9408 - 54_120,
    )
    assert resnet.forward == pytest.approx(
        2 * 4.09e9, rel=0.01
    )  # torchvision's 4.09 G multiply-adds
    assert resnet.gpu_hours == pytest.approx(
        3 * resnet.forward * 1_281_167 * 180 / (312e12 * 0.2) / 3600
    )


def test_the_rules_at_release_are_told_as_recorded():
    record = json.loads((ROOT / "results" / "bench" / "release.json").read_text("utf-8"))
    page = (ROOT / "docs" / "how.md").read_text("utf-8")
    assert record["seeds"] >= 10
    tasks = record["tasks"].values()
    for rule in ("neighbours", "as new", "zeroed", "all anew"):
        cells = [rule]
        for key in ("liveliest", "growth"):
            means = [sum(run[key] for run in of["runs"][rule]) / record["seeds"] for of in tasks]
            cells.append(" / ".join(f"{mean:.1f}" for mean in means))
        beside = [of["minus neighbours"].get(rule) for of in tasks]
        gains = [one["top1"] for one in beside if one]
        told = [f"{g['mean']:+.2f} [{g['interval'][0]:.2f}, {g['interval'][1]:.2f}]" for g in gains]
        cells.append(" / ".join(told) or "-")
        assert f"| {' | '.join(cells)} |" in page
