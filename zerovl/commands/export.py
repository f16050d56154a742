"""`zerovl export`: a release or bundle for another library, checked with the release's own sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.registry import fetch
from zerovl.registry.release_files import MODEL_CARD, SAMPLE, SAMPLE_PAIRS

if TYPE_CHECKING:
    from zerovl.interop.base import Sample


def run(model: str, form: str, out: Path) -> None:
    """Write the folder `out`; raises `ZeroVLError` as `zerovl.interop.export.export` does, and for no such model."""
    fetch.check_reference(model)
    from zerovl.interop.export import export  # and torch: after the model is known to be there
    from zerovl.model.encoder import Encoder

    with fetch.opened(model) as folder:
        card = folder / MODEL_CARD
        name = model.rstrip("/").rpartition("/")[2]
        sample = _sample(folder)
        export(Encoder.load(folder, device="cpu"), name, form, sample, out, card if card.is_file() else None)


def _sample(folder: Path) -> Sample:
    """The release's sample; drawn pictures where it has none."""
    from zerovl.interop.base import Sample, synthetic_sample
    from zerovl.release import sample

    if not (folder / SAMPLE / SAMPLE_PAIRS).is_file():
        return synthetic_sample()
    keys, pictures, captions = sample.read_pairs(folder / SAMPLE / SAMPLE_PAIRS)
    return Sample(pictures, captions, f"{len(keys)} sample pairs of the release") if keys else synthetic_sample()
