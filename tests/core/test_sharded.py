"""Real processes that each hold a shard: the masks and the release of one process that holds it
all, bit for bit.

Two and three gloo processes on this machine run every scene once; the tests read what each scene
said on each rank.
"""

import os
import pickle
import traceback
import warnings

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

import redense
from redense.masks import build_masks, check_agreement
from redense.tensors import selection
from redense.tensors.packing import pack, unpack
from redense.tensors.sharded import shard_of

SECONDS = 300


class Traffic(TorchDispatchMode):
    """Every collective that runs inside the block, and the bytes that this rank hands to it."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional"):
            given = (
                args[1]
                if func._opname.startswith(("allgather", "gather", "reduce_scatter"))
                else args[0]
            )
            self.calls.append((func._opname, sum(tensor.nbytes for tensor in tensors_in(given))))
        return func(*args, **(kwargs or {}))

    @property
    def bytes(self):
        return sum(size for _, size in self.calls)


def tensors_in(given):
    if isinstance(given, torch.Tensor):
        return [given]
    return (
        [tensor for item in given for tensor in tensors_in(item)]
        if isinstance(given, (list, tuple))
        else []
    )


def mesh():
    return init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("shards",))


def weights_of(shapes, dtype=torch.float32, levels=None):
    generator = torch.Generator().manual_seed(0)
    weights = {str(shape): torch.randn(shape, generator=generator) * 0.02 for shape in shapes}
    if levels:
        weights = {
            name: (weight * levels).round_() for name, weight in weights.items()
        }  # many ties, many zeros
    return {name: weight.to(dtype) for name, weight in weights.items()}


UNEVEN = ((1, 9), (2, 3), (5, 7), (64, 3, 3, 3), (7, 1), (301, 400), (4, 90_001))


def scene_sharded_masks_equal_unsharded_ones():
    for dtype, levels, sparsity in (
        (torch.float32, None, 0.3),
        (torch.float32, 50, 0.3),
        (torch.bfloat16, 50, 0.9),
    ):
        weights = weights_of(UNEVEN, dtype, levels)
        shards = {
            name: distribute_tensor(weight, mesh(), [Shard(0)]) for name, weight in weights.items()
        }
        for kind in ("magnitude", "random", "global"):
            whole = build_masks(weights, sparsity, kind)
            for name, mask in build_masks(shards, sparsity, kind).items():
                assert isinstance(mask, DTensor)
                assert mask.placements == shards[name].placements
                assert torch.equal(mask.full_tensor(), whole[name]), (
                    dtype,
                    levels,
                    kind,
                    sparsity,
                    name,
                )


def scene_a_sparsity_for_each_pattern_holds_the_same_of_shards():
    weights = weights_of(UNEVEN, levels=50)
    shards = {
        name: distribute_tensor(weight, mesh(), [Shard(0)]) for name, weight in weights.items()
    }
    sparsity = {"(1, 9)": 0, "(?, *)": 0.9, "(64*": 0.2, "(30*": 0.5}
    for kind in ("magnitude", "random", "global"):
        whole = build_masks(weights, sparsity, kind)
        masks = build_masks(shards, sparsity, kind)
        assert list(masks) == list(whole) == list(weights)[1:]
        for name, mask in masks.items():
            assert torch.equal(mask.full_tensor(), whole[name]), (kind, name)
    with pytest.raises(ValueError, match=r"'\(7\)' matches no weight"):
        build_masks(shards, {"(7)": 0.5})


class Experts(nn.Module):
    """Five experts as two stacks of matrices; two and three ranks hold unequal numbers of them."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.up = nn.Parameter(torch.randn(5, 13, 9, generator=generator))
        self.down = nn.Parameter(torch.randn(5, 9, 1, generator=generator))

    def forward(self, x):
        return torch.einsum("bi,eij,ejk->bk", x, self.up, self.down).clone()


