"""Whether params.yaml is still what a run was trained with: what is told or released of a run goes with its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zerovl.params.later import LATER


def changed(run: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """Yield where parameters differ from what a run's description says of its own, as "train.lr was 0.001, is 0.01".

    What shapes no weights stands in none, and is not compared.
    """
    streamed = bool(run.get("streams"))
    for section in ("model", "train", *(["prepare"] if streamed else [])):
        # What a run leaves out of its file has the value that `LATER` names.
        theirs = dict(_flat(section, LATER[section])) | dict(_flat(section, run.get(section, {})))
        ours = dict(_flat(section, params[section]))
        for key in sorted(theirs.keys() & ours.keys()):
            if key.startswith("train.streaming.") and not streamed:
                continue  # it has no effect, and stands in no such file
            if theirs[key] != ours[key] and ours[key] != "auto":  # the run has what that stands for
                yield f"{key} was {theirs[key]}, is {ours[key]}"


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inner in value.items():
        yield from _flat(f"{key}.{name}", inner)
