"""Held means held in the places that people take a model to: penalties, checkpointed activations,
casts, finders, toggled optimizers, other processes."""

import copy

import pytest
import torch
from accelerate import Accelerator
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.ao import quantization
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import redense
from redense.lightning import DSDCallback


def build(kind=torch.optim.AdamW, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    return model, kind(model.parameters(), **({"lr": 1e-2} | settings))


def loss_of(model, dtype=torch.float32):
    return model(torch.randn(16, 8, dtype=dtype)).square().mean()


def assert_held(model, held):
    for name, mask in held.masks.items():
        weight = model.get_parameter(name)
        assert not weight[~mask].any(), name
        assert weight[mask].any(), name


def penalised(model):
    inputs = torch.randn(16, 8, requires_grad=True)
    loss = model(inputs).square().mean()
    (slope,) = torch.autograd.grad(loss, inputs, create_graph=True)
    (loss + slope.square().sum()).backward()


def graph_of_gradients(model):
    loss = loss_of(model)
    gradients = torch.autograd.grad(loss, model.parameters(), create_graph=True)
    (loss + sum(gradient.square().sum() for gradient in gradients)).backward()


def functional(model):
    weights = dict(model.named_parameters())
    inputs = torch.randn(16, 8)

    def loss(weights):
        return torch.func.functional_call(model, weights, inputs).square().mean()

    for name, gradient in torch.func.grad(loss)(weights).items():
        weights[name].grad = gradient.detach()


def checkpointed(reentrant):
    def backward(model):
        inputs = torch.randn(16, 8, requires_grad=True)
        checkpoint(model, inputs, use_reentrant=reentrant).square().mean().backward()

    return backward


def accumulated_by_hand(model):
    weights = list(model.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss_of(model), weights), strict=True):
        weight.grad = gradient


BACKWARDS = {
    "gradient penalty": penalised,
    "graph of gradients": graph_of_gradients,
    "func.grad": functional,
    "autograd.grad": accumulated_by_hand,
    "checkpoint, reentrant": checkpointed(True),
    "checkpoint, not reentrant": checkpointed(False),
}


@pytest.mark.parametrize("backward", BACKWARDS.values(), ids=BACKWARDS)
def test_weights_are_held_however_their_gradients_come_about(backward):
    model, optimizer = build()
    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(3):
            optimizer.zero_grad()
            backward(model)
            optimizer.step()
            assert_held(model, held)


def test_a_step_inside_backward_holds_its_weight():
    model, _ = build()
    optimizers = {weight: torch.optim.AdamW([weight], lr=1e-2) for weight in model.parameters()}

    def step(weight):
        optimizers[weight].step()
        optimizers[weight].zero_grad()

    hooks = [weight.register_post_accumulate_grad_hook(step) for weight in model.parameters()]
    with redense.sparse(model, optimizers.values(), 0.5) as held:
        for _ in range(3):
            loss_of(model).backward()
            assert_held(model, held)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_cast_inside_a_sparse_phase_stays_held_and_is_released(dtype):
    model, optimizer = build(torch.optim.SGD, momentum=0.9)
    with redense.sparse(model, optimizer, 0.5) as held:
        loss_of(model).backward()
        optimizer.step()
        model.to(dtype)
        optimizer.zero_grad()
        optimizer.state.clear()  # of the old type
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model, dtype).backward()
            optimizer.step()
            assert_held(model, held)
    optimizer.zero_grad()
    loss_of(model, dtype).backward()
    optimizer.step()
    assert model[0].weight[~held.masks["0.weight"]].any()


def test_toggled_optimizers_of_a_gan_hold_both_networks_at_their_own_turns():
    torch.manual_seed(0)
    nets = nn.ModuleDict({"generator": nn.Linear(4, 8), "critic": nn.Linear(8, 4)})
    optimizers = {name: torch.optim.AdamW(net.parameters(), lr=1e-2) for name, net in nets.items()}
    with redense.sparse(nets, optimizers.values(), 0.5) as held:
        for step in range(6):
            turn, other = ("generator", "critic") if step % 2 else ("critic", "generator")
            nets[other].requires_grad_(False)
            nets[turn].requires_grad_(True)
            score = nets["critic"](nets["generator"](torch.randn(8, 4))).square().mean()
            optimizers[turn].zero_grad()
            (score if turn == "generator" else -score).backward()
            optimizers[turn].step()
            nets[other].requires_grad_(True)
            assert_held(nets, held)


