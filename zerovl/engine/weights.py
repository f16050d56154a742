"""A model's weights by the names that checkpoints and bundles have for them."""

from __future__ import annotations

from torch import Tensor, nn

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")  # of torch.compile and of activation checkpointing


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers that belong to a checkpoint, sharing memory with the model's; DTensors if sharded.

    FSDP2 may show gathered parameters until it is asked for its state, as here.
    """
    return {plain_name(name): tensor for name, tensor in model.state_dict().items()}


def plain_name(name: str) -> str:
    """Return a parameter's name without what wrappers put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
