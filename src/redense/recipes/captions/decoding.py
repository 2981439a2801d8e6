"""From image features to words: the most likely word each time, or a beam of several sentences side
by side."""

from __future__ import annotations

import torch
from torch import Tensor

from redense.recipes.captions.models import STOP, NeuralTalk

MOST_WORDS = 20
"""The paper's limit."""


@torch.no_grad()
def greedy(model: NeuralTalk, features: Tensor, most: int = MOST_WORDS) -> list[list[int]]:
    """The most likely word, again and again, until END or ``most`` words: a list of indices for
    each of (B, F)."""
    state = model.look(features)
    words = torch.full((len(features),), STOP, device=features.device)
    ended = torch.zeros_like(words, dtype=torch.bool)
    said = []
    for _ in range(most):
        logits, state = model.say(words, state)
        words = logits.argmax(1).masked_fill(ended, STOP)
        ended |= words == STOP
        if bool(ended.all()):
            break
        said.append(words)
    return _sentences(torch.stack(said, 1)) if said else [[] for _ in features]


@torch.no_grad()
def beam_search(
    model: NeuralTalk,
    features: Tensor,
    width: int,
    length_penalty: float = 0.0,
    most: int = MOST_WORDS,
) -> list[list[int]]:
    """The best of ``width`` sentences that grow side by side, for each image of (B, F).

    A sentence counts as its log-probability over its steps (words and END) to the power of
    ``length_penalty``: 0 is NeuralTalk's sum, which likes short sentences, 1 the mean. Each step
    takes every open sentence further by every word and keeps the best ``width`` of these and of the
    ended ones; at the end, or after ``most`` words, the best one is the answer. Width 1 is
    `greedy`.
    """
    if width < 1 or most < 1:
        raise ValueError(f"width and most must be at least 1, got {width} and {most}")
    images, device = len(features), features.device
    if not images:
        return []
    state = tuple(
        part.repeat_interleave(width, 1) for part in model.look(features)
    )  # (1, B * W, H)
    total = features.new_full(
        (images, width), -torch.inf
    )  # log-probabilities; the beam begins with one sentence
    total[:, 0] = 0
    steps = torch.zeros(images, width, device=device)
    ended = torch.zeros(images, width, dtype=torch.bool, device=device)
    said = torch.zeros(images, width, 0, dtype=torch.long, device=device)
    last = torch.full((images, width), STOP, device=device)
    row = torch.arange(images, device=device).unsqueeze(1)
    for _ in range(most):
        logits, state = model.say(last.flatten(), (state[0], state[1]))
        further = logits.log_softmax(1).view(images, width, -1)  # (B, W, V)
        further = further.masked_fill(ended.unsqueeze(2), -torch.inf)
        further[..., STOP] = further[..., STOP].where(
            ~ended, 0.0
        )  # an ended sentence stays as it is
        sums = total.unsqueeze(2) + further
        grown = steps + ~ended
        ranks = (sums / grown.unsqueeze(2) ** length_penalty).flatten(1)  # (B, W * V)
        best = ranks.topk(width, dim=1).indices
        source, last = best // further.shape[2], best % further.shape[2]
        total, steps = sums.flatten(1).gather(1, best), grown.gather(1, source)
        said = torch.cat((said[row, source], last.unsqueeze(2)), 2)
        ended = ended.gather(1, source) | (last == STOP)
        moved = (row * width + source).flatten()
        state = (state[0][:, moved], state[1][:, moved])
        if bool((ended | (total == -torch.inf)).all()):
            break
    winner = (total / steps**length_penalty).argmax(1)
    return _sentences(said[row.squeeze(1), winner])


def _sentences(words: Tensor) -> list[list[int]]:
    """Rows (B, T) up to their first STOP."""
    return [row[: row.index(STOP)] if STOP in row else row for row in words.tolist()]