def scene_each_expert_has_its_own_exact_mask_wherever_it_lies():
    plan = redense.dsd(1, 3, 2, {"up": 0.3, "down": 0.6})
    sharded, plain = fully_shard(Experts(), mesh=mesh()), Experts()
    for kind in ("magnitude", "random"):
        alone = build_masks(redense.prunable(plain), 0.3, kind)
        for name, mask in build_masks(redense.prunable(sharded), 0.3, kind).items():
            assert torch.equal(mask.full_tensor(), alone[name]), (kind, name)
    optimizer = torch.optim.AdamW(sharded.parameters(), lr=1e-2)
    phases = redense.PhaseScheduler(sharded, optimizer, plan)

    def zeros():
        return {
            name: (full(weight) == 0).flatten(1).sum(1).tolist()
            for name, weight in sharded.named_parameters()
        }

    seen = []
    for seed in range(len(plan)):
        train(sharded, optimizer, 1, seed)
        seen.append(zeros())
        state = phases.state_dict()
        phases.load_state_dict(state)
        phases.step()
    held = {"up": [35] * 5, "down": [5] * 5}
    free = {"up": [0] * 5, "down": [0] * 5}
    assert [seen[0], *seen[1:4], seen[5]] == [free, held, held, held, free]


def scene_experts_sharded_inside_their_matrices_are_refused_by_name():
    model = Experts()
    up = distribute_tensor(model.up.detach(), mesh(), [Shard(1)])
    model.up = nn.Parameter(up)
    with pytest.raises(NotImplementedError, match=r"up: masks need a tensor .*Shard\(dim=1\)"):
        redense.PhaseScheduler(model, adamw(model.parameters()), redense.dsd(1, 1, 1, 0.3))


def scene_every_rank_counts_its_own_rows_that_go_for_being_equal():
    head = weights_of([(6, 5)])["(6, 5)"]
    head[:4] = 0.0
    sharded = distribute_tensor(head, mesh(), [Shard(0)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = build_masks({"head": sharded}, 1 / 3)["head"].to_local()
    gone = int((~mask.any(1)).sum())
    said = [str(warning.message) for warning in caught]
    assert len(said) == bool(gone)
    assert not gone or f"{gone} of head" in said[0]


def scene_one_bracket_serves_shards_of_different_sizes():
    weight = torch.randn(3 * (1 << 19) + 1, 2, generator=torch.Generator().manual_seed(1))
    sizes = [0] * (dist.get_world_size() - 1) + [weight.shape[0]]  # all of it on the last rank
    start = sum(sizes[: dist.get_rank()])
    local = weight[start : start + sizes[dist.get_rank()]].contiguous()
    sharded = DTensor.from_local(
        local, mesh(), [Shard(0)], shape=weight.shape, stride=weight.stride(), run_check=False
    )
    kept = redense.magnitude_mask(sharded, 0.3).to_local()
    assert torch.equal(kept, redense.magnitude_mask(weight, 0.3)[start : start + local.shape[0]])


def scene_traffic_does_not_grow_with_the_tensor():
    said = []
    for rows in (1 << 8, 1 << 11, 1 << 14):
        weight = torch.randn(rows, 256, generator=torch.Generator().manual_seed(0))
        sharded = distribute_tensor(weight, mesh(), [Shard(0)])
        for kind in ("magnitude", "random", "global"):
            with Traffic() as traffic:
                build_masks({"weight": sharded}, 0.3, kind)
            assert {name for name, _ in traffic.calls} <= {"allreduce_", "allgather_"}
            assert max(size for _, size in traffic.calls) <= 8 * 2050
            assert all(
                size <= 24 for name, size in traffic.calls if name == "allgather_"
            )  # counts, never weights
            said.append((kind, weight.nbytes, traffic.bytes, len(traffic.calls)))
    for kind in ("magnitude", "random", "global"):
        sent = [size for name, _, size, _ in said if name == kind]
        assert max(sent) < 200_000
    return said


def scene_a_nan_on_one_rank_is_refused_on_every_rank():
    for rows in (6, 3000):
        weight = torch.randn(rows, 100, generator=torch.Generator().manual_seed(0))
        weight[-1, -1] = float("nan")
        shards = {
            "fine": distribute_tensor(torch.ones(rows, 3), mesh(), [Shard(0)]),
            "layer.weight": distribute_tensor(weight, mesh(), [Shard(0)]),
        }
        for kind in ("magnitude", "random", "global"):
            with pytest.raises(ValueError, match=r"layer\.weight: it holds a NaN"):
                build_masks(shards, 0.3, kind)


def scene_other_shardings_are_refused_by_name():
    weight = distribute_tensor(torch.randn(6, 6), mesh(), [Shard(1)])
    with pytest.raises(NotImplementedError, match=r"head: masks need a tensor .*Shard\(dim=1\)"):
        build_masks({"head": weight}, 0.3)


def scene_a_users_mask_must_be_sharded_as_its_weight():
    weight = distribute_tensor(
        torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), mesh(), [Shard(0)]
    )
    mask = build_masks({"head": weight}, 0.5, lambda w, s: w > 0)["head"]
    assert torch.equal(mask.full_tensor(), weight.full_tensor() > 0)
    with pytest.raises(TypeError, match="head: a mask must be sharded as its weight is"):
        build_masks({"head": weight}, 0.5, lambda w, s: w.full_tensor() > 0)


def scene_replicated_tensors_choose_alone():
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    whole = redense.magnitude_mask(weight, 0.3)
    with Traffic() as traffic:
        mask = redense.magnitude_mask(
            distribute_tensor(weight, mesh(), [Replicate()], src_data_rank=None), 0.3
        )
    assert torch.equal(mask.to_local(), whole)
    assert traffic.bytes == 0


# a live model under FSDP2


def build(optimizer):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(13, 17, bias=False),
        nn.Tanh(),
        nn.Linear(17, 16, bias=False),
        nn.Tanh(),
        nn.Linear(16, 1, bias=False),
    )
    return model, {"SGD": sgd, "AdamW": adamw}[optimizer]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-2)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2)


