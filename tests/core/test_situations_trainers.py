"""Held means held where a trainer starts over, or several processes are launched."""

import gc

import pytest
import torch
from test_huggingface import PLAN, Diary, Plain, trainer

from redense.huggingface import DSDCallback


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
    run = trainer(tmp_path, [DSDCallback(PLAN), diary], model=model, auto_find_batch_size=True)
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
