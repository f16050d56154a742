"""`zerovl demo-data`: three sources of captioned scenes, one in each layout that `prepare` reads.

The validation pictures show combinations of shape, colour, size, count, position and texture that
no source has in training. The same settings draw the same bytes on every machine with the same
Pillow.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
from tqdm import tqdm

from zerovl import cores
from zerovl.data.demo import pictures, scenes
from zerovl.data.demo.scenes import Scene
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.params import DemoParams, as_dict
from zerovl.processes import worker_pool
from zerovl.whole_folder import whole_folder

_STAMP = "drawn.json"
_DRAWING = 1  # raise it when the same settings would draw other bytes
_TAR_SAMPLES = 1000
_SOURCES = (
    ("poster", scenes.poster_captions),
    ("board", scenes.board_captions),
    ("photo", scenes.photo_captions),
)


@dataclass(frozen=True, slots=True)
class _Task:
    """One picture; all its random choices come from `seed`."""

    style: str
    scene: Scene
    side: int
    seed: str


@dataclass(frozen=True, slots=True)
class _Pair:
    """A picture with its captions; `number` counts in the split."""

    number: int
    jpeg: bytes
    captions: list[str]


def draw(settings: DemoParams, out: Path) -> None:
    """Write the sources `board`, `photo` and `poster` under `out`; data of the same settings is left as it is.

    They are drawn aside and renamed as a whole, so that `out` is never half-written. Raises
    `ZeroVLError` for settings that leave too few combinations, and where `out` has foreign files.
    """
    stamp = {"settings": as_dict(settings), "drawing": _DRAWING, "pillow": PIL.__version__}
    if (out / _STAMP).is_file() and read_json(out / _STAMP) == stamp:
        print(f"{out}: already drawn with these settings")
        return
    _refuse_foreign(out)
    with whole_folder(out) as aside:
        _draw_all(settings, aside)
        write_json(aside / _STAMP, stamp)
        shutil.rmtree(out, ignore_errors=True)
    names = ", ".join(sorted(name for name, _ in _SOURCES))
    print(f"{out}: {settings.train_pairs} training and {settings.valid_pairs} validation pictures each in {names}")


def combinations(settings: DemoParams) -> dict[tuple[str, str], list[Scene]]:
    """Return (source, split) -> its scenes; what is in some source's valid split is in nobody's train split.

    Raises `ZeroVLError` for settings that leave too few of them.
    """
    every = scenes.all_scenes()
    random.Random(f"{settings.seed}/combinations").shuffle(every)
    unseen = len(_SOURCES) * settings.valid_pairs
    if unseen > len(every) // 2:
        raise ZeroVLError(
            f"demo.valid_pairs is {settings.valid_pairs}: {len(_SOURCES)} sources need {unseen} unseen combinations of "
            f"the {len(every)} there are, half of which are for training; set it to {len(every) // 2 // 3} or less"
        )
    chosen: dict[tuple[str, str], list[Scene]] = {}
    for number, (source, _) in enumerate(_SOURCES):
        chosen[source, "valid"] = every[number * settings.valid_pairs : (number + 1) * settings.valid_pairs]
        shown: list[Scene] = []
        rounds = 0
        while len(shown) < settings.train_pairs:  # each combination once before any comes again
            again = every[unseen:]
            random.Random(f"{settings.seed}/{source}/{rounds}").shuffle(again)
            shown += again
            rounds += 1
        chosen[source, "train"] = shown[: settings.train_pairs]
    return chosen


def _draw_all(settings: DemoParams, folder: Path) -> None:
    chosen = combinations(settings)
    writers = {"poster": _write_zerovl, "board": _write_karpathy, "photo": _write_webdataset}
    workers = min(cores.core_count(), 8)
    total = sum(len(scenes) for scenes in chosen.values())
    with (
        worker_pool(workers) as pool,
        tqdm(total=total, desc="demo-data", unit=" pictures", delay=1) as bar,
    ):
        for source, words in _SOURCES:
            pairs: dict[str, list[_Pair]] = {}
            for split in ("train", "valid"):
                scenes = chosen[source, split]
                seeds = [f"{settings.seed}/{source}/{split}/{number}" for number in range(len(scenes))]
                tasks = [_Task(source, scene, settings.side, seed) for scene, seed in zip(scenes, seeds, strict=True)]
                pairs[split] = []
                for number, jpeg in enumerate(pool.map(_jpeg, tasks, chunksize=50)):
                    captions = words(scenes[number], random.Random(f"{seeds[number]}/words"))
                    pairs[split].append(_Pair(number, jpeg, captions))
                    bar.update()
            writers[source](folder / source, pairs["train"], pairs["valid"])


def _jpeg(task: _Task) -> bytes:
    picture = pictures.STYLES[task.style](task.scene, task.side, random.Random(task.seed))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _write_zerovl(folder: Path, train: list[_Pair], valid: list[_Pair]) -> None:
    captions = 0
    first_id = 0
    for split, pairs in (("train", train), ("valid", valid)):
        (folder / split).mkdir(parents=True)
        with open(folder / f"{split}_anno.csv", "w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["image", "image_id", "caption", "caption_id"])
            for pair in pairs:
                name = f"{first_id + pair.number:06d}.jpg"
                (folder / split / name).write_bytes(pair.jpeg)
                for caption in pair.captions:
                    lines.writerow([name, first_id + pair.number, caption, captions])
                    captions += 1
        first_id += len(pairs)


def _write_karpathy(folder: Path, train: list[_Pair], valid: list[_Pair]) -> None:
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    sentence = 0
    for split, pair in _with_split(train, valid):
        name = f"{len(images):06d}.jpg"
        (folder / "images" / name).write_bytes(pair.jpeg)
        sentids = list(range(sentence, sentence + len(pair.captions)))
        sentence += len(pair.captions)
        images.append(
            {
                "filepath": "images",
                "filename": name,
                "imgid": len(images),
                "split": split,
                "sentids": sentids,
                "sentences": [
                    {"raw": text, "imgid": len(images), "sentid": number}
                    for text, number in zip(pair.captions, sentids, strict=True)
                ],
            }
        )
    write_json(folder / "dataset_board.json", {"dataset": "board", "images": images})


def _with_split(train: list[_Pair], valid: list[_Pair]) -> Iterator[tuple[str, _Pair]]:
    """One in twenty training pictures is `restval`, as in COCO."""
    for pair in train:
        yield ("restval" if pair.number % 20 == 19 else "train"), pair
    for pair in valid:
        yield "test", pair


def _write_webdataset(folder: Path, train: list[_Pair], valid: list[_Pair]) -> None:
    """Keys as img2dataset makes them: the shard's five digits, then four of the sample."""
    shard = 0
    for split, pairs in (("train", train), ("valid", valid)):
        (folder / split).mkdir(parents=True)
        for start in range(0, len(pairs), _TAR_SAMPLES):
            with tarfile.open(folder / split / f"{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for number, pair in enumerate(pairs[start : start + _TAR_SAMPLES]):
                    _add(tar, f"{shard:05d}{number:04d}", pair)
            shard += 1


def _add(tar: tarfile.TarFile, key: str, pair: _Pair) -> None:
    [caption] = pair.captions
    description = {
        "key": key, "caption": caption, "status": "success", "sha256": hashlib.sha256(pair.jpeg).hexdigest(),
    }  # fmt: skip
    members = {"jpg": pair.jpeg, "json": json.dumps(description).encode(), "txt": caption.encode()}
    for extension, data in members.items():
        header = tarfile.TarInfo(f"{key}.{extension}")
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))


def _refuse_foreign(out: Path) -> None:
    """Raise where something stands in `out` that was not drawn and is not one of DVC's own files."""
    if (out / _STAMP).is_file() or not out.exists():
        return
    own = {".gitignore", *(name for name, _ in _SOURCES)}
    if foreign := sorted(path.name for path in out.iterdir() if path.name not in own):
        raise ZeroVLError(f"{out}: has {', '.join(foreign[:3])}, which is not the demo's; move it away first")