def train(model, optimizer, steps, seed, after_backward=lambda: None, after_step=lambda: None):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(
            8, 13, generator=generator
        )  # the same batch on every rank: the mean gradient is everyone's
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        after_backward()
        optimizer.step()
        after_step()


def fully_sharded(optimizer):
    model, make = build(optimizer)
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh())
    fully_shard(model, mesh=mesh())
    return model, make(model.parameters())


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def life(model, optimizer, kind, check):
    """Dense, sparse, released: the masks, and the weights and state right after the release."""
    train(model, optimizer, 3, seed=1)
    with redense.sparse(model, optimizer, 0.5, mask=kind) as held:
        check("start", held)
        train(
            model, optimizer, 4, 2, lambda: check("gradient", held), lambda: check("weight", held)
        )
    masks = {name: full(mask) for name, mask in held.masks.items()}
    weights = {name: full(weight).detach().clone() for name, weight in model.named_parameters()}
    state = [
        {name: full(value).clone() for name, value in optimizer.state[p].items() if value.ndim}
        for p in model.parameters()
    ]
    return masks, weights, state


def neighbours(survivors):
    """The smaller of each row's and column's largest; a row or column without one takes the
    tensor's."""
    rows, columns = survivors.amax(1, keepdim=True), survivors.amax(0, keepdim=True)
    return torch.minimum(
        *(largest.where(largest > 0, survivors.max()) for largest in (rows, columns))
    )


