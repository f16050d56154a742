"""Several ranks give what one gives, to the last digit: embeddings, sets of pictures, and every file of a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.fake_world import WIDTH, FakeEncoder, World, png
from tests.support.labelled_sets import write_folder
from tests.support.paths import ROOT
from tests.support.real_world import make_model, make_project, settings
from tests.support.thread_ranks import ThreadRank, on_ranks
from zerovl import cores
from zerovl.data.raw.records import Picture
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation import sharing
from zerovl.evaluation.classification.encoding import EncodedPictures, encode_pictures
from zerovl.evaluation.early_helpers import early_helpers
from zerovl.evaluation.pool import Embeddings, Pool, encode
from zerovl.evaluation.sharing import own
from zerovl.stages import evaluate


def _ranks(its: ThreadRank) -> Ranks:
    return Ranks(its.rank, its.world_size, ALONE.device, its)  # type: ignore[arg-type]


def _encode(world: World, ranks: Ranks, size: int) -> tuple[Pool, list[Embeddings]]:
    models = [FakeEncoder(), FakeEncoder(seed=1)]
    batches = {
        source: (len(rows), world.batches(source, models[0].transform, size)[own(ranks, number)])
        for number, (source, rows) in enumerate(world.samples.items())
    }
    return encode(batches, models, size, ranks)


@pytest.mark.parametrize(("world_size", "size"), [(2, 5), (3, 2), (3, 1000)])
def test_embeddings_do_not_depend_on_the_number_of_ranks(
    world: World, world_size: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1,000 a batch two of three ranks have none; five rows are summed at once."""
    monkeypatch.setattr(sharing, "_SUMMED_AT_ONCE", 5 * WIDTH)
    pool, embeddings = _encode(world, ALONE, size)
    for its_pool, its_embeddings in on_ranks(world_size, lambda its: _encode(world, _ranks(its), size)):
        assert its_pool.keys == pool.keys
        assert its_pool.captions == pool.captions
        for name in ("image_source", "image_row", "image_id", "caption_image"):
            assert np.array_equal(getattr(its_pool, name), getattr(pool, name)), name
        for found, expected in zip(its_embeddings, embeddings, strict=True):
            assert torch.equal(found.image.view(torch.int32), expected.image.view(torch.int32))
            assert torch.equal(found.text.view(torch.int32), expected.text.view(torch.int32))


def test_the_small_last_batches_of_sources_are_dealt_in_turn() -> None:
    def pictures(rank: int) -> int:
        return sum(sum([128, 98][own(Ranks(rank, 2, ALONE.device, ALONE.collectives), source)]) for source in range(6))

    assert pictures(0) == pictures(1) == 3 * (128 + 98)


def test_pictures_of_a_set_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    """Batches 2 and 3 of two pictures hold none that can be read."""
    paths = [tmp_path / f"{number}.png" for number in range(11)]
    for number, path in enumerate(paths):
        path.write_bytes(b"" if number in (0, 4, 5, 6, 7) else png((20 * number, 10, 250 - 20 * number)))
    pictures, model = [Picture(str(path)) for path in paths], FakeEncoder()

    def encoded(ranks: Ranks) -> EncodedPictures:
        return encode_pictures(pictures, model.transform, [model.encode_pixels], 2, ranks)

    alone = encoded(ALONE)
    assert alone.rows.tolist() == [1, 2, 3, 8, 9, 10]
    for found in on_ranks(3, lambda its: encoded(_ranks(its))):
        assert found.rows.tolist() == alone.rows.tolist()
        assert found.broken == alone.broken
        assert found.digest == alone.digest
        assert torch.equal(found.outputs[0], alone.outputs[0])


def test_two_processes_write_the_report_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(cores, "core_count", lambda: 2)  # no more ranks than cores
    workspace = make_project(tmp_path)
    make_model(workspace, seed=1)
    write_folder(tmp_path / "set")
    sets = f"evaluate.classification=[{{name: set, folder: {tmp_path}/set, measures: [zero_shot, linear_probe]}}]"
    reports = []
    for ranks in (1, 2):
        params = settings(tmp_path, sets, "evaluate.folds=4", f"machine.ranks={ranks}")
        with early_helpers(ranks) as early:
            evaluate.run(params, workspace, early)
            assert ranks == 1 or [its.poll() for its in early.running.values()] == [0]  # it did its share
        files = (path for path in workspace.evaluation_report.rglob("*") if path.is_file())
        reports.append({str(path.relative_to(tmp_path)): path.read_bytes() for path in files})
    one, two = reports
    assert json.loads(workspace.evaluation_metrics.read_text())["evaluators"].keys() == {"folds", "set"}
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []
