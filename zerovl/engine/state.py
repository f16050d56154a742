"""What a training step changes, as tensors by name.

Names are `model.<parameter or buffer>`, of AdamW `exp_avg.<parameter>`, `exp_avg_sq.<parameter>` and
`count.<parameter>`, and where weights are averaged `average.<parameter or buffer>` and `average_updates`.
They are the same on every number of ranks, with and without FSDP2 (then the tensors are DTensors of the same
global shape) and under wrappers that put a module inside a module.
Order, augmentation, dropout and mixup are pure functions of (seed, step): no random state to keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from zerovl.engine.average import Average, LastWeights
from zerovl.engine.weights import named_weights, plain_name
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.tensor_differences import check_fits

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainingState:
    """Model, optimiser, loss scale and the average of the weights; the step is the name of the checkpoint."""

    model: DualEncoder
    optimiser: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    average: Average = field(default_factory=LastWeights)

    def tensors(self) -> dict[str, Tensor]:
        """The live tensors, not copies; a parameter that the optimiser has not moved yet has no moments."""
        tensors = {f"model.{name}": tensor for name, tensor in named_weights(self.model).items()}
        for name, parameter in self._learned():
            if parameter not in self.optimiser.state:
                continue
            state = self.optimiser.state[parameter]
            tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS}
            tensors[f"count.{name}"] = torch.as_tensor(state["step"])
        tensors |= self.average.tensors()
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def empty_like_stored(
        self, stored: Mapping[str, TensorStorageMetadata], origin: str, *, of_other_settings: bool = False
    ) -> dict[str, Tensor]:
        """Return tensors without content for all that is stored, laid out as on this rank; to be filled, then loaded.

        With `of_other_settings` moments may be stored that this state has no use for (a tower is frozen now), and no
        average.
        Raises `ZeroVLError` where the stored names, shapes or types are not those of this state.
        """
        likes = {f"model.{name}": tensor for name, tensor in named_weights(self.model).items()}
        for name, parameter in self._learned():
            if not any(f"{key}.{name}" in stored for key in (*_MOMENTS, "count")):
                continue  # the optimiser had not moved it when the checkpoint was written
            likes |= {f"{moment}.{name}": parameter for moment in _MOMENTS}
            likes[f"count.{name}"] = torch.empty((), device=parameter.device)  # where fused AdamW keeps it
        averages = self.average.tensors()
        if not of_other_settings or averages.keys() <= stored.keys():
            likes |= averages
        if of_other_settings:
            stored = {name: found for name, found in stored.items() if name in likes or name.startswith("model.")}
            _compare(stored, likes, origin, "name a checkpoint of the same towers")
        else:
            _compare(stored, likes, origin, "delete it")
        # In torch's own memory: vectorised sums may depend on alignment.
        return {name: torch.empty_like(tensor, requires_grad=False) for name, tensor in likes.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], scaler: dict[str, Any]) -> None:
        """Go on from these tensors, filled `empty_like_stored`; the moments are taken over, not copied."""
        for name, weight in named_weights(self.model).items():
            weight.copy_(tensors[f"model.{name}"])
        self.optimiser.state.clear()
        for name, parameter in self._learned():
            if f"count.{name}" in tensors:
                moments = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
                self.optimiser.state[parameter] = {"step": tensors[f"count.{name}"], **moments}
        self.average.load(tensors)
        if scaler or not self.scaler.is_enabled():  # one from a run in another precision has none, or is not needed
            self.scaler.load_state_dict(scaler)

    def _learned(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Call `named_weights` before: FSDP2 may show gathered parameters until it is asked for its state."""
        return ((plain_name(name), p) for name, p in self.model.named_parameters() if p.requires_grad)


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights whole and on the CPU of rank 0, nothing on the others; a collective where they are sharded."""
    first = not dist.is_initialized() or dist.get_rank() == 0
    weights = {}
    for name, tensor in named_weights(model).items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if first:
            weights[name] = whole.detach().cpu().contiguous()
    return weights


def _compare(stored: Mapping[str, TensorStorageMetadata], likes: Mapping[str, Tensor], origin: str, fix: str) -> None:
    check_fits(
        {name: f"{found.properties.dtype} of shape {list(found.size)}" for name, found in stored.items()},
        {name: f"{like.dtype} of shape {list(like.shape)}" for name, like in likes.items()},
        f"{origin}: does not fit the model",
        fix,
    )
