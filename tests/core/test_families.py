"""Families of models, each a tiny random one: hold, two steps, release, two steps, and the weights
load strictly into the untouched class."""

import warnings

import peft
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
    "whisper": (
        lambda: of_transformers(
            "WhisperForConditionalGeneration",
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            vocab_size=20,
            num_mel_bins=4,
            max_source_positions=8,
            max_target_positions=8,
            decoder_start_token_id=0,
        ),
        lambda: {"input_features": torch.randn(2, 4, 16), "labels": TEXT["input_ids"]},
    ),
    "vit": (
        lambda: of_transformers(
            "ViTForImageClassification",
            image_size=8,
            patch_size=4,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        lambda: {"pixel_values": torch.randn(2, 3, 8, 8)},
    ),
    "timm maxvit": (
        lambda: timm.create_model("maxvit_rmlp_pico_rw_256", img_size=64, num_classes=4),
        lambda: pictures(64),
    ),
    "torchvision segmentation": (
        lambda: zoo.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3
        ),
        pictures,
    ),
    "torchvision detection": (
        lambda: zoo.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
        ),
        lambda: (
            [torch.rand(3, 64, 64)] * 2,
            [{"boxes": torch.tensor([[2.0, 2.0, 30.0, 30.0]]), "labels": torch.tensor([1])}] * 2,
        ),
    ),
    "peft lora": (
        lambda: peft.get_peft_model(
            of_transformers("BertForSequenceClassification", intermediate_size=32, **TINY),
            peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights="gaussian"),
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
    if isinstance(output, dict):  # a map of classes, or a detector's losses
        return sum(part.square().mean() for part in output.values())
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
        weights = redense.prunable(model)
        adapters = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert weights.share >= 0.5 or (family == "peft lora" and {*weights} <= adapters)
        assert list(model.state_dict()) == names
        assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
        again = build()
        again.load_state_dict(model.state_dict(), strict=True)


CLASSIFIERS = [
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s"),
    *("googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small"),
    *("regnet_x_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0"),
    *("swin_t", "swin_v2_t", "vgg11", "vit_b_32", "wide_resnet50_2"),
]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_of_torchvision_s_classifiers_nearly_all_matrix_weights_may_be_held(name):
    with warnings.catch_warnings(), torch.device("meta" if "regnet" not in name else "cpu"):
        warnings.simplefilter("ignore")  # of two that initialise slowly
        held = redense.prunable(zoo.get_model(name, weights=None))
    assert held.share > 0.97
    assert {"a bias", "a normalisation", "the first convolution"} & set(held.skipped.values())


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
