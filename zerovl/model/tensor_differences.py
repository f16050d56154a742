"""How tensors that were read differ from those that a model has: one place that finds them, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.text_format import plural

_SHOWN = 10


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return what `check_fits` compares of tensors by name: their shapes."""
    return {name: f"shape {list(tensor.shape)}" for name, tensor in tensors.items()}


def check_fits(found: Mapping[str, str], expected: Mapping[str, str], refusal: str, fix: str) -> None:
    """Raise `ZeroVLError` that names tensors which are missing, left over, or not what is expected.

    Args:
        found: what each tensor has, by name.
        expected: what each tensor of the model has, by name.
        refusal: the sentence before the list, which names the file.
        fix: the sentence after it.
    """
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"left over {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} has {found[name]}, expected {expected[name]}"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        listed = "\n  ".join([*problems[:_SHOWN], *more])
        raise ZeroVLError(f"{refusal}, {plural(len(problems), 'problem')}:\n  {listed}\n{fix}")
