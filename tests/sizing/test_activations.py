"""What a micro-batch keeps for its backward pass: measured on the CPU, and on fake tensors."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.towers import model
from zerovl.engine.precision import Precision
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import TrainParams
from zerovl.sizing import shape_only_model
from zerovl.sizing.activations import Activations, LiveTensors, measure, untouched
from zerovl.sizing.synthetic import make_mix, tower_pass

CPU = torch.device("cpu")
TOKENS = 8


def measured(dual: DualEncoder, precision: str = "float32") -> Activations:
    return measure(dual, tower_pass(dual, make_mix("coin"), Precision(precision, CPU), CPU, TOKENS), CPU)


def saved_bytes(dual: DualEncoder, precision: str, pairs: int) -> int:
    """The same by another way: storages that autograd says it saves, without the weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in dual.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage
        return tensor

    run = tower_pass(dual, make_mix("coin"), Precision(precision, CPU), CPU, TOKENS)
    with untouched(dual, CPU), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run(pairs)
        return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_line_gives_what_autograd_saves_at_another_size(precision: str) -> None:
    dual = model(depth=3)
    found = measured(dual, precision)
    assert found.kept(20) == pytest.approx(saved_bytes(dual, precision, 20), rel=0.03)
    assert found.kept(20) < found.peak(20) < 2 * found.kept(20)
    assert found.forward(20) > 0


def test_weights_that_autocast_copies_are_the_fixed_part() -> None:
    dual = model()
    weights = sum(p.numel() for p in dual.parameters() if p.dim() > 1)
    assert measured(dual).kept.fixed == pytest.approx(0, abs=2000)
    assert 0.5 * 2 * weights < measured(dual, "bf16").kept.fixed < 1.1 * 2 * weights


def test_frozen_towers_and_checkpointing_keep_less() -> None:
    whole = measured(model(depth=4)).kept(16)
    frozen, checkpointed = model(depth=4), model(depth=4)
    shape_only_model.apply_train_options(frozen, TrainParams(freeze=["image"]), False)
    shape_only_model.apply_train_options(checkpointed, TrainParams(), True)
    assert measured(frozen).kept(16) < 0.4 * whole
    lighter = measured(checkpointed)
    assert lighter.kept(16) < 0.6 * whole
    assert lighter.peak(16) > 1.1 * lighter.kept(16)  # blocks come back in the backward pass


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_imagined_towers_keep_what_real_ones_keep(precision: str) -> None:
    dual = model("test_resnet")
    real = measured(dual, precision)
    fake = shape_only_model.activations(shape_only_model.imagine(dual.architecture), "cpu", precision, TOKENS, "coin")
    for line in ("kept", "peak", "forward"):
        assert getattr(fake, line)(32) == pytest.approx(getattr(real, line)(32), rel=0.03), line


def test_smaller_pictures_in_training_keep_less() -> None:
    towers = shape_only_model.imagine(model("test_resnet").architecture)
    own, same, half = (
        shape_only_model.activations(towers, "cpu", "float32", TOKENS, "coin", (), side).kept(64)
        for side in (0, 32, 16)
    )
    assert half < same == own


def test_a_gpu_is_imagined_without_one() -> None:
    towers = shape_only_model.imagine(model(depth=3).architecture)
    single, half = (
        shape_only_model.activations(towers, "cuda", name, TOKENS, "coin").kept(64) for name in ("float32", "bf16")
    )
    assert 0.4 * single < half < single
    assert not torch.is_autocast_enabled("cuda")


def test_measuring_leaves_no_trace() -> None:
    dual = model("test_resnet").eval()
    dual.image_tower.train()
    for parameter in dual.parameters():
        parameter.grad = torch.ones_like(parameter)
    gradients = [parameter.grad for parameter in dual.parameters()]
    before = {name: value.clone() for name, value in dual.state_dict().items()}
    modes = [module.training for module in dual.modules()]
    random = torch.get_rng_state()
    measured(dual)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in dual.state_dict().items())
    assert any(isinstance(module, nn.BatchNorm2d) for module in dual.modules())
    assert [module.training for module in dual.modules()] == modes
    assert all(p.grad is g and bool((g == 1).all()) for p, g in zip(dual.parameters(), gradients, strict=True))


def test_live_tensors_are_counted_until_they_are_freed() -> None:
    with LiveTensors() as meter:
        a = torch.zeros(1000)
        view = a[10:].view(-1, 10)
        a.add_(1)
        assert meter.live == 4000
        b = a * 2
        assert meter.live == meter.peak == 8000
        del a, b
        assert (meter.live, meter.peak) == (4000, 8000)  # the view holds its storage
        del view
        assert meter.live == 0
