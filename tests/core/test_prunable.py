"""Which weights a sparse phase may hold: weight matrices, and none of what the paper leaves
alone."""

import ast
import itertools
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torchvision import models as zoo

from redense import prunable


def names(model, **patterns):
    return list(prunable(model, **patterns))


class Everything(nn.Module):
    """One layer of each kind, with a parameter of its own; the first convolution is ``stem``."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 4))
        self.stem = nn.Conv2d(3, 4, 3)
        self.conv1d = nn.Conv1d(4, 4, 3)
        self.conv3d = nn.Conv3d(4, 4, 3, bias=False)
        self.up = nn.ConvTranspose2d(4, 4, 3)
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm2d(4),
                nn.GroupNorm(2, 4),
                nn.LayerNorm((4, 4)),
                nn.RMSNorm((4, 4)),
                nn.InstanceNorm2d(4, affine=True),
            ]
        )
        self.embedding = nn.Embedding(9, 4)
        self.bag = nn.EmbeddingBag(9, 4)
        self.prelu = nn.PReLU(4)
        self.linear = nn.Linear(4, 4)
        self.bilinear = nn.Bilinear(4, 4, 4)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.cross = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
        self.lstm = nn.LSTM(4, 4, num_layers=2, bidirectional=True, proj_size=2)
        self.gru = nn.GRU(4, 4)
        self.rnn = nn.RNN(4, 4)
        self.cells = nn.ModuleList([nn.LSTMCell(4, 4), nn.GRUCell(4, 4), nn.RNNCell(4, 4)])


RECURRENT = [
    f"weight_{kind}_l{layer}{way}"
    for layer in (0, 1)
    for way in ("", "_reverse")
    for kind in ("ih", "hh", "hr")
]
CHOSEN = [
    "conv1d.weight",
    "conv3d.weight",
    "up.weight",
    "linear.weight",
    "bilinear.weight",
    "attention.in_proj_weight",
    "attention.out_proj.weight",
    "cross.q_proj_weight",
    "cross.k_proj_weight",
    "cross.v_proj_weight",
    "cross.out_proj.weight",
    *(f"lstm.{name}" for name in RECURRENT),
    *(f"{layer}.weight_{kind}_l0" for layer in ("gru", "rnn") for kind in ("ih", "hh")),
    *(f"cells.{number}.weight_{kind}" for number in range(3) for kind in ("ih", "hh")),
]


def test_every_weight_matrix_is_named_and_nothing_else():
    model = Everything()
    assert sorted(names(model)) == sorted(CHOSEN)


def test_what_is_named_is_the_model_s_own_parameter():
    model = Everything()
    assert all(model.get_parameter(name) is weight for name, weight in prunable(model).items())


def test_an_include_may_add_the_first_convolution_and_own_parameters_but_no_bias_or_norm():
    chosen = names(Everything(), include="*")
    assert set(chosen) == {*CHOSEN, "stem.weight", "scale"}


@pytest.mark.parametrize(
    ("build", "first", "count"),
    [
        (zoo.resnet18, "conv1.weight", 21),
        (zoo.vgg16, "features.0.weight", 16),
        (zoo.googlenet, "conv1.conv.weight", 64),
    ],
)
def test_torchvision_models_keep_their_first_convolution_and_lose_all_others(build, first, count):
    extra = {"aux_logits": True, "init_weights": False} if build is zoo.googlenet else {}
    with torch.device("meta"):
        model = build(**extra)
    matrices = [name for name, weight in model.named_parameters() if weight.ndim >= 2]
    assert matrices[0] == first
    assert len(matrices) == count
    assert names(model) == matrices[1:]
    assert any("aux1" in name for name in matrices) == (build is zoo.googlenet)


def test_include_replaces_the_choice_and_exclude_is_taken_off_after_it():
    model = Everything()
    assert names(model, include="gru.*") == ["gru.weight_ih_l0", "gru.weight_hh_l0"]
    assert names(model, include=["stem.*", "linear.*"]) == ["stem.weight", "linear.weight"]
    assert names(model, include="*.weight_hh_l0", exclude=("lstm.*", "rnn.*")) == [
        "gru.weight_hh_l0"
    ]
    assert set(names(model, exclude="linear.weight")) == {*CHOSEN} - {"linear.weight"}


@pytest.mark.parametrize("argument", ["include", "exclude"])
@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("linaer.weight", "near names: linear.weight"),
        ("Linear.weight", "near names: linear.weight"),
        ("lstm.weight_ih_l3", "near names: lstm.weight_ih_l"),
        (
            "linear.bias",
            "linear.bias is a bias, a normalisation, an embedding, frozen, or has one dimension",
        ),
        ("norms.*", "norms.0.weight is a bias, a normalisation"),
        ("embedding.weight", "embedding.weight is a bias, a normalisation, an embedding"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_with_near_names(argument, pattern, hint):
    with pytest.raises(
        ValueError, match=f"{argument}={pattern!r} matches no prunable weight".replace("*", r"\*")
    ) as raised:
        prunable(Everything(), **{argument: ["*.weight", pattern]})
    assert hint in str(raised.value)


def test_one_pattern_of_several_that_matches_nothing_is_an_error_too():
    with pytest.raises(ValueError, match="include='liner'"):
        prunable(Everything(), include=["linear.*", "liner"])


def test_a_model_without_prunable_weights_is_an_error_that_says_what_is_missing():
    only_first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(
        ValueError, match=r"no prunable weight in Sequential.*after the first.*include='\*'"
    ):
        prunable(only_first)
    assert names(only_first, include="*") == ["0.weight"]
    with pytest.raises(ValueError, match="the model has none"):  # not even near names
        prunable(nn.Sequential(nn.BatchNorm2d(4)), include="1.weight")


class Tied(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
        self.second.weight = self.first.weight


def test_a_weight_of_two_layers_is_named_once():
    assert names(Tied(nn.Linear(4, 4), nn.Linear(4, 4))) == ["first.weight"]


def test_the_other_name_of_a_tied_weight_is_an_error_that_says_which_to_use():
    with pytest.raises(ValueError, match=r"second.weight is tied to first.weight: use that name"):
        prunable(Tied(nn.Linear(4, 4), nn.Linear(4, 4)), exclude="second.*")


def test_a_shared_module_is_named_once():
    layer = nn.Linear(4, 4)
    assert names(nn.Sequential(layer, nn.ReLU(), layer)) == ["0.weight"]


def test_a_linear_layer_s_weight_is_chosen_though_the_model_holds_it_itself_first():
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(4, 4))
            self.linear = nn.Linear(4, 4)
            self.linear.weight = self.matrix

    assert names(Owner()) == ["matrix"]


@pytest.mark.parametrize("embedding_first", [True, False])
def test_a_weight_tied_to_an_embedding_is_left_out_with_a_warning_that_names_both(embedding_first):
    pair = [nn.Embedding(4, 4), nn.Linear(4, 4)]
    model = nn.Sequential(Tied(*(pair if embedding_first else pair[::-1])), nn.Linear(4, 4))
    tied, embedding = ("second", "first") if embedding_first else ("first", "second")
    with pytest.warns(
        UserWarning, match=f"0.{tied}.weight is tied to the embedding 0.{embedding}.weight"
    ) as caught:
        assert names(model) == ["1.weight"]
    assert len(caught) == 1


def test_two_tied_embeddings_are_no_news():
    assert names(nn.Sequential(Tied(nn.Embedding(4, 4), nn.Embedding(4, 4)), nn.Linear(4, 4))) == [
        "1.weight"
    ]


def test_frozen_weights_are_left_out_and_a_pattern_that_means_one_says_so():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    assert names(model) == ["1.weight"]
    with pytest.raises(ValueError, match=r"0.weight is a bias, .* frozen"):
        prunable(model, include="0.*")


def test_a_lazy_layer_is_an_error_until_it_has_a_shape():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"0.weight has no shape yet; run one batch"):
        prunable(model)
    model(torch.zeros(1, 3))
    assert names(model) == ["0.weight", "2.weight"]


def with_weight_norm(layer):
    return parametrizations.weight_norm(layer)


def with_old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and in many a vocoder
        return nn.utils.weight_norm(layer)


def with_spectral_norm(layer):
    return parametrizations.spectral_norm(layer)


def with_torch_prune(layer):
    return prune.l1_unstructured(layer, "weight", 0.5)


COMPUTED = [with_weight_norm, with_old_weight_norm, with_spectral_norm, with_torch_prune]


@pytest.mark.parametrize("wrap", COMPUTED)
def test_a_layer_whose_weight_is_computed_from_others_is_an_error_with_three_remedies(wrap):
    model = nn.Sequential(nn.Linear(4, 4), wrap(nn.Linear(4, 4)))
    with pytest.raises(
        ValueError, match=r"^1\..* is not a weight but a part that one is computed from"
    ) as raised:
        prunable(model)
    for remedy in ("undo", "exclude=['1.", "include"):
        assert remedy in str(raised.value)
    parts = [
        name
        for name, weight in model.named_parameters()
        if name.startswith("1.") and weight.shape == (4, 4)  # (4, 1) is weight_norm's scale
    ]
    assert f"exclude={parts}" in str(raised.value)
    assert names(model, exclude=parts) == ["0.weight"]
    assert names(model, include=parts[-1]) == parts[-1:]


def test_parametrized_layers_that_were_never_chosen_are_no_error():
    stem, embedding = with_weight_norm(nn.Conv1d(3, 4, 3)), nn.Embedding(5, 4)
    parametrize.register_parametrization(embedding, "weight", nn.Identity())
    assert names(nn.Sequential(stem, embedding, nn.Linear(4, 4))) == ["2.weight"]


def test_a_layer_is_prunable_again_after_its_parametrization_is_removed():
    layer = with_weight_norm(nn.Linear(4, 4))
    parametrize.remove_parametrizations(layer, "weight")
    assert names(nn.Sequential(layer)) == ["0.weight"]


def test_the_model_itself_may_be_the_layer():
    assert names(nn.Linear(4, 4)) == ["weight"]
    with pytest.raises(ValueError, match=r"^parametrizations.weight.original1 is not a weight"):
        prunable(with_weight_norm(nn.Linear(4, 4)))


def test_the_order_is_the_model_s():
    model = Everything()
    order = [name for name, _ in model.named_parameters()]
    chosen = names(model)
    assert all(order.index(a) < order.index(b) for a, b in itertools.pairwise(chosen))


# Selection


@pytest.mark.parametrize(
    "nothing",
    [[], (), set(), (name for name in [])],
    ids=lambda given: type(given).__name__,
)
def test_an_empty_include_is_an_error_and_not_everything(nothing):
    with pytest.raises(ValueError, match="is empty and would hold nothing; pass include=None"):
        prunable(Everything(), include=nothing)


def test_an_empty_exclude_leaves_nothing_out():
    assert names(Everything(), exclude=[]) == names(Everything())


def test_layers_are_chosen_by_type_and_by_function_as_well():
    model = Everything()
    assert names(model, include=nn.GRU) == ["gru.weight_ih_l0", "gru.weight_hh_l0"]
    assert names(model, include=[nn.GRU, "linear.*"], exclude="*_hh_*") == [
        "linear.weight",
        "gru.weight_ih_l0",
    ]
    assert names(model, include=lambda name, weight: weight.ndim == 5) == ["conv3d.weight"]
    assert "linear.weight" not in names(model, exclude=nn.Linear)


def test_a_type_or_function_that_picks_nothing_is_an_error():
    with pytest.raises(ValueError, match="include=Conv2d matches no prunable weight"):
        prunable(nn.Linear(4, 4), include=nn.Conv2d)
    with pytest.raises(TypeError, match=r"include must be a pattern, .* got 3"):
        prunable(nn.Linear(4, 4), include=3)


def test_a_name_with_brackets_is_itself_and_no_pattern():
    model = nn.ModuleDict({"a[0]": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    assert names(model, exclude="a[0].weight") == ["b.weight"]
    assert names(model, include="a[0].weight") == ["a[0].weight"]


def test_names_hold_for_compiled_and_wrapped_models_too():
    model = nn.ModuleDict({"module": nn.ModuleDict({"_orig_mod": nn.Sequential(nn.Linear(4, 4))})})
    assert names(model, include="0.weight") == ["module._orig_mod.0.weight"]


# What is held of other libraries' layers


def transposed_linear():
    from transformers.pytorch_utils import Conv1D

    return Conv1D(6, 4)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 4, 8))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(3, 8))


def test_a_layer_of_another_library_is_held_where_its_matrix_is_its_weight():
    assert names(nn.Sequential(transposed_linear())) == ["0.weight"]


def test_fused_experts_are_held():
    assert names(nn.Sequential(Experts(), nn.Linear(4, 4))) == ["0.gate_up_proj", "1.weight"]


@pytest.mark.parametrize("kind", ["PatchEmbed", "ScaleNorm", "Codebook"])
def test_another_library_s_embeddings_and_norms_are_not_held(kind):
    layer = type(kind, (nn.Module,), {})()
    layer.weight = nn.Parameter(torch.randn(4, 4))
    assert names(nn.Sequential(layer, nn.Linear(4, 4))) == ["1.weight"]


def test_a_gain_of_one_weight_per_channel_is_no_matrix():
    convolution = nn.Conv2d(4, 8, 3)
    convolution.gain = nn.Parameter(torch.ones(8, 1, 1, 1))
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), convolution, nn.Conv2d(8, 8, 1, groups=8))
    assert names(layers) == ["1.weight"]
    assert prunable(layers).skipped["1.gain"] == "a scale, one weight per channel"


def test_depthwise_convolutions_and_layers_of_one_row_are_held():
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), depthwise, nn.Linear(8, 1), nn.Linear(1, 8))
    assert names(model) == ["1.weight", "2.weight", "3.weight"]


class StdConv2d(nn.Conv2d):
    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, self.weight - mean, self.bias)


class ViaHelper(nn.Linear):
    def standardised(self):
        return torch.nn.functional.layer_norm(self.weight, self.weight.shape[1:])

    def forward(self, x):
        return x @ self.standardised().T


class Cosine(nn.Linear):
    def forward(self, x):
        return x @ nn.functional.normalize(self.weight, dim=1).T  # a zero stays a zero


@pytest.mark.parametrize("layer", [StdConv2d(4, 4, 1), ViaHelper(4, 4)])
def test_a_layer_that_takes_the_mean_off_its_weight_is_refused_by_name(layer):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.Linear(4, 4))
    with pytest.raises(ValueError, match=rf"^1\.weight .* {type(layer).__name__}.*exclude=\['1"):
        prunable(model)
    assert names(model, exclude=type(layer)) == ["2.weight"]


def test_a_layer_that_scales_its_weight_keeps_zeros_and_is_held():
    assert names(Cosine(4, 4)) == ["weight"]


@pytest.mark.parametrize("wrap", COMPUTED)
def test_all_layers_with_a_computed_weight_are_named_in_one_error_whose_advice_suffices(wrap):
    model = nn.Sequential(*(wrap(nn.Linear(4, 4)) for _ in range(12)), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"^0\..* \(and 11 more\)") as raised:
        prunable(model)
    advised = re.search(r"exclude=(\[[^\]]*\])", str(raised.value))[1]
    assert names(model, exclude=ast.literal_eval(advised)) == ["12.weight"]


# The table


def test_the_table_says_what_is_held_what_is_not_and_why():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4))
    held = prunable(model)
    assert held.skipped == {
        "0.weight": "the first convolution",
        "0.bias": "a bias",
        "1.weight": "a normalisation",
        "1.bias": "a normalisation",
        "2.bias": "a bias",
    }
    lines = str(held).splitlines()
    assert lines[0].split() == ["weight", "layer", "shape", "times", "weights", "why", "not"]
    assert lines[1].endswith("the first convolution")
    assert any(
        line.split() == ["held", "2.weight", "Linear", "4", "x", "4", "16"] for line in lines
    )
    assert repr(held) == str(held)


def test_equal_layers_are_one_line():
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(12)))
    lines = str(prunable(model)).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["held", "*.weight", "Linear", "4", "x", "4", "12", "192"]


def test_less_than_half_of_the_matrix_weights_is_a_warning_line():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    assert "warning" not in str(prunable(model))
    model[0].requires_grad_(False)
    assert prunable(model).share == 0.2
    assert "warning: less than half of the matrix weights may be held" in str(prunable(model))


def test_adapters_of_peft_are_said_to_be_what_is_held():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2)), LoraConfig(target_modules=["0"])
    )
    held = prunable(model)
    assert all("lora_" in name for name in held)
    assert "PEFT: what is held are the adapters" in str(held)
    assert "warning: less than half" in str(held)
