"""When a study that adds seeds as it needs them is judged, and how strict each look is.

    looks(40)             # (10, 20, 30, 40)
    confidence(40)        # 0.9875: a quarter of 5 % for each look

Looking again and again at 5 % finds a difference sooner or later where there is none (Armitage,
McPherson and Rowe 1969). Here every look has an equal part of the 5 %, and the parts add up to at
most 5 % whatever the looks have to do with each other (Bonferroni). Group sequential designs with
equal levels are Pocock's (1977), who found that more than five looks gain little.
"""

from __future__ import annotations

from collections.abc import Sequence

_FIRST = 10
"""Seeds at the first look: at a quarter of 5 %, six comparisons can pass from 10 on."""

_LOOKS = 4


def looks(most: int) -> tuple[int, ...]:
    """Seeds at which a study of at most ``most`` is judged, in equal steps.

    >>> looks(40)
    (10, 20, 30, 40)
    >>> looks(11)
    (10, 11)
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < _FIRST:
        raise ValueError(f"most must be a whole number of at least {_FIRST} seeds, got {most!r}")
    steps = range(_LOOKS)
    return tuple(sorted({_FIRST + round((most - _FIRST) * k / (_LOOKS - 1)) for k in steps}))


def confidence(most: int | None) -> float:
    """Of every interval and verdict of a study of at most ``most`` seeds; None: it is judged once.

    >>> confidence(40), confidence(None)
    (0.9875, 0.95)
    """
    return 0.95 if most is None else 1 - 0.05 / len(looks(most))


def looked_before(looks: Sequence[int]) -> list[str]:
    """What is to be said of a study that was judged at fewer of its seeds before.

    >>> looked_before(())
    []
    """
    if not looks:
        return []
    return [
        f"this study was judged at {', '.join(map(str, looks))} of its seeds before: with every "
        "look a difference that is not there has another chance to be found, and the 5 % hold for "
        "one look only; a study of its own with --seeds auto pays for its looks."
    ]
