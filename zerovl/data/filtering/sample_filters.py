"""The filters that look at one sample alone: its picture's size, the length and the writing of its captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol, Self

from zerovl.text_format import plural

if TYPE_CHECKING:  # the processes that pack shards do without it
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
    """What `prepare.filters` asks of a sample by itself, by the names that it has there."""

    min_side: int = 0
    max_aspect: float = 0.0
    min_area: int = 0
    min_caption_words: int = 0
    max_caption_words: int = 0
    min_caption_characters: int = 0
    max_caption_characters: int = 0
    scripts: tuple[str, ...] = ()
    min_script_share: float = 0.5

    @classmethod
    def of(cls, settings: FilterParams) -> Self:
        """Return the filters that the settings have."""
        asked = {field.name: getattr(settings, field.name) for field in fields(cls)}
        return cls(**asked | {"scripts": tuple(settings.scripts)})

    @property
    def refuses_something(self) -> bool:
        """Whether one of them is on; a share of no script asks nothing."""
        return any(getattr(self, field.name) for field in fields(self) if field.name != "min_script_share")

    def refuse_picture(self, width: int, height: int) -> Refusal | None:
        """Return why a stored picture of this size (pixels) is unwanted; None where it is not."""
        size = f"{width}x{height} pixels"
        if min(width, height) < self.min_side:
            return Refusal("min_side", size)
        if 0 < self.max_aspect < max(width, height) / min(width, height):
            return Refusal("max_aspect", size)
        return Refusal("min_area", size) if width * height < self.min_area else None

    def refuse_captions(self, captions: Sequence[str]) -> list[Refusal | None]:
        """Return of each caption why it is unwanted; None where it is not."""
        refusals = [self._refuse_length(caption) for caption in captions]
        if self.scripts and captions:
            # pyarrow takes a tenth of a second to import, in each process of the pool.
            from zerovl.data.filtering.scripts import script_shares

            shares = script_shares(captions, self.scripts)
            for place, share in enumerate(shares):
                if refusals[place] is None and share < self.min_script_share:
                    refusals[place] = Refusal("scripts", f"{100 * share:.0f}% of its letters")
        return refusals

    def _refuse_length(self, caption: str) -> Refusal | None:
        for unit, length in (("word", len(caption.split())), ("character", len(caption))):
            least, most = (getattr(self, f"{bound}_caption_{unit}s") for bound in ("min", "max"))
            if length < least:
                return Refusal(f"min_caption_{unit}s", plural(length, unit))
            if 0 < most < length:
                return Refusal(f"max_caption_{unit}s", plural(length, unit))
        return None


def sample_filters(settings: FilterParams) -> Filters:
    """Return what the settings ask of a sample by itself."""
    filters = SampleFilters.of(settings)
    return filters if filters.refuses_something else KEEP_ALL
