"""The filters of one sample at work: what stays of it, and an entry for what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from zerovl.data.filtering.left_out import FirstExamples, LeftOut, small_picture
from zerovl.data.filtering.sample_filters import Filters, Refusal


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample as it would be stored."""

    key: str
    image_id: int | None
    captions: tuple[str, ...]
    origin: str
    picture: Callable[[], bytes]  # reads it: asked for where it is shown as an example
    width: int
    height: int


@dataclass
class Sieve:
    """Looks at the samples of one shard, one after the other."""

    filters: Filters
    left_out: list[LeftOut] = field(default_factory=list)
    _examples: FirstExamples = field(default_factory=FirstExamples)

    def kept_captions(self, sample: Candidate) -> tuple[int, ...] | None:
        """Return the places of the captions that stay; None where the whole sample is left out."""
        refusal = self.filters.refuse_picture(sample.width, sample.height)
        if refusal:
            self._leave_out(sample, sample.captions, refusal, whole=True)
            return None
        refusals = self.filters.refuse_captions(sample.captions)
        kept = tuple(place for place, refusal in enumerate(refusals) if refusal is None)
        for place, refusal in enumerate(refusals):
            if refusal:  # the last one takes the picture along where no caption stays
                whole = not kept and place == len(refusals) - 1
                self._leave_out(sample, (sample.captions[place],), refusal, whole)
        return kept if kept or not refusals else None

    def _leave_out(self, sample: Candidate, captions: tuple[str, ...], refusal: Refusal, whole: bool) -> None:
        picture = small_picture(sample.picture()) if self._examples.count(refusal.reason) else None
        self.left_out.append(
            LeftOut(
                refusal.reason, refusal.detail, whole, sample.key, sample.image_id, captions, sample.origin, picture
            )
        )
