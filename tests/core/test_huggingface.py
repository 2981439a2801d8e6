"""A plan in the Hugging Face Trainer: a tiny BERT with random weights, on the CPU."""

import gc
import importlib
import shutil
import sys

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.optimization import Adafactor, AdafactorSchedule

import redense
from redense import Phase, Plan, dsd
from redense.huggingface import DSDCallback, last_checkpoint

BATCHES = 3  # of 4 rows, in an epoch
PLAN = dsd(dense=2, sparse=2, redense=2, sparsity=0.5)
IN_STEPS = dsd(dense=4, sparse=7, redense=7, sparsity=0.5, decay="cosine")
STARTS_SPARSE = dsd(dense=0, sparse=3, redense=3, sparsity=0.5)


@pytest.fixture(scope="module", autouse=True)
def _quick_garbage_collection():
    """Accelerate collects garbage at every train(); looking through all imported modules is most of
    a test's time."""
    gc.freeze()
    yield
    gc.unfreeze()


def tiny_bert(seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    return BertForSequenceClassification(
        config
    )  # with dropout: resume must restore the generators too


class Plain(nn.Module):
    """No model of the library: a module that returns a loss and logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, input_ids, labels):
        logits = self.layers(input_ids.float())
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def data():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(1, 20, (4 * BATCHES, 6), generator=generator)
    return [{"input_ids": row, "labels": int(row[0] > 9)} for row in rows]


class Diary(TrainerCallback):
    """After every step: how many weights of BERT's intermediate layer are zero, and the rate that
    the step had."""

    def __init__(self, die_after=None):
        self.die_after, self.zeros, self.rates = die_after, [], []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args, state, control, model=None, **kwargs):
        weight = next(
            weight
            for name, weight in model.named_parameters()
            if "intermediate" in name or "layers.2" in name
        )
        self.zeros.append(int((weight == 0).sum()) / weight.numel())
        if state.global_step == self.die_after:
            raise KeyboardInterrupt


def trainer(folder, callbacks, model=None, optimizers=(None, None), **options):
    arguments = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 6,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
    } | options
    arguments = TrainingArguments(str(folder), **arguments)
    model = tiny_bert() if model is None else model
    return Trainer(
        model,
        arguments,
        train_dataset=data(),
        eval_dataset=data(),
        callbacks=callbacks,
        optimizers=optimizers,
    )


@pytest.mark.parametrize("order", [1, -1], ids=["diary after", "diary before"])
def test_epochs_weights_are_held_in_the_sparse_epochs_only(tmp_path, order):
    diary, callback = Diary(), DSDCallback(PLAN)
    run = trainer(tmp_path, [callback, diary][::order])
    ids = [id(weight) for weight in run.model.parameters()]
    run.train()
    dense, sparse = [0.0] * 2 * BATCHES, [0.5] * 2 * BATCHES
    assert diary.zeros == dense + sparse + dense
    assert callback.phases.finished
    assert callback.phases.held is None
    assert [id(weight) for weight in run.model.parameters()] == ids
    assert not any(weight._post_accumulate_grad_hooks for weight in run.model.parameters())
    assert set(callback.phases.state_dict()["masks"]) == set()


def test_steps_weights_are_held_in_the_sparse_steps_only(tmp_path):
    diary = Diary()
    trainer(tmp_path, [DSDCallback(IN_STEPS, unit="step"), diary]).train()
    assert diary.zeros == [0.0] * 4 + [0.5] * 7 + [0.0] * 7


def test_accumulated_batches_are_one_step(tmp_path):
    diary = Diary()
    plan = dsd(2, 2, 2, sparsity=0.5)
    options = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "num_train_epochs": 3,
    }
    trainer(tmp_path, [DSDCallback(plan, unit="step"), diary], **options).train()
    assert diary.zeros == [0.0] * 2 + [0.5] * 2 + [0.0] * 2


def test_a_model_that_is_none_of_the_library_s_works_as_well(tmp_path):
    diary = Diary()
    trainer(tmp_path, [DSDCallback(PLAN), diary], model=Plain()).train()
    assert diary.zeros == [0.0] * 6 + [0.5] * 6 + [0.0] * 6


def test_include_and_exclude_are_prunable_s(tmp_path):
    callback = DSDCallback(dsd(0, 5, 1, sparsity=0.5), include="*.query.weight")
    names = []
    callback.on_step_end = lambda *_, **__: names.extend(
        callback.phases.held.masks if callback.phases.held else ()
    )
    trainer(tmp_path, [callback]).train()
    assert set(names) == {"bert.encoder.layer.0.attention.self.query.weight"}


# Rates


def test_under_a_constant_schedule_the_rates_are_the_plan_s(tmp_path):
    diary = Diary()
    trainer(tmp_path, [DSDCallback(IN_STEPS, unit="step"), diary]).train()
    assert diary.rates == [0.01 * IN_STEPS.lr_factor(step) for step in range(18)]


def test_an_epoch_has_one_rate_as_in_a_loop_that_steps_a_schedule_per_epoch(tmp_path):
    plan = dsd(2, 2, 2, decay="cosine")
    diary = Diary()
    trainer(tmp_path, [DSDCallback(plan), diary]).train()
    assert diary.rates == pytest.approx(
        [0.01 * plan.lr_factor(step // BATCHES) for step in range(18)]
    )


def test_rates_may_decay_smoothly_inside_an_epoch_up_to_the_last_step(tmp_path):
    plan = dsd(2, 2, 2, decay="linear")
    diary = Diary()
    trainer(tmp_path, [DSDCallback(plan, smooth=True), diary]).train()
    assert diary.rates == pytest.approx(
        [0.01 * plan.lr_factor(step / BATCHES) for step in range(18)]
    )
    assert diary.rates[-1] == pytest.approx(0.01 * 0.1 / 6)


def test_any_other_schedule_is_the_envelope_of_the_plan_s_rates_and_is_itself_untouched(tmp_path):
    diary, alone = Diary(), Diary()
    trainer(
        tmp_path, [DSDCallback(PLAN), diary], lr_scheduler_type="linear", warmup_steps=3
    ).train()
    trainer(tmp_path, [alone], lr_scheduler_type="linear", warmup_steps=3).train()
    factors = [1.0] * 12 + [0.1] * 6
    assert diary.rates == [rate * factor for rate, factor in zip(alone.rates, factors, strict=True)]


def test_a_chained_schedule_does_not_compound_the_factor(tmp_path):
    model, diary = tiny_bert(), Diary()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    trainer(tmp_path, [DSDCallback(PLAN), diary], model, (optimizer, schedule)).train()
    expected = [0.01 * 0.9**step * (0.1 if step >= 12 else 1.0) for step in range(18)]
    assert diary.rates == pytest.approx(expected)


def test_a_schedule_that_already_is_the_plan_s_is_not_applied_twice(tmp_path):
    model, diary = tiny_bert(), Diary()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizers = (optimizer, LambdaLR(optimizer, IN_STEPS.lr_factor))
    trainer(tmp_path, [DSDCallback(IN_STEPS, unit="step"), diary], model, optimizers).train()
    assert diary.rates == [0.01 * IN_STEPS.lr_factor(step) for step in range(18)]


def test_a_schedule_of_the_plan_s_rates_that_counts_steps_is_refused_beside_a_plan_of_epochs(
    tmp_path,
):
    model = tiny_bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizers = (optimizer, LambdaLR(optimizer, PLAN.lr_factor))
    with pytest.raises(
        ValueError, match=r"counts optimizer steps but unit='epoch' counts epochs.*unit='step'"
    ):
        trainer(tmp_path, [DSDCallback(PLAN)], model, optimizers).train()


# A plan and a training of different lengths


@pytest.mark.parametrize(
    ("callback", "options", "words"),
    [
        (
            DSDCallback(PLAN),
            {"num_train_epochs": 5},
            ["6 epochs", "after 5", "'redense'", "num_train_epochs=6"],
        ),
        (
            DSDCallback(PLAN),
            {"max_steps": 6},
            ["6 epochs", "after 2", "'sparse'", "num_train_epochs=6 without max_steps"],
        ),
        (
            DSDCallback(IN_STEPS, unit="step"),
            {"max_steps": 17},
            ["18 steps", "after 17", "'redense'", "max_steps=18"],
        ),
        (
            DSDCallback(IN_STEPS, unit="step"),
            {"num_train_epochs": 1},
            ["18 steps", "after 3", "'dense'", "max_steps=18"],
        ),
    ],
)
def test_a_plan_longer_than_the_training_is_refused_with_both_numbers_and_the_remedy(
    tmp_path, callback, options, words
):
    run = trainer(tmp_path, [callback], **options)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"^the plan has") as raised:
        run.train()
    for word in words:
        assert word in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_after_a_shorter_plan_training_goes_on_dense_at_its_last_rate(tmp_path):
    diary = Diary()
    plan = Plan((Phase("dense", 1), Phase("sparse", 2, sparsity=0.5, lr=0.5)))
    trainer(tmp_path, [DSDCallback(plan), diary]).train()
    assert diary.zeros[:9] == [0.0] * 3 + [0.5] * 6
    assert diary.zeros[9:] == [0.0] * 9
    assert diary.rates == [0.01] * 3 + [0.005] * 15


def test_a_unit_that_is_neither_epoch_nor_step_is_refused():
    with pytest.raises(ValueError, match="unit must be 'epoch' or 'step', got 'epochs'"):
        DSDCallback(PLAN, unit="epochs")


class StopAfter(TrainerCallback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.epoch >= self.epochs


def test_a_training_that_stops_where_a_sparse_phase_would_begin_ends_dense_and_warns(tmp_path):
    run = trainer(tmp_path, [DSDCallback(PLAN), StopAfter(2)])
    with pytest.warns(
        UserWarning, match=r"stopped at step 1 of 6: dense, sparse, redense did not run to the end"
    ):
        run.train()
    assert run.model.bert.encoder.layer[0].intermediate.dense.weight.all()


def test_the_best_checkpoint_is_not_pruned_by_the_phase_that_training_stopped_in(tmp_path):
    class Worse(TrainerCallback):
        loss = 0.0

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            self.loss += 1.0
            metrics["eval_loss"] = self.loss

    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    run = trainer(tmp_path, [Worse(), DSDCallback(PLAN), StopAfter(3)], **options)
    with pytest.warns(UserWarning, match="did not run to the end"):
        run.train()
    assert run.state.best_global_step == BATCHES
    assert run.model.bert.encoder.layer[0].intermediate.dense.weight.all()
    assert not any(weight._post_accumulate_grad_hooks for weight in run.model.parameters())


def test_a_best_checkpoint_of_a_sparse_phase_is_said(tmp_path):
    class BestWhileHeld(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            metrics["eval_loss"] = abs(state.epoch - 3)

    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    run = trainer(tmp_path, [BestWhileHeld(), DSDCallback(PLAN)], **options)
    with pytest.warns(UserWarning, match=f"loaded checkpoint-{3 * BATCHES}, .* of a sparse phase"):
        run.train()
    assert not run.model.bert.encoder.layer[0].intermediate.dense.weight.all()


# Checkpoints and resume


CASES = {
    "epoch": (PLAN, "epoch", {}),
    "step": (IN_STEPS, "step", {"lr_scheduler_type": "cosine"}),
    "starts sparse": (STARTS_SPARSE, "epoch", {"optim": "sgd", "optim_args": "momentum=0.9"}),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    def weights(case):
        plan, unit, options = CASES[case]
        run = trainer(tmp_path_factory.mktemp("whole"), [DSDCallback(plan, unit)], **options)
        run.train()
        return run.model.state_dict()

    return {case: weights(case) for case in CASES}


def assert_same(run, weights):
    assert list(run.model.state_dict()) == list(weights)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def killed(folder, stop, callback=None, model=None, **options):
    """Train until after the checkpoint of step ``stop``, which is returned."""
    saving = {"save_strategy": "steps", "save_steps": stop}
    callback = DSDCallback(PLAN) if callback is None else callback
    run = trainer(folder, [callback, Diary(die_after=stop + 1)], model, **saving, **options)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    return folder / f"checkpoint-{stop}"


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 8, 12, 17], ids="killed after step {}".format)
@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_resumes_bit_for_bit(tmp_path, uninterrupted, case, stop):
    plan, unit, options = CASES[case]
    killed(tmp_path, stop, DSDCallback(plan, unit), **options)
    again = trainer(tmp_path, [DSDCallback(plan, unit)], tiny_bert(seed=9), **options)
    again.train(resume_from_checkpoint=True)
    assert_same(again, uninterrupted[case])


@pytest.mark.parametrize("stop", [2, 7])
def test_the_same_trainer_goes_on_after_an_exception(tmp_path, uninterrupted, stop):
    diary = Diary(die_after=stop + 1)
    run = trainer(tmp_path, [DSDCallback(PLAN), diary], save_strategy="steps", save_steps=stop)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    diary.die_after = None
    run.train(resume_from_checkpoint=True)
    assert_same(run, uninterrupted["epoch"])


def test_a_checkpoint_holds_masks_of_one_bit_a_weight_that_load_without_pickle(tmp_path):
    saved = torch.load(killed(tmp_path, 7) / "redense.pt", weights_only=True)
    assert saved["global_step"] == 7
    assert saved["phases"]["position"] == 2
    model = tiny_bert()
    assert {name: bits.numel() for name, bits in saved["phases"]["masks"].items()} == {
        name: -(-weight.numel() // 8) for name, weight in redense.prunable(model).items()
    }


def test_the_checkpoint_of_the_last_dense_epoch_is_dense(tmp_path):
    checkpoint = killed(tmp_path, 6)
    assert torch.load(checkpoint / "redense.pt", weights_only=True)["phases"]["masks"] == {}
    model = BertForSequenceClassification.from_pretrained(checkpoint)
    assert model.bert.encoder.layer[0].intermediate.dense.weight.all()


def test_a_checkpoint_that_was_moved_is_found_by_the_argument_that_names_it(
    tmp_path, uninterrupted
):
    moved = shutil.move(killed(tmp_path / "first", 8), tmp_path / "elsewhere")
    run = trainer(tmp_path / "second", [DSDCallback(PLAN)], tiny_bert(9))
    with pytest.raises(
        FileNotFoundError,
        match=r"no redense.pt .* step 8, in .*TrainingArguments\(resume_from_checkpoint",
    ):
        run.train(resume_from_checkpoint=str(moved))
    run = trainer(
        tmp_path / "second", [DSDCallback(PLAN)], tiny_bert(9), resume_from_checkpoint=str(moved)
    )
    run.train(resume_from_checkpoint=str(moved))
    assert_same(run, uninterrupted["epoch"])


def test_another_run_s_masks_at_the_same_step_are_not_taken(tmp_path):
    ours = killed(tmp_path / "ours", 8)
    killed(tmp_path / "other", 8, model=tiny_bert(seed=5))
    run = trainer(tmp_path / "other", [DSDCallback(PLAN)], tiny_bert(9))
    with pytest.raises(FileNotFoundError, match=r"no redense.pt of the resumed checkpoint, step 8"):
        run.train(resume_from_checkpoint=str(ours))


def test_a_checkpoint_without_the_plan_s_file_is_refused(tmp_path):
    (killed(tmp_path, 8) / "redense.pt").unlink()
    run = trainer(tmp_path, [DSDCallback(PLAN)])
    with pytest.raises(
        FileNotFoundError, match=r"if DSDCallback did not write it, load its model and train a plan"
    ):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))


def test_the_last_checkpoint_is_the_newest_that_was_written_to_its_end(tmp_path):
    for step in (4, 8, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None
    for step in (4, 8):
        (tmp_path / f"checkpoint-{step}" / "redense.pt").write_bytes(b"")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")


def test_a_checkpoint_of_another_plan_is_refused_and_both_are_shown(tmp_path):
    killed(tmp_path, 8)
    run = trainer(tmp_path, [DSDCallback(dsd(2, 3, 1))])
    with pytest.raises(ValueError, match="saved under another plan"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))


def test_without_transformers_the_import_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "redense.huggingface")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'redense\[huggingface\]'"):
        importlib.import_module("redense.huggingface")


# Rates in the log, and other ways to train


def logged_rates(run):
    return [row["learning_rate"] for row in run.state.log_history if "learning_rate" in row]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_trainer_logs_the_rates_that_were_used(tmp_path, schedule):
    diary, options = Diary(), {"logging_strategy": "steps", "logging_steps": 1}
    run = trainer(tmp_path, [DSDCallback(PLAN), diary], lr_scheduler_type=schedule, **options)
    run.train()
    assert logged_rates(run) == diary.rates


def test_a_schedule_that_waits_for_the_evaluation_is_logged_and_multiplied_too(tmp_path):
    model, diary = tiny_bert(), Diary()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=100)
    options = {"logging_strategy": "steps", "logging_steps": 1, "eval_strategy": "epoch"}
    options["metric_for_best_model"] = "loss"
    run = trainer(tmp_path, [DSDCallback(PLAN), diary], model, (optimizer, schedule), **options)
    run.train()
    assert diary.rates == pytest.approx([0.01] * 12 + [0.001] * 6)
    assert logged_rates(run) == diary.rates
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_two_callbacks_on_one_trainer_are_refused_when_it_is_built(tmp_path):
    with pytest.raises(ValueError, match="two DSDCallbacks, whose rates would multiply"):
        trainer(tmp_path, [DSDCallback(PLAN), DSDCallback(PLAN)])
    run = trainer(tmp_path, [DSDCallback(PLAN)])
    run.add_callback(DSDCallback(PLAN))
    with pytest.raises(ValueError, match="two DSDCallbacks, whose rates would multiply"):
        run.train()


def test_patterns_from_a_generator_serve_every_training(tmp_path):
    callback = DSDCallback(STARTS_SPARSE, include=(name for name in ["layers.2.weight"]))
    for _ in range(2):
        diary = Diary()
        trainer(tmp_path, [callback, diary], Plain()).train()
        assert diary.zeros == [0.5] * 9 + [0.0] * 9


def test_an_empty_include_is_refused_when_the_callback_is_built():
    with pytest.raises(ValueError, match="is empty and would hold nothing"):
        DSDCallback(PLAN, include=[])


@pytest.mark.filterwarnings("ignore:the plan stopped:UserWarning")
def test_after_an_exception_the_next_trainer_s_model_is_free(tmp_path):
    model = tiny_bert()
    run = trainer(tmp_path, [DSDCallback(STARTS_SPARSE), Diary(die_after=2)], model)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    diary, run = Diary(), None
    gc.collect()
    trainer(tmp_path, [diary], model).train()
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
    assert diary.zeros[-1] == 0.0


def test_at_sparsity_0_the_weights_are_those_of_a_training_without_redense(tmp_path):
    ours = trainer(tmp_path, [DSDCallback(dsd(2, 2, 2, sparsity=0.0, redense_lr=1.0))])
    ours.train()
    plain = trainer(tmp_path, [])
    plain.train()
    assert_same(ours, plain.model.state_dict())


def test_the_checkpoints_of_a_hyperparameter_search_lie_one_level_deeper(tmp_path):
    class Search(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            state.is_hyper_param_search = True

    class Run(Trainer):
        def _get_output_dir(self, trial):
            return str(tmp_path / "run-0")

    arguments = trainer(tmp_path, [], save_strategy="epoch").args
    run = Run(tiny_bert(), arguments, train_dataset=data(), callbacks=[Search(), DSDCallback(PLAN)])
    run.train()
    found = sorted(path.parent.name for path in (tmp_path / "run-0").glob("*/redense.pt"))
    assert found == sorted(f"checkpoint-{step}" for step in range(3, 19, 3))


def test_an_empty_plan_does_nothing(tmp_path):
    ours = trainer(tmp_path, [DSDCallback(Plan(()))], save_strategy="epoch")
    ours.train()
    plain = trainer(tmp_path, [])
    plain.train()
    assert_same(ours, plain.model.state_dict())


def test_an_average_given_to_the_callback_is_held_with_the_model(tmp_path):
    model = Plain()
    average = AveragedModel(model)
    zeros = []

    class Averaging(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            average.update_parameters(model)
            zeros.append(int((average.module.layers[2].weight == 0).sum()) == 8)

    trainer(tmp_path, [Averaging(), DSDCallback(PLAN, averages=[average])], model).train()
    assert zeros == [False] * 6 + [True] * 6 + [False] * 6


def test_an_optimizer_that_computes_its_own_rates_trains_and_the_plan_says_so(tmp_path):
    model = Plain()
    optimizer = Adafactor(model.parameters(), relative_step=True, lr=None)
    run = trainer(
        tmp_path, [DSDCallback(PLAN)], model, optimizers=(optimizer, AdafactorSchedule(optimizer))
    )
    with pytest.warns(UserWarning, match=r"plan's factors of the rate do nothing.*relative_step"):
        run.train()


def test_every_trial_of_a_hyperparameter_search_walks_the_plan(tmp_path):
    diary = Diary()
    arguments = trainer(tmp_path, [], save_strategy="epoch").args
    run = Trainer(
        args=arguments,
        model_init=lambda trial: tiny_bert(),
        train_dataset=data(),
        eval_dataset=data(),
        callbacks=[DSDCallback(PLAN), diary],
    )
    best = run.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)},
        n_trials=2,
        backend="optuna",
    )
    assert best.run_id
    assert [zero == 0.5 for zero in diary.zeros] == ([False] * 6 + [True] * 6 + [False] * 6) * 2
    folders = {path.parts[-3] for path in tmp_path.glob("*/*/redense.pt")}
    assert folders == {"run-0", "run-1"}
