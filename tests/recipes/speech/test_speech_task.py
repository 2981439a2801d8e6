"""`redense train speech` from end to end on a tiny made-up language: a letter is a tone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from redense.recipes import train
from redense.recipes.inputs import Scores
from redense.recipes.speech import models
from redense.recipes.speech.data import find, load
from redense.recipes.speech.options import SpeechOptions
from redense.recipes.speech.scores import Answer, error_rates
from redense.recipes.speech.task import SpeechTask
from redense.recipes.trained import restore
from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out
from redense.runs.run import Run
from redense.study.jobs import branch

TONES = {"a": 500, "b": 1500, "c": 3000, " ": 0}
TINY = (
    "--width",
    "24",
    "--layers",
    "1",
    "--filters",
    "2",
    "--stride",
    "4",
    "--batch",
    "4",
    "--lr",
    "0.01",
    "--accelerator",
    "cpu",
)
PLAN = ("--dense", "4", "--sparse", "2", "--redense", "1")


def say(path: Path, text: str, rate: int = 8000) -> Path:
    parts = [np.sin(2 * np.pi * TONES[c] * np.arange(rate // 5) / rate) for c in text]
    noise = np.random.default_rng(len(text)).normal(0, 0.01, rate // 5 * len(text))
    soundfile.write(path, 0.3 * np.concatenate(parts) + noise, rate)
    return path


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    draw = np.random.default_rng(0)
    for split, many in (("train", 32), ("valid", 6), ("test", 6)):
        with (folder / f"{split}.jsonl").open("w") as lines:
            for n in range(many):
                words = [
                    "".join(draw.choice(list("abc"), size=draw.integers(2, 4))) for _ in range(2)
                ]
                file = say(folder / f"{split}{n}.wav", " ".join(words))
                line = {
                    "audio": file.name,
                    "text": " ".join(words),
                    "speaker": "even" if n % 2 else "odd",
                }
                lines.write(json.dumps(line) + "\n")
    return folder


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDENSE_DATA", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trained(speech, tmp_path_factory):
    """A finished run, and what it printed is tested where it is needed."""
    from redense.cli import main

    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "speech", "--data", str(speech), *TINY, *PLAN, "--out", str(folder)]) == 0
    return folder


def test_two_passes_half_then_a_quarter_are_the_default_and_recorded(trained):
    record = json.loads((trained / "record.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == [
        "dense",
        "sparse 1",
        "redense 1",
        "sparse 2",
        "redense 2",
    ]
    assert [round(phase["sparsity_measured"], 2) for phase in record["phases"]][1::2] == [0.5, 0.25]
    assert [phase["rate"] / 0.01 for phase in record["phases"]] == pytest.approx(
        [1, 0.625, 0.375, 0.125, 0.0375]
    )
    assert record["metric"] == {"name": "wer", "higher_is_better": False, "unit": "points"}
    assert set(record["test"]) == {"loss", "wer", "cer"}
    assert record["data"]["sizes"] == {"train": 32, "valid": 6, "test": 6}
    assert record["data"]["most_frequent"]["valid"]["wer"] > 50


def test_it_learns(trained):
    phases = json.loads((trained / "record.json").read_text())["phases"]
    assert phases[-1]["valid"]["loss"] < 0.5 * phases[0]["train_loss"]


def test_convolutions_and_the_ctc_output_hold_no_zero_in_a_sparse_phase(trained):
    state = torch.load(trained / "checkpoints" / "sparse-1.ckpt", weights_only=True)["state_dict"]
    zeros = {
        name: float((weight == 0).float().mean())
        for name, weight in state.items()
        if weight.ndim > 1
    }
    held = {name for name, share in zeros.items() if share > 0}
    assert held == {name for name in zeros if "recurrent" in name or "fully_connected" in name}
    assert all(abs(zeros[name] - 0.5) < 0.01 for name in held)


def test_the_worst_utterances_and_speakers_of_every_phase_are_kept(trained):
    found = json.loads((trained / "worst.json").read_text())
    assert list(found) == ["dense", "sparse 1", "redense 1", "sparse 2", "redense 2"]
    for phase in found.values():
        assert set(phase["speakers"]) == {"even", "odd"}
        assert [row["cer"] for row in phase["worst"]] == sorted(
            (row["cer"] for row in phase["worst"]), reverse=True
        )
        assert all(Path(row["audio"]).is_file() for row in phase["worst"])


def test_a_runs_report_plays_its_worst_utterances(trained, tmp_path, redense):
    assert redense("report", trained, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "The worst utterances after redense 2" in page
    assert page.count("<audio ") == 6  # all of validation
    assert "WER sparse 2" in page


def test_a_branch_takes_over_the_worst_utterances_of_the_phases_it_shares(trained, tmp_path):
    parent = RunFolder(trained)
    config = replace(parent.config, method="shorter", plan=parent.config.plan[:3])
    child = RunFolder.create(tmp_path / "child", config)
    branch(parent, child, sum(phase["length"] for phase in config.plan[:2]))
    carry_out(train, Run(child, quiet=True))
    whole, mine = (
        json.loads((folder / "worst.json").read_text()) for folder in (trained, child.path)
    )
    assert mine == {phase: whole[phase] for phase in ("dense", "sparse 1", "redense 1")}


def test_the_untrained_net_and_the_most_frequent_sentence_are_printed(speech, tmp_path, redense):
    answer = redense(
        "train",
        "speech",
        "--data",
        speech,
        *TINY,
        "--dense",
        1,
        "--sparse",
        1,
        "--redense",
        1,
        "--passes",
        1,
        "--sparsity",
        0.5,
        "--sparse-lr",
        1,
        "--redense-lr",
        1,
        "--out",
        tmp_path / "run",
    )
    assert answer.code == 0, answer.err
    line = next(line for line in answer.out.splitlines() if line.startswith("untrained: valid wer"))
    assert "; always answering '" in line


def test_a_run_stopped_in_a_sparse_phase_ends_with_the_same_bits(
    trained, speech, tmp_path, redense, monkeypatch
):
    def stop(self, batch, index):
        if self.current_epoch == 5 and index == 3:
            raise KeyboardInterrupt
        return step(self, batch, index)

    step, folder = SpeechTask.training_step, tmp_path / "run"
    monkeypatch.setattr(SpeechTask, "training_step", stop)
    answer = redense("train", "speech", "--data", speech, *TINY, *PLAN, "--out", folder)
    assert answer.code == 130
    monkeypatch.undo()
    load.cache_clear()
    assert redense("train", "speech", "--resume", folder).code == 0
    whole, stopped = (json.loads((path / "record.json").read_text()) for path in (trained, folder))
    assert whole["weights_sha256"] == stopped["weights_sha256"]
    assert [row["train_loss"] for row in whole["history"]] == [
        row["train_loss"] for row in stopped["history"]
    ]


def test_a_run_finds_its_data_from_any_folder(speech, tmp_path, redense, monkeypatch):
    monkeypatch.chdir(speech.parent)
    arguments = ("train", "speech", "--data", speech.name, *TINY, "--dense", 1, "--passes", 1)
    once = ("--sparse", 1, "--redense", 1, "--sparsity", 0.5, "--sparse-lr", 1, "--redense-lr", 1)
    assert redense(*arguments, *once, "--out", tmp_path / "run").code == 0
    (tmp_path / "run" / "record.json").unlink()
    (tmp_path / "run" / "checkpoints" / "epoch-0003.ckpt").unlink()
    monkeypatch.chdir(tmp_path)
    load.cache_clear()
    assert redense("train", "speech", "--resume", "run").code == 0
    assert (tmp_path / "run" / "record.json").exists()


def test_a_resume_on_data_that_changed_is_refused_with_both_fingerprints(
    trained, speech, tmp_path, redense
):
    folder, data = (
        shutil.copytree(trained, tmp_path / "run"),
        shutil.copytree(speech, tmp_path / "tones"),
    )
    (folder / "record.json").unlink()
    settings = json.loads((folder / "config.json").read_text())
    settings["options"]["data"] = str(data)
    (folder / "config.json").write_text(json.dumps(settings))
    lines = (data / "valid.jsonl").read_text().splitlines()
    (data / "valid.jsonl").write_text("\n".join(lines[1:]))
    answer = redense("train", "speech", "--resume", folder)
    was = json.loads((trained / "record.json").read_text())["data"]["sha256"]
    now = load(str(data), stride=4).fingerprint()["sha256"]
    assert answer.code == 2
    assert (
        f"was trained on other data than tones holds now: its sha256 was {was}, now it is {now};"
        in answer.err
    )
    (data / "valid.jsonl").write_text("\n".join(lines))
    load.cache_clear()
    assert (
        redense("train", "speech", "--resume", folder).code == 0
    )  # the same data at another place


def test_augmentation_and_dropout_survive_a_resume_bit_for_bit(speech, tmp_path, redense):
    arguments = (
        "train",
        "speech",
        "--data",
        speech,
        *TINY,
        "--dense",
        2,
        "--sparse",
        1,
        "--redense",
        1,
        "--augment",
        "spec-speed",
        "--dropout",
        0.2,
        "--normalize",
        "corpus",
        "--optimizer",
        "sgd",
    )
    assert redense(*arguments, "--out", tmp_path / "whole").code == 0
    whole = json.loads((tmp_path / "whole" / "record.json").read_text())
    folder = shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (folder / "record.json").unlink()
    for file in (folder / "checkpoints").glob("epoch-*.ckpt"):
        file.unlink()
    shutil.copyfile(
        folder / "checkpoints" / "sparse-1.ckpt", folder / "checkpoints" / "epoch-0003.ckpt"
    )
    assert redense("train", "speech", "--resume", folder).code == 0
    assert (
        json.loads((folder / "record.json").read_text())["weights_sha256"]
        == whole["weights_sha256"]
    )


def test_a_run_and_its_export_transcribe_alike(trained, speech, tmp_path, redense):
    assert redense("export", trained, tmp_path / "hub").code == 0
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert (config["recipe"], config["alphabet"]) == ("speech", " 'abc")
    files = [speech / "test0.wav", speech / "test1.wav"]
    answers = [redense("transcribe", model, *files) for model in (trained, tmp_path / "hub")]
    assert answers[0].code == 0, answers[0].err
    assert answers[0].out == answers[1].out
    assert [line.partition(": ")[0] for line in answers[0].out.splitlines()] == list(
        map(str, files)
    )


def test_transcribing_equals_the_tasks_own_answer(trained, speech, redense):
    said = {
        row["audio"]: row["said"]
        for row in json.loads((trained / "worst.json").read_text())["redense 2"]["worst"]
    }
    answer = redense("transcribe", trained, *said)
    assert dict(line.split(": ") for line in answer.out.splitlines()) == said


@pytest.fixture
def abcabc(tmp_path):
    """A language model of one word."""
    path = tmp_path / "a.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\nngram "
        "2=1\n\n\\1-grams:\n-9\t<unk>\t0\n-99\t<s>\t0\n-1\t</s>\t0\n-1\tabcabc\t0\n\n"
        "\\2-grams:\n-0.1\tabcabc abcabc\n\n\\end\\\n"
    )
    return path


def test_scores_are_those_of_the_search_that_transcribes(trained, speech, abcabc, redense):
    search = ("--lm", abcabc, "--beam", 8, "--lm-weight", 0.5)
    scored = redense("eval", trained, "--data", speech, *search)
    assert scored.code == 0, scored.err
    said = dict(
        line.split(": ")
        for line in redense("transcribe", trained, speech, *search).out.splitlines()
    )
    assert any(text.split() for text in said.values())
    expected = error_rates([Answer(u, said[u.audio]) for u in find(str(speech))[0]["test"]])
    assert scored.out == f"{Scores(expected)}\n"
    greedy = redense("eval", trained, "--data", speech)
    assert greedy.out != scored.out


def test_a_flag_of_the_search_without_a_language_model_is_refused(trained, speech, redense):
    answer = redense("eval", trained, "--data", speech, "--word-score", 2)
    assert answer.code == 2
    assert "--word-score is of the beam search, which needs --lm" in answer.err


def test_a_language_model_is_asked_for_its_words(trained, speech, abcabc, redense):
    answer = redense("transcribe", trained, speech / "test0.wav", "--lm", abcabc, "--beam", 32)
    assert answer.code == 0, answer.err
    assert set(answer.out.partition(": ")[2].split()) <= {"abcabc"}


def test_the_network_comes_back_from_its_config(trained):
    network, config = restore(trained)
    assert [tuple(p.shape) for p in network.parameters()] == [
        tuple(p.shape) for p in models.network(config).parameters()
    ]
    assert not network.training


WRONG = {
    "--model deepspeech3": "model must be one of small, deepspeech1, deepspeech2, got",
    "--cell elman": "cell must be one of rnn, gru, lstm",
    "--on-bad-data maybe": "on_bad_data must be one of skip, stop",
    "--lr 0": "lr must be a finite number above 0, got 0",
    "--dropout 1": "dropout must lie in [0, 1), got 1",
    "--batch 0": "batch must be at least 1",
    "--model deepspeech1 --layers 3": "deepspeech1 has one recurrent layer",
    "--data nothing": "no data set is called 'nothing'",
    "--data /nowhere/at/all": "no such folder",
    "--strid 3": "did you mean --stride",
    "--exclude nothing.*": "exclude='model.nothing.*' matches no prunable weight",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(wrong: str, redense, speech, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = () if "--data" in wrong else ("--data", speech)
    answer = redense("train", "speech", *data, *wrong.split())
    assert answer.code == 2
    assert WRONG[wrong] in answer.err
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err


def test_help_lists_every_flag(redense):
    answer = redense("train", "speech", "--help")
    assert answer.code == 0
    for name in SpeechOptions.__dataclass_fields__:
        assert f"--{name.replace('_', '-')} " in answer.out
    assert "--lm" in redense("transcribe", "--help").out


def test_transcribing_with_what_is_no_model_is_one_line(tmp_path, redense):
    answer = redense("transcribe", tmp_path, "a.wav")
    assert answer.code == 2
    assert "is neither a run nor an export" in answer.err


def test_transcribing_goes_on_after_a_bad_file(trained, speech, tmp_path, redense):
    missing, good = tmp_path / "a.wav", speech / "test0.wav"
    answer = redense("transcribe", trained, missing, good)
    assert answer.code == 2
    assert answer.err == f"{missing}: missing: no such file\n"
    assert answer.out.startswith(f"{good}: ")
    assert answer.out.count("\n") == 1


def test_a_network_that_answers_nothing_but_blanks_is_said_to(trained, tmp_path, redense):
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(200), 8000)
    answer = redense("transcribe", trained, silence)
    assert answer.code == 0
    assert answer.out == f"{silence}: \n"
    assert "nothing but blanks" in answer.err


BLANKS = "the network answers nothing but blanks to all 6 recordings: it is hardly trained"


def test_a_network_that_answers_nothing_but_blanks_is_said_to_once_and_at_the_end(
    speech, tmp_path, redense
):
    flags = ("--data", speech, *TINY, "--lr", "0.003", "--clip", "0.1", "--passes", "1")
    phases = ("--dense", "2", "--sparse", "1", "--redense", "1")
    answer = redense("train", "speech", *flags, *phases, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert answer.err.count(f"after the dense phase {BLANKS}") == 1
    assert answer.err.count(BLANKS) == 1
    assert answer.out.count(BLANKS) == 1
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["data"]["notes"][-1].startswith(BLANKS)


def test_a_network_that_answers_words_is_not_said_to_answer_blanks(trained):
    record = json.loads((trained / "record.json").read_text())
    assert BLANKS not in str(record["data"]["notes"])


def test_a_training_without_a_sparse_phase_says_nothing_of_what_came_since_the_first(
    speech, tmp_path, redense
):
    phases = ("--dense", "1", "--sparse", "0", "--redense", "0", "--passes", "1")
    answer = redense("train", "speech", "--data", speech, *TINY, *phases, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert "since the first phase" not in answer.out
