import copy
import itertools

import pytest
import torch
from lightning.pytorch.plugins.precision import DoublePrecision
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from redense import prunable
from redense.recipes.speech.batches import Spoken
from redense.recipes.speech.models import (
    DeepSpeech1,
    DeepSpeech2,
    Padded,
    deepspeech1,
    deepspeech2,
    frames_after,
)
from redense.recipes.speech.readers import Utterance
from redense.recipes.speech.recurrent import CELLS, SharedRecurrent, recurrent
from redense.recipes.speech.task import SpeechTask

LENGTHS = torch.tensor([17, 40, 1, 33])
SMALL = {
    "deepspeech1": lambda cell="rnn": deepspeech1(13, 7, width=12, context=5, cell=cell),
    "deepspeech1-stride": lambda cell="rnn": deepspeech1(
        13, 7, width=12, context=5, stride=3, cell=cell
    ),
    "deepspeech2": lambda cell="rnn": deepspeech2(13, 7, width=12, layers=2, filters=3, cell=cell),
    "deepspeech2-stride": lambda cell="rnn": deepspeech2(
        13, 7, width=12, layers=2, filters=3, stride=4, cell=cell
    ),
}
NETWORKS = list(itertools.product(SMALL, CELLS))


def sizes_of(model: nn.Module) -> dict[str, int]:
    """Parameters of each layer."""
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        layer = ".".join(part for part in name.split(".")[:2] if part not in ("weight", "bias"))
        found[layer] = found.get(layer, 0) + parameter.numel()
    return found


def sounds(seed: int, lengths: torch.Tensor = LENGTHS, bins: int = 13, longest: int = 0) -> Padded:
    data = torch.randn(
        len(lengths),
        max(int(lengths.max()), longest),
        bins,
        generator=torch.Generator().manual_seed(seed),
    )
    return Padded(data.double(), lengths)


def alone(batch: Padded, number: int) -> Padded:
    length = batch.lengths[number : number + 1]
    return Padded(batch.data[number : number + 1, : int(length)], length)


def evaluated(name: str, cell: str) -> nn.Module:
    """A small network with batch-norm statistics of some training, in eval mode."""
    torch.manual_seed(0)
    model = SMALL[name](cell).double()
    for seed in range(3):
        model(sounds(seed))
    return model.eval()


def test_deepspeech1_has_the_papers_8139805_parameters_layer_by_layer():
    with torch.device("meta"):
        model = deepspeech1()
    assert sizes_of(model) == {
        "fully_connected.0": 161 * 11 * 1024 + 1024,
        "fully_connected.1": 1024 * 1024 + 1024,
        "fully_connected.2": 1024 * 1024 + 1024,
        "fully_connected.3": 1024 * 1024 + 1024,
        "recurrent.input": 1024 * 1024 + 1024,
        "recurrent.weight_hh": 1024 * 1024,
        "recurrent.weight_hh_reverse": 1024 * 1024,
        "output": 1024 * 29 + 29,
    }
    assert sum(p.numel() for p in model.parameters()) == 8_139_805


def test_deepspeech2_has_67_7_million_parameters_layer_by_layer():
    with torch.device("meta"):
        model = deepspeech2()
    width, convolved = 1760, 32 * 41  # 161 bins become 81, then 41
    assert sizes_of(model) == {
        "convolutions.0": 32 * 41 * 11,
        "convolutions.1": 32 * 32 * 21 * 11,
        "norms.0": 2 * 32,
        "norms.1": 2 * 32,
        "recurrent.0": convolved * width + 2 * width**2 + 2 * width,
        **{f"recurrent.{n}": 3 * width**2 + 2 * width for n in range(1, 7)},
        "fully_connected": width**2 + width,
        "output": width * 29 + 29,
    }
    assert sum(p.numel() for p in model.parameters()) == 67_687_293


