"""Inputs go to the device once a step, as far as there is room to keep them; the gradient does not know."""

import pytest
import torch
from torch import Tensor

from tests.support.towers import CPU, RANKS, batch, gradients, model, step_context
from zerovl.engine.forward import Constants, Inputs
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep, StepContext
from zerovl.engine.transfer import NO_TRANSFER, ROOM, UNKNOWN, Moved, Transfer, moved, transfer_to
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.loss import SoftmaxLoss
from zerovl.objective.mixup import Mix
from zerovl.sizing.batch_layout import BatchLayout
from zerovl.sizing.footprint import Workload, _inputs

PARTS, PAIRS = 4, 6  # micro-batches of a step, and pairs of each
IMAGES, CAPTIONS = PAIRS * 3 * 32 * 32, PAIRS * 2 * 8 * 8  # bytes of a micro-batch


class Counted:
    """A device whose memory is the host's, with the bytes that were moved there and those that are there now."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.bytes = 0

    def __call__(self, inputs: Inputs, known: Constants = UNKNOWN) -> Moved:
        return moved(inputs, known, self._copy)

    def _copy(self, tensor: Tensor) -> Tensor:
        self.bytes += tensor.nbytes
        return tensor.clone()


def context(dual: DualEncoder, transfer: Transfer) -> StepContext:
    whole = step_context(dual, RANKS, Precision("float32", CPU), seed=3)
    return StepContext(dual, RANKS, whole.precision, whole.loss, 3, whole.gradients, transfer=transfer)


def decoupled(transfer: Transfer, kept_graphs: int, frozen: str = "") -> tuple[Tensor, dict[str, Tensor]]:
    dual = model().train()
    if frozen:
        getattr(dual, frozen).requires_grad_(False)
    loss = DecoupledStep(context(dual, transfer), kept_graphs)(batch(PARTS, PAIRS), Mix("image", 0.4), 7)
    return loss, gradients(dual)


@pytest.mark.parametrize(
    ("kept_graphs", "room", "moves"),
    [
        (0, 0, 2 * PARTS),
        (0, 2 * (IMAGES + CAPTIONS), 2 * PARTS - 2),
        (0, ROOM, PARTS),
        (1, 0, 2 * PARTS - 1),
        (1, ROOM, PARTS),
        (PARTS, 0, PARTS),
    ],
)
def test_inputs_that_are_kept_move_once(kept_graphs: int, room: int, moves: int) -> None:
    counted = Counted(room)
    loss, found = decoupled(counted, kept_graphs)
    assert counted.bytes == moves * (IMAGES + CAPTIONS)
    expected_loss, expected = decoupled(NO_TRANSFER, kept_graphs)
    assert torch.equal(loss, expected_loss)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("room", [0, PARTS * CAPTIONS])
def test_the_inputs_of_a_frozen_tower_move_once_and_take_no_room(room: int) -> None:
    counted = Counted(room)
    _, found = decoupled(counted, 0, "image_tower")
    assert counted.bytes == PARTS * (IMAGES + CAPTIONS) + (0 if room else PARTS * CAPTIONS)
    _, expected = decoupled(NO_TRANSFER, 0, "image_tower")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_the_plain_step_moves_its_inputs_once() -> None:
    counted = Counted(0)
    PlainStep(context(model().train(), counted))(batch(PARTS, PAIRS), Mix(), 0)
    assert counted.bytes == PARTS * (IMAGES + CAPTIONS)


def test_on_the_cpu_nothing_moves() -> None:
    transfer = transfer_to(CPU)
    part = batch(1)[0]
    assert transfer(part) is part
    assert transfer.room == 0


def test_what_is_kept_is_foreseen() -> None:
    workload = Workload(224, 25, 512, sharded=False, evaluated=False, loss=SoftmaxLoss())
    pair = workload.pair_bytes
    assert _inputs(workload, BatchLayout(64, 1, 8, 0), "cpu") == 64 * pair
    assert _inputs(workload, BatchLayout(64, 1, 8, 0), "cuda") == 64 * pair
    assert _inputs(workload, BatchLayout(64, 1, 8, 6), "cuda") == (2 + 2) * 8 * pair
    assert _inputs(workload, BatchLayout(1 << 20, 1, 8, 0), "cuda") == 16 * pair + ROOM
