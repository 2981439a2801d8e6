"""One thread for work in many small operations: masks of huge tensors are chosen so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def one_thread(function: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """Run ``function`` with one of torch's threads, and leave their number as it was.

    Where the compiled passes cannot, torch reads memory in chunks that fit the cache, in a dozen
    operations each. Threads meet after each of them: beside other work two were 3 to 6 times as
    slow as one, and on an idle machine no faster. The compiled passes take one thread anyway.
    """

    @wraps(function)
    def alone(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    return alone