def scene_fsdp2_holds_exact_zeros_and_releases_as_one_process_does():
    for optimizer, kind in (
        ("SGD", "magnitude"),
        ("SGD", "global"),
        ("AdamW", "magnitude"),
        ("AdamW", "random"),
    ):
        model, opt = fully_sharded(optimizer)
        seen = dict.fromkeys(("start", "gradient", "weight"), 0)

        def check(moment, held, model=model, seen=seen):
            for name, mask in held.masks.items():
                weight = model.get_parameter(name)
                tensor = weight.grad if moment == "gradient" else weight
                local, kept = shard_of(tensor)[0], shard_of(mask)[0]
                assert torch.equal(local[~kept], torch.zeros_like(local[~kept])), (moment, name)
            seen[moment] += 1

        sharded = life(model, opt, kind, check)
        assert seen == {"start": 1, "gradient": 4, "weight": 4}
        counts = [(int((~mask).sum()), mask.numel()) for mask in sharded[0].values()]
        for pruned, total in (
            [tuple(map(sum, zip(*counts, strict=True)))] if kind == "global" else counts
        ):
            assert pruned == round(0.5 * total)
        plain, make = build(optimizer)
        alone = life(plain, make(plain.parameters()), kind, lambda *arguments: None)
        for name, mask in alone[0].items():
            weight, twin = sharded[1][name], alone[1][name]
            if (
                kind != "random"
            ):  # its choice follows every bit, and three ranks' mean rounds otherwise
                assert torch.equal(sharded[0][name], mask), name
                torch.testing.assert_close(weight, twin, rtol=1e-3, atol=1e-5)
            assert torch.equal(
                weight[~sharded[0][name]], torch.zeros_like(weight[~sharded[0][name]])
            )
        for (name, mask), ours, theirs in zip(
            sharded[0].items(), sharded[2], alone[2], strict=True
        ):
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                expected = (
                    neighbours(value * mask) if key == "exp_avg_sq" else torch.zeros_like(value)
                )
                assert torch.equal(value[~mask], expected[~mask]), (name, key)
                if kind != "random":
                    torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5)
        for parameter in model.parameters():
            assert not parameter._post_accumulate_grad_hooks


def scene_fsdp2_calls_the_gradient_hook_on_the_shard():
    model, opt = fully_sharded("SGD")
    with redense.sparse(model, opt, 0.5) as held:
        calls = []
        for one in held._held:
            one.weight.register_post_accumulate_grad_hook(
                lambda weight: calls.append(type(weight.grad))
            )
        train(model, opt, 1, 3)
    assert calls == [DTensor] * 3


def scene_clipping_sees_the_masked_gradient():
    model, opt = fully_sharded("SGD")
    norms = []
    with redense.sparse(model, opt, 0.5) as held:

        def clip():
            masked = [
                full(model.get_parameter(name).grad)[full(mask)]
                for name, mask in held.masks.items()
            ]
            expected = torch.cat(masked).norm()
            norms.append((full(nn.utils.clip_grad_norm_(model.parameters(), 1e-3)), expected))

        train(model, opt, 3, 3, clip)
    for norm, expected in norms:
        torch.testing.assert_close(norm, expected)


def scene_a_sharded_run_resumes_bit_for_bit():
    plan = redense.dsd(dense=2, sparse=4, redense=2, sparsity=0.5)
    model, opt = fully_sharded("AdamW")
    phases = redense.PhaseScheduler(model, opt, plan)
    for step in range(len(plan)):
        if step == 4:
            saved = (
                {k: shard_of(v)[0].clone() for k, v in model.state_dict().items()},
                pickle.loads(pickle.dumps(phases.state_dict())),
                [
                    {k: shard_of(v)[0].clone() for k, v in opt.state[p].items()}
                    for p in model.parameters()
                ],
            )
        train(model, opt, 1, seed=step)
        phases.step()
    expected = [shard_of(p)[0].clone() for p in model.parameters()]
    model, opt = fully_sharded("AdamW")
    again = redense.PhaseScheduler(model, opt, plan)
    train(model, opt, 1, seed=0)  # makes the optimizer's state
    with torch.no_grad():
        for parameter, state in zip(model.parameters(), saved[2], strict=True):
            for key, value in state.items():
                shard_of(opt.state[parameter][key])[0].copy_(value)
        for key, value in model.state_dict().items():
            shard_of(value)[0].copy_(saved[0][key])
    again.load_state_dict(saved[1])
    for step in range(4, len(plan)):
        train(model, opt, 1, seed=step)
        again.step()
    for parameter, before in zip(model.parameters(), expected, strict=True):
        assert torch.equal(shard_of(parameter)[0], before)


# agreement


