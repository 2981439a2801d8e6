"""Families of models, each a tiny random one: hold, two steps, release, two steps, and the weights
load strictly into the untouched class."""

import warnings

import pytest
import timm
import torch
import transformers
from torch import nn
from torchvision import models as zoo

import redense

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}


def pictures(size=32):
    return (torch.randn(2, 3, size, size),)


def of_transformers(kind, **config):
    settings = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    made = getattr(transformers, kind)
    return made(made.config_class(**settings | config))


TEXT = {"input_ids": torch.arange(2, 14).view(2, 6)}
HEADS = {"intermediate_size": 32, "num_key_value_heads": 2}
FAMILIES = {
    "torchvision resnet": (lambda: zoo.resnet18(num_classes=4), pictures),
    "torchvision mobilenet": (lambda: zoo.mobilenet_v3_small(num_classes=4), pictures),
    "timm vit": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", img_size=32, patch_size=4, depth=1, embed_dim=24, num_classes=4
        ),
        pictures,
    ),
    "timm convnext": (
        lambda: timm.create_model(
            "convnext_atto", depths=(1, 1, 1, 1), dims=(4, 8, 8, 8), num_classes=4
        ),
        pictures,
    ),
    "timm swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224",
            img_size=56,
            window_size=7,
            depths=(1, 1),
            embed_dim=12,
            num_heads=(1, 2),
            num_classes=4,
        ),
        lambda: pictures(56),
    ),
    "timm mobilenet": (lambda: timm.create_model("mobilenetv3_small_050", num_classes=4), pictures),
    "timm efficientnet": (lambda: timm.create_model("efficientnet_b0", num_classes=4), pictures),
    "bert": (
        lambda: of_transformers("BertForSequenceClassification", intermediate_size=32, **TINY),
        TEXT,
    ),
    "gpt2": (
        lambda: of_transformers(
            "GPT2ForSequenceClassification",
            n_embd=16,
            n_layer=1,
            n_head=2,
            vocab_size=20,
            n_positions=8,
        ),
        TEXT,
    ),
    "llama": (lambda: of_transformers("LlamaForSequenceClassification", **TINY, **HEADS), TEXT),
    "mixtral": (
        lambda: of_transformers("MixtralForCausalLM", num_local_experts=4, **TINY, **HEADS),
        TEXT,
    ),
    "t5": (
        lambda: of_transformers(
            "T5ForConditionalGeneration",
            d_model=16,
            d_ff=32,
            d_kv=8,
            num_layers=1,
            num_heads=2,
            vocab_size=20,
            decoder_start_token_id=0,
        ),
        TEXT | {"labels": TEXT["input_ids"]},
    ),
    "mamba": (
        lambda: of_transformers(
            "MambaForCausalLM", hidden_size=16, num_hidden_layers=1, vocab_size=20, state_size=4
        ),
        TEXT,
    ),
    "transformer": (
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        lambda: (torch.randn(2, 3, 8), torch.randn(2, 3, 8)),
    ),
    "lstm with projection": (
        lambda: nn.LSTM(4, 8, proj_size=2, num_layers=2),
        lambda: (torch.randn(3, 2, 4),),
    ),
}


def loss_of(model, inputs):
    given = inputs() if callable(inputs) else inputs
    output = model(**given) if isinstance(given, dict) else model(*given)
    if hasattr(output, "logits"):
        return output.logits.square().mean()
    return (output[0] if isinstance(output, tuple) else output).square().mean()


def two_steps(model, optimizer, inputs):
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model, inputs).backward()
        optimizer.step()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_family_is_held_released_and_loads_into_its_own_class(family, tmp_path):
    build, inputs = FAMILIES[family]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied embeddings, and the libraries' own
        model = build()
        names = list(model.state_dict())
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        with redense.sparse(model, optimizer, 0.5) as held:
            two_steps(model, optimizer, inputs)
            for name, mask in held.masks.items():
                assert not model.get_parameter(name)[~mask].any(), name
                assert int((~mask).sum()) == round(0.5 * mask.numel())
        two_steps(model, optimizer, inputs)
        assert redense.prunable(model).share >= 0.5
        assert list(model.state_dict()) == names
        assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
        again = build()
        again.load_state_dict(model.state_dict(), strict=True)


def test_gpt2_is_held_whole_and_not_its_head_alone():
    model = FAMILIES["gpt2"][0]()
    assert redense.prunable(model).share == 1.0


def test_experts_of_mixtral_are_held():
    model = FAMILIES["mixtral"][0]()
    held = redense.prunable(model)
    assert any("expert" in name for name in held)
    assert held.share > 0.9


def test_scaled_and_standardised_convolutions_of_nfnets_are_refused_by_name():
    with torch.device("meta"):
        model = timm.create_model("nfnet_f0")
    with pytest.raises(ValueError, match="ScaledStdConv2d"):
        redense.prunable(model)
