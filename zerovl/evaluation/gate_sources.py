"""Whether the evaluation will have the sources that the gate names: told before a training, not after it."""

from __future__ import annotations

from collections.abc import Iterator

from zerovl.data.manifest import Manifest
from zerovl.evaluation.metrics import POOL, RETRIEVAL
from zerovl.params import GateParams


def gate_problem(gate: GateParams, manifest: Manifest) -> str | None:
    """Return which sources of `register.gate` have no validation pairs, with the fix; None where all have.

    Retrieval's alone: what sources another evaluator has, only its table says.
    """
    known = manifest.sources("valid")
    unknown = [f"{key}: {source!r}" for key, source in _named(gate) if source not in known]
    if not unknown:
        return None
    return (
        f"register.gate.{', '.join(unknown)}: no such source has validation pairs, and the gate would refuse every "
        f"model; name one of {', '.join(known) or 'none, as there are no validation pairs at all'}"
    )


def _named(gate: GateParams) -> Iterator[tuple[str, str]]:
    """The keys below `register.gate` with the source that each names."""
    for source in sorted(gate.min_source_rsum):
        yield "min_source_rsum", source
    for key, names in (("min_metrics", gate.min_metrics), ("max_drops", gate.max_drops)):
        for name in sorted(names):
            metric, _, source = name.partition("@")
            if metric.startswith(f"{RETRIEVAL}.") and source not in ("", POOL):
                yield f"{key}.{name}", source
