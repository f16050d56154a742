"""Whole tars with fewer samples than a file beside them states: said once a split, with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zerovl.data.raw.tar_samples import TarSample
from zerovl.text_format import plural

_SHOWN = 3  # tars in a line


class LackingTars:
    """Counts what whole tars lack while their samples go by."""

    def __init__(self) -> None:
        self._lost = 0
        self._tars = 0
        self._shown: list[str] = []

    def watched(self, name: str, samples: Iterable[TarSample]) -> Iterator[TarSample]:
        """Give the samples of a tar as they are; those that it lacks come last."""
        is_known = False
        for sample in samples:
            if sample.stated:
                self._lost += 1
                if not is_known:
                    self._tars += 1
                    self._shown += [f"{name} has {sample.stated}"] if len(self._shown) < _SHOWN else []
                is_known = True
            yield sample

    def notes(self) -> list[str]:
        """Return what is to be said of the tars so far: a line, or nothing."""
        if not self._tars:
            return []
        more = ", ..." if self._tars > _SHOWN else ""
        return [
            f"{plural(self._lost, 'sample')} missing from {plural(self._tars, 'whole tar')}: {', '.join(self._shown)}"
            f"{more}. Get the tar again; if samples were taken out on purpose, delete the file beside it and prepare "
            "again. Until then they count as broken inputs, which `zerovl validate` accepts up to "
            "validate.max_broken_fraction"
        ]
