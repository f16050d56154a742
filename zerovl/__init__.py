"""ZeroVL: train, version and release CLIP-like image-text models on one node.

    model = zerovl.load("zerovl@production")
    loss = zerovl.contrastive_loss(image_emb, text_emb, temperature)

Importing `zerovl` imports nothing heavy: what needs torch is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerovl.errors import ZeroVLError
from zerovl.interpreter import few_collections
from zerovl.version import __version__

__all__ = ["Encoder", "ZeroVLError", "__version__", "contrastive_loss", "load"]

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder
    from zerovl.objective.tiled import contrastive_loss
else:

    def __getattr__(name: str) -> object:
        """Import what is heavy when it is first asked for."""
        if name == "Encoder":
            with few_collections():
                from zerovl.model.encoder import Encoder

            return Encoder
        if name == "contrastive_loss":
            with few_collections():
                from zerovl.objective.tiled import contrastive_loss

            return contrastive_loss
        raise AttributeError(f"module 'zerovl' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what has not been imported yet too."""
    return sorted({*globals(), *__all__})


def load(reference: str, *, device: str = "auto") -> Encoder:
    """Load a model for use.

    Args:
        reference: a bundle's folder, `NAME@ALIAS` or `NAME@VERSION` in the default store
            (`ZEROVL_STORE`, else `registry/`), or the same with a store, as in
            `s3://bucket/NAME@production`. Releases are cached, and their checksums verified.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...

    Raises:
        ZeroVLError: there is no such model, or a file of it is damaged.
    """
    from zerovl.registry.fetch import opened

    def import_encoder() -> None:  # and torch
        with few_collections():
            import zerovl.model.encoder  # noqa: F401

    with opened(reference, meanwhile=import_encoder) as folder:  # it imports while the store is asked
        import_encoder()  # where nobody was waited for: after the model is known to be there
        from zerovl.model.encoder import Encoder

        return Encoder.load(folder, device=device)