def scene_ranks_that_agree_are_left_alone():
    weights = weights_of(UNEVEN)
    check_agreement(build_masks(weights, 0.3))
    shards = {
        name: distribute_tensor(weight, mesh(), [Shard(0)]) for name, weight in weights.items()
    }
    check_agreement(
        build_masks(shards, 0.3)
    )  # each rank holds another part, and that is as it should be


def scene_one_rank_with_other_weights_stops_every_rank():
    weights = weights_of(((4, 4), (31, 33), (2, 2)))
    if dist.get_rank() == 1:
        weights["(31, 33)"][3, 4] = 9.0
        weights["(31, 33)"][5, 6] = 0.0
    with (
        Traffic() as traffic,
        pytest.raises(RuntimeError, match=r"the mask of '\(31, 33\)' and of 0 more"),
    ):
        check_agreement(build_masks(weights, 0.3))
    assert traffic.bytes == 3 * 3 * 8


def scene_replicas_of_a_shard_are_compared():
    world = dist.get_world_size()
    both = init_device_mesh("cpu", (world, 1), mesh_dim_names=("replicas", "shards"))
    local = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    masks = {}
    for name, seed in (("same", 0), ("other", dist.get_rank() == 1)):
        local = torch.randn(6, 8, generator=torch.Generator().manual_seed(int(seed)))
        weight = DTensor.from_local(local, both, [Replicate(), Shard(0)], run_check=False)
        masks[name] = redense.magnitude_mask(weight, 0.5)
    check_agreement({"same": masks["same"]})
    with pytest.raises(RuntimeError, match="the mask of 'other' and of 0 more"):
        check_agreement(masks)


def scene_masks_are_packed_whole_and_unpacked_a_shard_a_rank():
    for shape, weight in weights_of(UNEVEN).items():
        sharded = distribute_tensor(weight, mesh(), [Shard(0)])
        mask = redense.magnitude_mask(sharded, 0.3)
        with Traffic() as traffic:
            packed = pack(mask)
        assert torch.equal(packed, pack(redense.magnitude_mask(weight, 0.3))), shape
        assert traffic.bytes <= -(-mask.numel() // 8) + 8
        assert torch.equal(unpack(packed, sharded).to_local(), mask.to_local()), shape


SCENES = {
    name.removeprefix("scene_"): scene
    for name, scene in list(globals().items())
    if name.startswith("scene_")
}


def play(rank, world, folder):
    """One process: every scene in turn; what each returned or how it failed goes to a file."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    selection._FEW = 1 << 12  # the stages of large tensors, on small ones
    said = {}
    for name, scene in SCENES.items():
        try:
            said[name] = (True, scene())
        except BaseException:  # pytest.raises fails with one
            said[name] = (False, traceback.format_exc())
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(said))
        if not said[name][0]:
            break  # ranks may now wait for each other
    else:
        dist.barrier()  # none leaves while another still listens to it
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that ends; everything is written by now


@pytest.fixture(scope="module", params=[2, 3], ids=lambda world: f"{world} ranks")
def said(request, tmp_path_factory):
    """{scene: [(whether it went well, what it said) of each rank]}."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = multiprocessing.start_processes(
        play, (request.param, folder), request.param, join=False
    )
    try:
        for _ in range(SECONDS):
            if processes.join(timeout=1):
                break
        else:
            pytest.fail(f"{request.param} ranks did not end in {SECONDS} s")
    finally:
        for process in processes.processes:
            process.kill()
            process.join()
    ranks = [
        pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(request.param)
    ]
    return {name: [rank.get(name, (False, "not reached")) for rank in ranks] for name in SCENES}


@pytest.mark.parametrize("scene", SCENES)
def test_on_every_rank(scene, said):
    for rank, (well, what) in enumerate(said[scene]):
        assert well, f"rank {rank}:\n{what}"
        if what is not None and rank == 0:
            for kind, size, sent, calls in what:
                print(
                    f"{kind}: {size:,} bytes of weights, {sent:,} bytes sent by a rank in {calls} "
                    "collectives"
                )
