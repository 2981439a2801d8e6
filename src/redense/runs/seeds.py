"""Where every random number of a run comes from: (seed, epoch) alone, so that a run which was
stopped ends with the same bits as one that was not."""

from __future__ import annotations


def epoch_seed(seed: int, epoch: int) -> int:
    """Of what all ranks draw alike, such as the order of the data.

    >>> epoch_seed(1, 2)
    1000005
    """
    return seed * 1_000_003 + epoch


def rank_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Of what each rank draws for itself, such as dropout and augmentation.

    >>> rank_seed(1, 2, rank=3)
    4099020498
    """
    return epoch_seed(seed, epoch) * 4099 + rank
