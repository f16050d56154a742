"""Image towers of timm, by its names. Never reaches for the network."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
from torch import nn

from zerovl.errors import ZeroVLError


def timm_tower(name: str, options: dict[str, Any], pretrained: bool) -> nn.Module:
    """Build an image tower of timm, without classifier.

    Raises `ZeroVLError` for a name that timm does not know, options that do not fit, and weights that are not here.
    """
    if not timm.is_model(name):
        raise ZeroVLError(f"model.image_tower.name: timm has no model {name!r}; {_instead(name)}")
    try:
        with offline():
            tower: nn.Module = timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **options})
    except (TypeError, AssertionError) as error:
        raise ZeroVLError(f"model.image_tower.options: {options} do not fit {name}: {error}") from None
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        from zerovl.model.text_towers import FETCH_HINT

        raise ZeroVLError(
            f"model.image_tower: weights of {name} are not on this machine ({error}); {FETCH_HINT}"
        ) from None
    return tower


def _instead(name: str) -> str:
    if "/" in name:
        return f"a model of a hub is named hf-hub:{name}, a folder that holds one local-dir:{name}"
    return f"close names: {difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)}"


@contextmanager
def offline() -> Iterator[None]:
    """Weights come from the local cache or not at all: a training run never waits for a hub."""
    import huggingface_hub.constants as hub

    before = os.environ.get("HF_HUB_OFFLINE"), hub.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"], hub.HF_HUB_OFFLINE = "1", True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before[1]
        if before[0] is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before[0]
