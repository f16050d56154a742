"""BatchNorm with frozen statistics: nothing moves, affine weights learn, and a batch may be cut in any way."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.towers import CPU, RANKS, batch, decoupled_step, gradients, model, plain_step
from zerovl.engine.precision import Precision
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix
from zerovl.params_file import from_recipe
from zerovl.training.start_block import batch_normalisation


def frozen() -> DualEncoder:
    dual = model("test_resnet")
    torch.manual_seed(4)
    for name, buffer in dual.named_buffers():  # statistics as if they had been trained
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    dual.train()
    dual.freeze_batch_norm()
    return dual.train()


def test_statistics_stay_while_the_affine_weights_learn() -> None:
    dual = frozen()
    before = {name: buffer.clone() for name, buffer in dual.named_buffers()}
    plain_step(dual, RANKS, Precision("float32", CPU))(batch(), Mix("none", 0.0), 0)
    for name, buffer in dual.named_buffers():
        assert torch.equal(buffer, before[name]), name
    layers = [module for module in dual.image_tower.modules() if isinstance(module, _BatchNorm)]
    assert layers
    assert all(layer.weight.grad is not None and not layer.training for layer in layers)
    assert dual.image_tower.training
    assert dual.text_tower.training


def test_both_steps_and_any_cut_have_one_gradient() -> None:
    """With statistics of each micro-batch this does not hold: they are another function for each cut."""
    pixels = torch.cat([part.images for part in batch()])
    ids = torch.cat([part.input_ids for part in batch()])
    whole, parts = batch(1, 24), batch(4, 6)
    whole[0].images, whole[0].input_ids = pixels, ids
    first, second = frozen(), frozen()
    for dual in (first, second):
        dual.text_tower.eval()  # dropout has a mask a micro-batch
    plain_step(first, RANKS, Precision("float32", CPU))(whole, Mix("none", 0.0), 0)
    decoupled_step(second, RANKS, Precision("float32", CPU))(parts, Mix("none", 0.0), 0)
    found = gradients(second)
    for name, gradient in gradients(first).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)


def test_the_note_names_the_option_and_goes_with_it() -> None:
    assert "batch_norm to frozen" in batch_normalisation(from_recipe({}, [], "x"), model("test_resnet"))[0]
    asked = from_recipe({}, ["model.image_tower.batch_norm=frozen"], "x")
    assert batch_normalisation(asked, model("test_resnet")) == []
    (note,) = batch_normalisation(asked, model())
    assert note == "model.image_tower.batch_norm frozen has no effect: the image tower has no BatchNorm"
