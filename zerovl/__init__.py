"""ZeroVL: train, version and release CLIP-like image-text models on one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder

__version__ = "0.1.0"


def load(reference: str, *, device: str = "auto") -> Encoder:
    """Load a model for use.

    Args:
        reference: a bundle's folder, `NAME@ALIAS` or `NAME@VERSION` in the default store
            (`ZEROVL_STORE`, else `registry/`), or the same with a store, as in
            `s3://bucket/NAME@production`. Releases are cached, and their checksums verified.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...

    Raises:
        ZeroVLError: no such model, or a file of it is damaged.
    """
    from zerovl.model.encoder import Encoder
    from zerovl.registry.fetch import opened

    with opened(reference) as folder:
        return Encoder.load(folder, device=device)
