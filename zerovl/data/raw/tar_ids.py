"""Ids of the samples of tars: the key's number where it is one, and distinct ones where runs were put together."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict

from zerovl.data.raw.records import stable_id, whole_number

# Two runs of img2dataset both count their keys from 0: ids of the second split start here.
SECOND_RUN = 1 << 62
Place = tuple[int, str]  # number of a tar, folder in it
_REMEMBERED = 1 << 18  # ids in which a duplicate is looked for; the validate stage looks at all


class Recent:
    """Ids with bounded memory: the oldest ones are forgotten."""

    def __init__(self) -> None:
        self._members: OrderedDict[int, Place] = OrderedDict()

    def __contains__(self, member: int) -> bool:
        return member in self._members

    def add(self, member: int, place: Place = (0, "")) -> None:
        """Remember an id, and where it came from."""
        self._members[member] = place
        if len(self._members) > _REMEMBERED:
            self._members.popitem(last=False)

    def before(self, member: int, place: Place) -> bool:
        """Return whether an id is known from another place."""
        return self._members.get(member, place) != place


class ImageIds:
    """Gives the image ids of one split's tars, in their order.

    An id is the JSON's `image_id` (as our own shards have it), else `first_id` plus the number that the key is, else a
    hash of the key. Where tars of two runs lie in one source, keys come twice: numbers within the range of an earlier
    tar's, and keys that an earlier tar had, become a hash of tar and key. Only ranges are kept of all tars, so that
    this holds for any number of samples. So does a number that another folder of the tar had, as `cats/1` and `dogs/1`.
    """

    def __init__(self, first_id: int) -> None:
        self._first_id = first_id
        self._ends: list[
            int
        ] = []  # start and end (exclusive) of the ranges of earlier tars, ascending: a, b, c, d, ...
        self._range: tuple[int, int] | None = None  # of this tar
        self._tar = 0
        self._name = ""
        self._used = Recent()

    def next_tar(self, name: str) -> None:
        """Say that the samples of another tar begin."""
        if self._range is not None:
            self._ends = _joined(self._ends, *self._range)
        self._range, self._name = None, name
        self._tar += 1

    def of(self, values: dict[str, object], key: str) -> int:
        """Return the id of a sample with this JSON and key."""
        given = whole_number(values.get("image_id"))
        if given is not None:
            return given
        number = self._number(values, key)
        if number is None:
            image_id = stable_id(f"{self._first_id}/{key}" if self._first_id else key)
            again = self._used.before(image_id, self._place(key))
        else:
            image_id = self._first_id + number
            again = bisect_right(self._ends, number) % 2 == 1 or self._used.before(image_id, self._place(key))
            low, high = self._range or (number, number + 1)
            self._range = min(low, number), max(high, number + 1)
        return stable_id(f"{self._first_id}/{self._name}/{key}") if again else image_id

    def was_used(self, image_id: int) -> bool:
        """Return whether a sample before, of those that are remembered, had this id."""
        return image_id in self._used

    def use(self, image_id: int, key: str) -> None:
        """Say that the sample of a key has this id."""
        self._used.add(image_id, self._place(key))

    def _place(self, key: str) -> Place:
        return self._tar, key.rpartition("/")[0]

    def _number(self, values: dict[str, object], key: str) -> int | None:
        for candidate in (values.get("key"), key.rpartition("/")[2]):
            number = whole_number(candidate)
            if number is not None and number < SECOND_RUN:
                return number
        return None


def _joined(ends: list[int], low: int, high: int) -> list[int]:
    """Return ranges as `ImageIds` keeps them, with low to high (exclusive) among them."""
    first = bisect_right(ends, low - 1)  # odd: a range goes on to `low` at least, and is joined
    last = bisect_right(ends, high)  # odd: a range goes on from `high` at most
    return [*ends[:first], *([] if first % 2 else [low]), *([] if last % 2 else [high]), *ends[last:]]
