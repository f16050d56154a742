"""The filters that look at one sample alone: its picture's size, the length and the writing of its captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the processes that pack shards do without it where no filter is set
    from zerovl.params import FilterParams


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is unwanted."""

    reason: str  # name of the filter
    detail: str  # what it found


class Filters(Protocol):
    """Tells of a sample by itself what is unwanted about it; picklable."""

    def refuse_picture(self, width: int, height: int) -> Refusal | None:
        """Return why a stored picture of this size (pixels) is unwanted; None where it is not."""
        ...

    def refuse_captions(self, captions: Sequence[str]) -> list[Refusal | None]:
        """Return of each caption why it is unwanted; None where it is not."""
        ...


@dataclass(frozen=True)
class KeepAll:
    """Wants everything."""

    def refuse_picture(self, width: int, height: int) -> None:
        """Want every picture."""

    def refuse_captions(self, captions: Sequence[str]) -> list[Refusal | None]:
        """Want every caption."""
        return [None] * len(captions)


KEEP_ALL = KeepAll()


@dataclass(frozen=True)
class SampleFilters:
    """What `prepare.filters` asks of a sample by itself."""

    settings: FilterParams

    def refuse_picture(self, width: int, height: int) -> Refusal | None:
        """Return why a stored picture of this size (pixels) is unwanted; None where it is not."""
        asked, size = self.settings, f"{width}x{height} pixels"
        if min(width, height) < asked.min_side:
            return Refusal("min_side", size)
        if 0 < asked.max_aspect < max(width, height) / min(width, height):
            return Refusal("max_aspect", size)
        return Refusal("min_area", size) if width * height < asked.min_area else None

    def refuse_captions(self, captions: Sequence[str]) -> list[Refusal | None]:
        """Return of each caption why it is unwanted; None where it is not."""
        refusals = [self._refuse_length(caption) for caption in captions]
        if self.settings.scripts and captions:
            # pyarrow takes a tenth of a second to import, in each process of the pool.
            from zerovl.data.filtering.scripts import script_shares

            shares = script_shares(captions, self.settings.scripts)
            for place, share in enumerate(shares):
                if refusals[place] is None and share < self.settings.min_script_share:
                    refusals[place] = Refusal("scripts", f"{100 * share:.0f}% of its letters")
        return refusals

    def _refuse_length(self, caption: str) -> Refusal | None:
        asked = self.settings
        for unit, length in (("words", len(caption.split())), ("characters", len(caption))):
            least, most = (getattr(asked, f"{bound}_caption_{unit}") for bound in ("min", "max"))
            if length < least:
                return Refusal(f"min_caption_{unit}", f"{length} {unit}")
            if 0 < most < length:
                return Refusal(f"max_caption_{unit}", f"{length} {unit}")
        return None


_OF_SAMPLES = (
    "min_side",
    "max_aspect",
    "min_area",
    *(f"{bound}_caption_{unit}" for bound in ("min", "max") for unit in ("words", "characters")),
    "scripts",
)


def sample_filters(settings: FilterParams) -> Filters:
    """Return what the settings ask of a sample by itself."""
    return SampleFilters(settings) if any(getattr(settings, name) for name in _OF_SAMPLES) else KEEP_ALL
