"""`zerovl export`: a release or bundle for another library, checked with the release's own sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.evaluation.hub_results import hub_results, pipeline_tag, results_table
from zerovl.files import read_json
from zerovl.interop.hub_card import CardFacts, check_licence
from zerovl.registry import fetch
from zerovl.registry.release_files import METRICS, MODEL_CARD, SAMPLE, SAMPLE_PAIRS

if TYPE_CHECKING:
    from zerovl.interop.base import Sample


def run(model: str, form: str, out: Path, licence: str) -> None:
    """Write the folder `out`; raises `ZeroVLError` as `zerovl.interop.export.export` does, and for no such model.

    `licence` is the hub's short name of one, "" where the card is to name none.
    """
    if licence:
        check_licence(licence)
    fetch.check_reference(model)
    from zerovl.interop.export import export  # and torch: after the model is known to be there
    from zerovl.model.encoder import Encoder

    with fetch.opened(model) as folder:
        card = folder / MODEL_CARD
        name = model.rstrip("/").rpartition("/")[2]
        facts = _facts(name, licence, folder)
        sample = _sample(folder)
        export(Encoder.load(folder, device="cpu"), facts, form, sample, out, card if card.is_file() else None)


def _facts(name: str, licence: str, folder: Path) -> CardFacts:
    """What the release's scores say; nothing of a bundle that has none."""
    scores = folder / METRICS
    results = hub_results(read_json(scores)) if scores.is_file() else []
    found = [result.to_json() for result in results]
    return CardFacts(name, licence, pipeline_tag(results), found, results_table(results))


def _sample(folder: Path) -> Sample:
    """The release's sample; drawn pictures where it has none."""
    from zerovl.interop.base import Sample, synthetic_sample
    from zerovl.release.sample_pairs import read_pairs

    if not (folder / SAMPLE / SAMPLE_PAIRS).is_file():
        return synthetic_sample()
    keys, pictures, captions = read_pairs(folder / SAMPLE / SAMPLE_PAIRS)
    return Sample(pictures, captions, f"{len(keys)} sample pairs of the release") if keys else synthetic_sample()
