"""Batches from tars that are read as they lie: every pair once a pass, the same after a resume, whoever reads them."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.support.raw_sources import jpeg, sample, write_tar
from tests.support.shard_fixture import WordTokenizer
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.loader import StepBatch
from zerovl.data.batches.sampling import MIXED, make_sampler
from zerovl.data.raw.tar_captions import caption_reader, one_caption
from zerovl.data.streams.batches import _check_size, streamed_batches
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.order import Place, Share, TarOrder
from zerovl.data.streams.places import Begin, Layout, Places, begin_at, lost_by_all, lost_until, tars_digest
from zerovl.data.streams.reader import SourceReader, StreamedSource, TarPipeline
from zerovl.data.streams.schedule import StreamSchedule
from zerovl.data.streams.tar_stream import SampleRules
from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.images import BrokenImageError
from zerovl.params import AugmentParams

TARS, EACH = 8, 5
SIZES = {"art": TARS * EACH, "web": TARS * EACH}
STEPS, BATCH, MICRO = 24, 8, 4
CHAPTER, BUFFER = 2, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tars")
    for source in SIZES:
        for tar in range(TARS):
            members = [
                member
                for number in range(EACH)
                for member in sample(f"{tar}{number}", 10 * tar + number, f"no {number}")
            ]
            write_tar(root / source / f"{tar}.tar", members)
    return root


def sources_in(folder: Path) -> list[StreamedSource]:
    found = []
    for name in sorted(SIZES):
        rules = SampleRules(name, caption_reader("", one_caption), 1000)
        tars = [str(path) for path in sorted((folder / name).glob("*.tar"))]
        found.append(StreamedSource(name, tars, SIZES[name], TarPipeline(rules, BUFFER)))
    return found


def layout_of(sources: list[StreamedSource], ranks: int = 1, workers: int = 1) -> Layout:
    return Layout({source.name: tars_digest(source.tars) for source in sources}, ranks, workers, CHAPTER, BUFFER)


def steps_of(
    sources: list[StreamedSource],
    begin: Begin | None = None,
    *,
    rank: int = 0,
    start_step: int = 0,
    workers: int = 0,
    debiased: bool = True,
    lost: dict[str, Lost] | None = None,
) -> Iterator[tuple[StepBatch, Places]]:
    """Batches, each with the places behind it."""
    layout = begin.layout if begin else layout_of(sources, workers=max(1, workers))
    places = Places(begin or Begin(layout), rank, lost or {})
    batches = streamed_batches(
        sources=sources,
        schedule=StreamSchedule(SIZES, BATCH, STEPS, 3, debiased),
        places=places,
        tokenize=WordTokenizer(),
        transform=TrainTransform(24, AugmentParams()),
        augment=AugmentParams(),
        max_pixels=10_000,
        micro_batch=MICRO,
        rank=rank,
        world_size=layout.ranks,
        start_step=start_step,
        workers=workers,
    )
    with batches:
        for batch in batches:
            _ = list(batch.micro_batches)  # as after its step, when places are saved
            yield batch, places


def keys_of(batch: StepBatch) -> list[str]:
    return [key for part in batch.micro_batches for key in part.keys]


def save(folder: Path, places: Places) -> None:
    name, values = places.file()
    write_json(folder / name, json.loads(json.dumps(values)))


def test_a_step_has_the_source_that_an_index_would_give_it() -> None:
    schedule, sampler = StreamSchedule(SIZES, BATCH, STEPS, 3, True), make_sampler("debiased", SIZES, BATCH, 2.4, 3)
    assert sampler.steps == STEPS
    assert [schedule.name(step) for step in range(STEPS)] == [sampler.batch(step).source for step in range(STEPS)]
    mixed = StreamSchedule({"large": 300, "small": 100}, 100, STEPS, 3, False)
    drawn = Counter(name for step in range(STEPS) for name in mixed.of_pairs(step, range(100)))
    assert 0.7 < drawn["large"] / drawn.total() < 0.8


def test_readers_share_a_pass_out() -> None:
    order = TarOrder([str(number) for number in range(7)], 5, "web")
    shares = [Share(0, reader, 3, 2) for reader in range(3)]
    taken = sorted(position for share in shares for chapter in range(7) for position in share.positions(chapter))
    assert taken == list(range(42))
    passes = [[order.at(position) for position in range(7 * n, 7 * n + 7)] for n in range(6)]
    assert all(sorted(one) == sorted(order.tars) for one in passes)
    assert len({tuple(one) for one in passes}) == 6


def test_batches_are_of_one_source_and_every_pair_comes_once_a_pass(folder: Path) -> None:
    by_source: dict[str, list[str]] = {"art": [], "web": []}
    for batch, _ in steps_of(sources_in(folder)):
        keys = keys_of(batch)
        assert {key.partition("-")[0] for key in keys} == {batch.source}
        by_source[batch.source] += keys
    for name, keys in by_source.items():
        for start in range(0, len(keys) - SIZES[name] + 1, SIZES[name]):  # 8 tars in 4 chapters of 2 are a pass
            assert len(set(keys[start : start + SIZES[name]])) == SIZES[name]
    assert by_source["web"][:EACH] != sorted(by_source["web"][:EACH])


def test_no_pair_comes_twice_before_a_pass_has_ended(folder: Path) -> None:
    (source, _) = sources_in(folder)
    assert isinstance(source.pipeline, TarPipeline)
    whole = replace(source, pipeline=replace(source.pipeline, shuffle_buffer=1000))
    reader = SourceReader(whole, Share(0, 0, 1, 2 * TARS + 3), 3, Place())
    keys = [sample.key for sample in islice(reader, 6 * source.pairs)]
    for start in range(0, len(keys), source.pairs):
        assert len(set(keys[start : start + source.pairs])) == source.pairs


def test_mixed_batches_draw_from_all_sources(folder: Path) -> None:
    batch, _ = next(steps_of(sources_in(folder), debiased=False))
    assert batch.source == MIXED
    assert {key.partition("-")[0] for key in keys_of(batch)} == {"art", "web"}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 3])
def test_a_resume_is_exact_wherever_it_begins(workers: int, folder: Path, tmp_path: Path) -> None:
    sources = sources_in(folder)
    whole = []
    for batch, places in steps_of(sources, workers=workers):
        save(tmp_path / str(batch.step + 1), places)
        whole.append(batch)
    layout = layout_of(sources, workers=max(1, workers))
    for start in (1, 8) if workers else range(1, STEPS):
        begin = begin_at(tmp_path / str(start), layout)
        assert begin.is_exact
        again, _ = next(steps_of(sources, begin, start_step=start, workers=workers))
        assert keys_of(again) == keys_of(whole[start])
        for part, expected in zip(again.micro_batches, whole[start].micro_batches, strict=True):
            assert torch.equal(part.images, expected.images)
            assert torch.equal(part.input_ids, expected.input_ids)


def test_other_readers_miss_nothing(folder: Path, tmp_path: Path) -> None:
    sources = sources_in(folder)
    seen: set[str] = set()
    two = layout_of(sources, ranks=2)
    for rank in (0, 1):
        for batch, places in steps_of(sources, Begin(two), rank=rank):
            seen |= set(keys_of(batch))
            if batch.step == 5:
                save(tmp_path, places)
                break
    again: set[str] = set()
    begin = begin_at(tmp_path, layout_of(sources))
    assert not begin.is_exact
    assert begin.before == two
    for batch, _ in steps_of(sources, begin, start_step=6):
        again |= set(keys_of(batch))
        if len(seen | again) == sum(SIZES.values()):
            break
    assert len(seen | again) == sum(SIZES.values())
    assert batch.step < 6 + sum(SIZES.values()) // BATCH + 2 * CHAPTER  # in the pass that it was in, and not the next


def test_another_list_of_tars_begins_at_its_beginning(folder: Path, tmp_path: Path) -> None:
    sources = sources_in(folder)
    for batch, places in steps_of(sources):
        if batch.step == 9:
            save(tmp_path, places)
    fewer = [sources[0], replace(sources[1], tars=sources[1].tars[:-1])]
    begin = begin_at(tmp_path, layout_of(fewer))
    assert begin.of("web", 0)[1] == Place()
    assert begin.of("art", 0)[1] != Place()


def test_a_missing_file_of_a_rank_is_named(folder: Path, tmp_path: Path) -> None:
    sources = sources_in(folder)
    _, places = next(steps_of(sources, Begin(layout_of(sources, ranks=2))))
    save(tmp_path, places)
    with pytest.raises(ZeroVLError, match="1 of 2 files of streamed sources are there; delete this checkpoint"):
        begin_at(tmp_path, layout_of(sources, ranks=2))
    with pytest.raises(ZeroVLError, match=r"has no stream-00001-of-00001\.json, .*; delete this checkpoint"):
        begin_at(tmp_path / "none", layout_of(sources))


def broken(folder: Path, tmp_path: Path) -> list[StreamedSource]:
    """Sources with a picture that does not decode in each tar, and a sample without caption."""
    sources = sources_in(folder)
    for tar in range(TARS):
        members: list[Any] = [member for number in range(EACH) for member in sample(f"{tar}{number}", number)]
        members[3] = (members[3][0], b"\xff\xd8 half a picture")
        write_tar(tmp_path / "web" / f"{tar}.tar", [*members, (f"{tar}x.jpg", jpeg(1))])
    tars = [str(path) for path in sorted((tmp_path / "web").glob("*.tar"))]
    return [sources[0], replace(sources[1], tars=tars)]


def test_what_is_lost_is_counted_once_over_resumes(folder: Path, tmp_path: Path) -> None:
    sources = broken(folder, tmp_path)
    whole: dict[str, int] = {}
    for batch, places in steps_of(sources):
        save(tmp_path / str(batch.step + 1), places)
        whole = places.lost.get("web", Lost()).counts
    reasons = {"not a picture", "no caption: neither .txt nor a caption in .json"}
    assert whole.keys() == reasons
    for start in (5, 11, 18):
        begin = begin_at(tmp_path / str(start), layout_of(sources))
        lost = lost_until(tmp_path / str(start), 0, 1)
        *_, (_, places) = steps_of(sources, begin, start_step=start, lost=lost)
        assert places.lost["web"].counts == whole
    assert lost_by_all(tmp_path / str(STEPS))["web"].counts == whole
    assert lost_until(tmp_path / str(STEPS), 0, 2)["web"].counts == whole
    assert lost_until(tmp_path / str(STEPS), 1, 2) == {}


def test_a_source_without_a_usable_pair_ends_the_run(folder: Path) -> None:
    sources = sources_in(folder)
    rules = SampleRules("web", caption_reader("title", one_caption), 1000)
    sources[1] = replace(sources[1], pipeline=TarPipeline(rules, BUFFER))
    with pytest.raises(
        ZeroVLError, match=r"web: 2 tars .* not one usable pair \(10 x no 'title' in its \.json"
    ) as error:
        for _ in steps_of(sources, debiased=False):
            pass
    assert "correct its urls, json_caption or txt_captions" in str(error.value)


def test_a_source_whose_pictures_do_not_decode_ends_the_run(folder: Path, tmp_path: Path) -> None:
    members: list[Any] = [(name, b"x" if name.endswith(".jpg") else data) for name, data in sample("0", 0)]
    tars = [str(tmp_path / f"{tar}.tar") for tar in range(TARS)]
    for tar in tars:
        write_tar(Path(tar), members)
    sources = sources_in(folder)
    sources[1] = replace(sources[1], tars=tars)
    with pytest.raises(ZeroVLError, match=r"web: a whole chapter has no picture that decodes \(5 x not a picture\); c"):
        for _ in steps_of(sources, debiased=False):
            pass


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_size_is_read_from_the_header_alone(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (120, 100)).save(buffer, kind)
    cut = buffer.getvalue()[:-20]
    _check_size(cut, 12_000)
    with pytest.raises(BrokenImageError, match="120x100 pixels, more than 11999"):
        _check_size(cut, 11_999)
    _check_size(b"no picture", 1)  # the transform says so


def test_tars_that_became_shorter_are_noticed(folder: Path, tmp_path: Path) -> None:
    sources = sources_in(folder)
    begin = Begin(layout_of(sources), places={name: {0: Place(0, 40)} for name in SIZES})
    with pytest.raises(ZeroVLError, match="10 samples lie where 40 had been read before: its tars have changed"):
        next(steps_of(sources, begin))