def test_accelerate_s_save_and_load_goes_on_in_a_sparse_phase(tmp_path):
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(*build())
    phases = redense.PhaseScheduler(model, optimizer, redense.dsd(0, 3, 1, 0.5))
    accelerator.register_for_checkpointing(phases)

    def train():
        optimizer.zero_grad()
        accelerator.backward(loss_of(model))
        optimizer.step()

    train()
    accelerator.save_state(str(tmp_path))
    saved = copy.deepcopy(model.state_dict())
    masks = dict(phases.held.masks)
    train()
    accelerator.load_state(str(tmp_path))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, saved[name])
    for name, mask in phases.held.masks.items():
        assert torch.equal(mask, masks[name])
    train()
    assert_held(model, phases.held)
    phases.detach()


def test_weights_in_shared_memory_are_held():
    model, optimizer = build(torch.optim.SGD)
    model.share_memory()  # Hogwild
    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            assert_held(model, held)
            assert model[0].weight.is_shared()


def train_beside(model, masks, steps):
    """One process of Hogwild's: an optimizer and a constraint of its own on shared weights."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    held = redense.Constraint(model, optimizer, masks)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    held.detach()


def test_processes_that_train_shared_weights_at_once_hold_them_together():
    model, _ = build(torch.optim.SGD)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    masks = redense.build_masks(redense.prunable(model), 0.5)
    model.share_memory()
    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=train_beside, args=(model, masks, 50)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for name, mask in masks.items():
        weight = dict(model.named_parameters())[name]
        assert not weight[~mask].any()
        assert not torch.equal(weight[mask], before[name][mask])  # the others were trained


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo says where it leaves the graph
def test_compiled_autograd_masks_gradients():
    model, optimizer = build()
    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(2):
            optimizer.zero_grad()
            with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
                loss_of(model).backward()
            assert not model[0].weight.grad[~held.masks["0.weight"]].any()
            optimizer.step()
            assert_held(model, held)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:(?s).*reduce_range")
@pytest.mark.parametrize("when", ["before", "inside", "eager fake quantisation"])
def test_weights_stay_held_beside_quantisation_aware_training(when):
    model, optimizer = build()
    config = quantization.get_default_qat_qconfig_mapping("x86").global_qconfig

    def prepare():
        model.train()
        model.qconfig = config
        quantization.prepare_qat(model, inplace=True)

    if when == "before":
        prepare()
    with redense.sparse(model, optimizer, 0.5) as held:
        if when == "inside":
            prepare()
        for _ in range(3):
            optimizer.zero_grad()
            if when == "eager fake quantisation":
                inputs = torch.randn(16, 8)
                for layer in model:
                    if isinstance(layer, nn.Linear):
                        weight = torch.fake_quantize_per_tensor_affine(layer.weight, 0.01, 0, -8, 7)
                        inputs = nn.functional.linear(inputs, weight, layer.bias)
                    else:
                        inputs = layer(inputs)
                inputs.square().mean().backward()
            else:
                loss_of(model).backward()
            optimizer.step()
            assert_held(model, held)
        if when != "eager fake quantisation":
            quantised = model[0].weight_fake_quant(model[0].weight)
            assert not quantised[~held.masks["0.weight"]].any()
    assert not model[0].weight._post_accumulate_grad_hooks


def test_a_weight_that_fake_quantisation_computes_is_refused_with_the_remedy():
    model, _ = build()
    fake = quantization.FakeQuantize(dtype=torch.qint8, quant_min=-128, quant_max=127)
    nn.utils.parametrize.register_parametrization(model[0], "weight", fake)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    original = "0.parametrizations.weight.original"
    with (
        pytest.raises(ValueError, match=f"{original} is not a weight.*name the parts.*include"),
        redense.sparse(model, optimizer, 0.5),
    ):
        pass
    with redense.sparse(model, optimizer, 0.5, include=[original]) as held:
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            assert_held(model, held)
            assert not model[0].weight[~held.masks[original]].any()


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net, _ = build()
        self.learning_rate, self.batch_size = 1e-2, 4

    def training_step(self, batch, index):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.learning_rate)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(32, 8)), self.batch_size)


@pytest.mark.filterwarnings("ignore:(?s).*(num_workers|logging interval|log_every_n_steps)")
@pytest.mark.parametrize("find", ["lr_find", "scale_batch_size"])
def test_finders_before_the_training_leave_the_plan_at_its_start(tmp_path, find):
    settings = {"num_training": 8} if find == "lr_find" else {"steps_per_trial": 1, "max_trials": 2}
    module, callback = Module(), DSDCallback(redense.dsd(1, 1, 1, 0.5))
    zeros = []
    module.on_train_epoch_end = lambda: zeros.append(int((module.net[0].weight == 0).sum()))
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[callback],
    )
    getattr(Tuner(trainer), find)(module, **settings)
    zeros.clear()
    trainer.fit(module)
    assert zeros == [0, 64, 0]
    assert not any(weight._post_accumulate_grad_hooks for weight in module.parameters())
