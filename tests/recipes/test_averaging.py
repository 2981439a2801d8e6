"""Averaged weights (SWA) of every recipe's network, whose batch-norm is measured anew."""

from dataclasses import replace

from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm
from trained_runs import write_captions, write_speech

from redense.recipes import train
from redense.recipes.trained import restore
from redense.runs.checkpoints import read
from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out
from redense.runs.run import Run


def test_the_last_phase_of_every_recipe_can_be_averaged(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path / "cache"))
    config = RunFolder(trained.run).config
    write = {"captions": write_captions, "speech": write_speech}.get(trained.recipe)
    data = write(tmp_path / "data") if write else config.options["data"]
    options = {**config.options, "data": str(data)}
    plan = [*config.plan[:1], {**config.plan[-1], "length": 2}]
    asked = replace(config, method="swa", plan=plan, average=plan[-1]["name"], options=options)
    files = RunFolder.create(tmp_path / "run", asked)
    record = carry_out(train, Run(files, quiet=True))
    assert record["metric"]["name"] in record["test"]
    averaged = load_file(files.model)
    ends = [read(files.epoch_file(epoch))["state_dict"] for epoch in (2, 3)]
    network, _ = restore(trained.run)
    for name, _ in network.named_parameters():
        mean = sum(end[f"model.{name}"] for end in ends) / 2
        assert averaged[name].sub(mean).abs().max() < 1e-5, name
    norms = [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
    assert bool(norms) == (trained.recipe != "captions")
    for name in norms:
        measured, last = averaged[f"{name}.running_mean"], ends[-1][f"model.{name}.running_mean"]
        assert measured.ne(last).any(), name
