"""The model card of an exported network, in the form of Hugging Face's hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

try:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData
except ImportError as error:
    raise ImportError("model cards need huggingface_hub: pip install 'redense[recipes]'") from error

from redense.plan import Plan, in_percent
from redense.recipes import RECIPES

_LICENCES = {
    "amazon-queen": ("other", "its speech is freeware, to be given on without a fee"),
    "emoji": ("cc-by-sa-4.0", "its drawings are OpenMoji's, CC BY-SA 4.0, and Twemoji's"),
    "emoji-groups": ("cc-by-sa-4.0", "its drawings are OpenMoji's, CC BY-SA 4.0, and Twemoji's"),
    "emoji-tones": ("cc-by-sa-4.0", "its drawings are OpenMoji's, CC BY-SA 4.0, and Twemoji's"),
    "fashion-mnist": ("mit", "its pictures are under the MIT licence"),
    "fillets-cs": ("gpl-2.0", "its speech is under the GPL, version 2"),
    "fillets-nl": ("gpl-2.0", "its speech is under the GPL, version 2"),
    "openmoji-groups": ("cc-by-sa-4.0", "its drawings are OpenMoji's, CC BY-SA 4.0"),
    "spoken-digits": ("cc-by-sa-4.0", "its speech is under CC BY-SA 4.0"),
    "tuxpaint": ("gpl-2.0", "its drawings are under the GPL, version 2 or later"),
    "tuxpaint-fr": ("gpl-2.0", "its speech is under the GPL, version 2 or later"),
    "twemoji-groups": ("cc-by-4.0", "its drawings are Twemoji's, CC BY 4.0"),
}
"""Of packaged data: what a hub calls the licence, and in words."""
_UNKNOWN = ("other", "we do not know under which; say so here before you pass the network on")
_HUBS_METRICS = {"top1": "accuracy", "bleu4": "bleu", "wer": "wer", "cer": "cer"}


def model_card(
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    folder: str,
    *,
    programs: Sequence[str] = (),
    verdict: str = "",
) -> str:
    """README.md of an export: what it is, how it was trained, the run's numbers, a program that
    uses it.

    Args:
        folder: where the programs find the export, in a line ``folder = "hub"`` of each.
        programs: that use it by other runtimes, from its other files.
        verdict: of the study that the run is of.
    """
    recipe = RECIPES[config["recipe"]]
    plan = Plan.from_records(record["plan"])
    held = any(phase.sparsity for phase in plan)
    name = f"{config['architecture']} on {record['data']['name']}"
    licence, in_words = _LICENCES.get(record["options"].get("data", ""), _UNKNOWN)
    split = "test" if record["test"] else "valid"
    notes = record["data"].get("notes", ())
    precision = record.get("precision", "32-true")
    header = ModelCardData(
        license=licence,
        license_name=None if licence != "other" else "of-the-data",
        library_name="pytorch",
        pipeline_tag=recipe.answers,
        tags=["dense-sparse-dense", "redense"],
        datasets=[record["data"]["name"]],
        metrics=sorted({_HUBS_METRICS[key] for key in record[split] if key in _HUBS_METRICS}),
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=recipe.answers,
                dataset_type=record["data"]["name"],
                dataset_name=record["data"]["name"],
                dataset_split=split,
                metric_type=_HUBS_METRICS[key],
                metric_name=f"{key}, per cent",
                metric_value=round(value, 4),
            )
            for key, value in record[split].items()
            if key in _HUBS_METRICS
        ],
    )
    words = {
        "name": name,
        "phases": ", ".join(phase.name for phase in plan),
        "how": _SPARSE if held else _FREE,
        "table": _table(record),
        "scores": _scores(record),
        "programs": "\n\n".join(
            f"```python\n{program}```" for program in (recipe.example(config, folder), *programs)
        ),
        "verdict": (_REASON if held else "") + (_quoted(verdict) if verdict else _NO_VERDICT),
        "licence": "\nMind: ".join([f"{in_words}.", *(f"{note}." for note in notes)]),
        "time": f"{record['seconds']:.0f} s{f' at {precision}' * (precision != '32-true')}",
        "versions": ", ".join(f"{key} {value}" for key, value in record["versions"].items()),
    }
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n{_text(record, words)}"))


_SPARSE = """It was trained by
[Dense-Sparse-Dense training](https://arxiv.org/abs/1607.04381) with redense."""
_FREE = "It was trained\nwith redense, all weights free throughout."
_REASON = ", not whether the\nsparse phase is the reason"
_NO_VERDICT = "; `redense prove` compares methods at equal budget."


def _quoted(verdict: str) -> str:
    return ". Its study says:\n\n> " + verdict.replace("\n\n", "\n>\n> ")


def _table(record: Mapping[str, Any]) -> str:
    metric = record["metric"]["name"]
    rows = "\n".join(
        f"| {phase['name']} | {phase['epochs']} | {phase['rate']:.3g} "
        f"| {in_percent(phase['sparsity'])} | {phase['train_loss']:.4f} "
        f"| {phase['valid']['loss']:.4f} | {phase['valid'][metric]:.2f} |"
        for phase in record["phases"]
    )
    return (
        "| phase | epochs | rate | sparsity | train loss | validation loss "
        f"| validation {metric} |\n|---|---|---|---|---|---|---|\n{rows}"
    )


def _scores(record: Mapping[str, Any]) -> str:
    if not record["test"]:
        return "There is no test split."
    listed = ", ".join(f"{name} {value:.2f}" for name, value in record["test"].items())
    return f"Test, read once after training: {listed}."


def _text(record: Mapping[str, Any], words: Mapping[str, str]) -> str:
    data = record["data"]
    sizes = ", ".join(f"{many} {split}" for split, many in data["sizes"].items())
    return f"""# {words["name"]}, trained {words["phases"]}

A dense network: no mask, no wrapper, the architecture's ordinary keys. {words["how"]}

{words["table"]}

{words["scores"]} One run, seed {record["seed"]}: it says how good this network is{words["verdict"]}

{words["programs"]}

Data: {data["name"]} ({sizes}), sha256 {data["sha256"]}. Of its licence: {words["licence"]}

Trained in {words["time"]} with {words["versions"]}, commit {record["commit"]}.
Weights' sha256: {record["weights_sha256"]}.
"""
