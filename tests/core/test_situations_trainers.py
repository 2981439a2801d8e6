"""Held means held where a trainer starts over, or several processes are launched."""

import gc
import logging

import pytest
import torch
from accelerate import Accelerator
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import Callback, EarlyStopping
from test_huggingface import PLAN, Diary, Plain, trainer
from test_lightning import THEIRS, fit
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import EarlyStoppingCallback
from transformers.utils import logging as transformers_logging

import redense
from redense.huggingface import DSDCallback as HuggingFaceCallback
from redense.lightning import DSDCallback


@pytest.fixture(scope="module", autouse=True)
def _quick_garbage_collection():
    gc.freeze()
    yield
    gc.unfreeze()


class RunsOutOfMemory(Plain):
    """As on a GPU that is too small for the batch: once, in the step of this number."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def forward(self, input_ids, labels):
        self.left -= 1
        if self.left == 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(input_ids, labels)


@pytest.mark.parametrize("at", [2, 8, 15], ids=["dense", "sparse", "redense"])
def test_an_out_of_memory_restart_walks_the_plan_anew(tmp_path, at):
    model, diary = RunsOutOfMemory(at), Diary()
    run = trainer(
        tmp_path, [HuggingFaceCallback(PLAN), diary], model=model, auto_find_batch_size=True
    )
    run.train()
    zeros = diary.zeros[at - 1 :]
    batches = len(zeros) // 6
    assert batches > 3  # smaller ones
    sparse = slice(2 * batches, 4 * batches)
    assert zeros[sparse] == [0.5] * 2 * batches
    assert 0.5 not in zeros[: 2 * batches]
    assert 0.5 not in zeros[4 * batches :]
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
    assert not run.optimizer.optimizer._optimizer_step_post_hooks


@pytest.fixture
def two_ranks():
    """This process as the first of two, the other one imagined."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:(?s).*(FSDP|device_id)")
@pytest.mark.parametrize("own_names", [True, False])
@pytest.mark.parametrize("given", ["the wrapper", "what it wraps"])
def test_fsdp1_is_refused_by_name(two_ranks, own_names, given):
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    settings = {"device_id": torch.device("cpu"), "use_orig_params": own_names}
    wrapped = FullyShardedDataParallel(
        nn.Sequential(FullyShardedDataParallel(model, **settings)), **settings
    )
    optimizer = torch.optim.AdamW(wrapped.parameters())
    asked = wrapped if given == "the wrapper" else model
    with pytest.raises(NotImplementedError, match=r"FSDP1.*fully_shard.*ModelParallelStrategy"):
        redense.PhaseScheduler(asked, optimizer, redense.dsd(3, 1, 1))


CUT = r"stopped at step 3 of 6: sparse, redense did not run to the end: early stopping, .* cut it"


@pytest.mark.filterwarnings(f"ignore:(?s).*({THEIRS})")
def test_early_stopping_in_lightning_says_what_it_cuts_and_lets_go(tmp_path):
    class Score(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("score", float(trainer.current_epoch == 1))

    stop = EarlyStopping("score", mode="max", patience=1)
    with pytest.warns(UserWarning, match=CUT):
        module = fit(tmp_path, [DSDCallback(PLAN), Score(), stop], validate=True)
    assert stop.stopped_epoch == 2
    assert int((module.net[0].weight == 0).sum()) == 24  # as the sparse phase left them, but free
    assert not any(weight._post_accumulate_grad_hooks for weight in module.parameters())


def test_early_stopping_in_the_hugging_face_trainer_says_what_it_cuts_and_lets_go(tmp_path):
    def score(prediction):
        return {"score": next(scores)}

    scores = iter([0.0, 1.0, 0.5])
    run = trainer(
        tmp_path,
        [HuggingFaceCallback(PLAN), EarlyStoppingCallback(1)],
        model=Plain(),
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model="score",
        load_best_model_at_end=True,
    )
    run.compute_metrics = score
    with pytest.warns(UserWarning, match=CUT):
        run.train()
    assert run.state.epoch == 3
    assert run.model.layers[0].weight.all()  # the best was dense
    assert not any(weight._post_accumulate_grad_hooks for weight in run.model.parameters())


@pytest.mark.filterwarnings(f"ignore:(?s).*({THEIRS})")
def test_lightning_s_log_says_the_plan_each_phase_and_what_is_released(tmp_path, caplog):
    loggers = ("lightning.pytorch", "lightning.fabric")  # recipes quieten them
    with caplog.at_level("INFO", loggers[0]), caplog.at_level("INFO", loggers[1]):
        fit(tmp_path, [DSDCallback(PLAN)])
    said = [record.getMessage() for record in caplog.records]
    assert any("weights may be held" in text and "phase    steps" in text for text in said)
    assert "sparse from epoch 2: 50 % held at 0" in said
    assert "redense from epoch 4: 0 % held at 0, 32 weights released" in said


def test_the_hugging_face_trainer_s_log_says_the_same(tmp_path, caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)  # it hands nothing on
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_info()
    try:
        trainer(tmp_path, [HuggingFaceCallback(PLAN)], model=Plain()).train()
    finally:
        transformers_logging.set_verbosity(level)
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records]
    assert any("weights may be held" in text and "phase    steps" in text for text in said)
    assert "sparse from epoch 2: 50 % held at 0" in said
    assert "redense from epoch 4: 0 % held at 0, 32 weights released" in said


def by_hand(model, optimizer, batches, phases):
    for _ in range(len(PLAN)):
        for x in batches:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        if phases:
            phases.step()


@pytest.mark.parametrize("wrap", [None, Accelerator, Fabric], ids=["loop", "accelerate", "fabric"])
def test_at_sparsity_0_a_loop_trains_as_without_redense(wrap):
    batches = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0))
    trained = []
    for plan in (None, redense.dsd(2, 2, 2, 0.0)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        if wrap is not None:
            wrapper = wrap(cpu=True) if wrap is Accelerator else wrap(accelerator="cpu", devices=1)
            prepare = wrapper.prepare if wrap is Accelerator else wrapper.setup
            model, optimizer = prepare(model, optimizer)
        by_hand(model, optimizer, batches, plan and redense.PhaseScheduler(model, optimizer, plan))
        trained.append(model.state_dict())
    assert all(torch.equal(weight, trained[1][name]) for name, weight in trained[0].items())