@pytest.mark.parametrize(("name", "cell"), NETWORKS)
def test_an_utterance_gives_the_same_alone_and_padded_in_a_batch(name: str, cell: str):
    model, batch = evaluated(name, cell), sounds(9, longest=60)
    batch.data[~valid(batch)] = float("nan")
    together = model(batch)
    for number in range(len(LENGTHS)):
        single = model(alone(batch, number))
        assert int(single.lengths) == int(together.lengths[number])
        torch.testing.assert_close(
            single.data[0], together.data[number, : int(single.lengths)], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(("name", "cell"), NETWORKS)
def test_gradients_of_a_padded_batch_are_the_sum_of_single_ones(name: str, cell: str):
    model, batch = evaluated(name, cell), sounds(9, longest=60)
    model(batch).data.square().sum().backward()  # pad_packed_sequence's zeros add nothing
    together = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    for number in range(len(LENGTHS)):
        model(alone(batch, number)).data.square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, together[key], rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_padding_is_not_in_the_training_statistics(name: str):
    torch.manual_seed(0)
    model = SMALL[name]().double()
    other, batch = copy.deepcopy(model), sounds(4)
    longer = Padded(torch.nn.functional.pad(batch.data, (0, 0, 0, 25), value=100.0), batch.lengths)
    torch.testing.assert_close(model(batch).data, other(longer).data, rtol=0, atol=1e-12)
    for (key, mine), theirs in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_a_stride_gives_as_many_frames_as_it_says(name: str):
    model = evaluated(name, "rnn")
    assert torch.equal(model(sounds(1)).lengths, frames_after(LENGTHS, model.stride))


def test_the_recurrence_equals_a_loop_over_time_with_autograd():
    torch.manual_seed(0)
    layer = SharedRecurrent(5, 6, norm=False).double()
    with torch.no_grad():
        (
            layer.weight_hh.mul_(4),
            layer.weight_hh_reverse.mul_(4),
            layer.input.weight.mul_(8),
        )  # some states saturate
    batch = sounds(3, bins=5)
    results = []
    for forward in (layer, lambda packed: slow(layer, packed)):
        layer.zero_grad()
        data = batch.data.clone().requires_grad_()
        out = forward(
            pack_padded_sequence(data, batch.lengths, batch_first=True, enforce_sorted=False)
        ).data
        (out * torch.linspace(-1, 1, out.numel()).double().view_as(out)).sum().backward()
        results.append([out, data.grad, *(p.grad.clone() for p in layer.parameters())])
    assert (results[0][0] >= 20).any()
    assert (results[0][0] == 0).any()
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


def test_unclipped_it_equals_torchs_rnn_with_one_input_matrix():
    torch.manual_seed(0)
    layer = SharedRecurrent(5, 6, norm=False).double()
    theirs = nn.RNN(5, 6, nonlinearity="relu", bidirectional=True).double()
    with torch.no_grad():
        for end in ("", "_reverse"):
            getattr(theirs, f"weight_ih_l0{end}").copy_(layer.input.weight)
            getattr(theirs, f"bias_ih_l0{end}").copy_(layer.input.bias)
            getattr(theirs, f"bias_hh_l0{end}").zero_()
            getattr(theirs, f"weight_hh_l0{end}").copy_(getattr(layer, f"weight_hh{end}"))
    packed = pack_padded_sequence(
        sounds(3, bins=5).data, LENGTHS, batch_first=True, enforce_sorted=False
    )
    both = theirs(packed)[0].data
    assert both.max() < 20
    torch.testing.assert_close(layer(packed).data, both[:, :6] + both[:, 6:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", [deepspeech1(width=8), deepspeech2(width=8, layers=3, filters=2)])
def test_only_fully_connected_and_recurrent_weights_are_pruned(model: DeepSpeech1 | DeepSpeech2):
    chosen = set(prunable(model, SpeechTask.prunes))
    matrices = {key for key, p in model.named_parameters() if p.ndim > 1}
    assert matrices - chosen == {
        key for key in matrices if key.startswith(("convolutions", "output"))
    }
    assert len([key for key in chosen if "weight_hh" in key]) == 2 * (
        3 if isinstance(model, DeepSpeech2) else 1
    )


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gated_cells_have_torchs_weights_pruned_too(cell: str):
    chosen = prunable(deepspeech2(width=8, layers=1, filters=2, cell=cell), SpeechTask.prunes)
    assert [key for key in chosen if "recurrent" in key] == [
        f"recurrent.0.cells.weight_{kind}_l0{end}"
        for end in ("", "_reverse")
        for kind in ("ih", "hh")
    ]


def test_an_unknown_cell_or_an_even_context_is_refused():
    with pytest.raises(ValueError, match="cell must be one of rnn, gru, lstm, got 'elman'"):
        recurrent("elman", 3, 3, norm=False)
    with pytest.raises(ValueError, match=r"context must be odd.* got 10"):
        deepspeech1(context=10)


def valid(batch: Padded) -> torch.Tensor:
    return torch.arange(batch.data.shape[1]) < batch.lengths.unsqueeze(1)


def slow(layer: SharedRecurrent, packed: PackedSequence) -> PackedSequence:
    """One utterance after the other, one frame after the other."""
    drive, lengths = pad_packed_sequence(packed._replace(data=layer.input(packed.data)))
    found = []
    for number, length in enumerate(lengths):
        directions = []
        for weight, order in (
            (layer.weight_hh, range(length)),
            (layer.weight_hh_reverse, reversed(range(length))),
        ):
            state, states = torch.zeros(len(weight)).double(), {}
            for t in order:
                state = (drive[t, number] + weight @ state).clamp(0, 20)
                states[t] = state
            directions.append(torch.stack([states[t] for t in range(length)]))
        found.append(sum(directions))
    return pack_padded_sequence(nn.utils.rnn.pad_sequence(found), lengths, enforce_sorted=False)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_trained_on_in_double_precision(name):
    batch = (Padded(torch.randn(4, 40, 13), LENGTHS), said("ab", "a"))
    sounds, spoken = DoublePrecision().convert_input(batch)
    assert spoken == batch[1]
    model = SMALL[name]().double()
    assert model(sounds).data.dtype == torch.float64
    assert torch.equal(model(sounds).data, model(batch[0]).data)


def said(*texts: str) -> Spoken:
    symbols = Padded(torch.ones(len(texts), 2, dtype=torch.long), torch.tensor([2, 1]))
    return Spoken(symbols, tuple(Utterance("", text) for text in texts))
