"""`zerovl search` of words in an index imports what reading words needs, which is neither torch nor a tower."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clip_folders import make_clip, make_siglip
from tests.support.fake_world import make_picture_folder
from tests.support.paths import ROOT
from zerovl import cli
from zerovl.interop.import_folder import import_folder

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"
NOT_NEEDED = {
    *("torch", "transformers", "timm", "scipy", "pyarrow.dataset", "PIL.Image"),
    *("zerovl.params", "zerovl.model.text_encoder", "zerovl.model.encoder"),
    *("boto3", "dvc", "prefect", "matplotlib"),
}
_THREADS = """
import os, sys
from zerovl import cli

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "numpy":
            print("numpy sees", os.environ.get("OPENBLAS_NUM_THREADS"))

sys.meta_path.insert(0, Watch())
status = cli.main(["search", *sys.argv[1:]])
print("others see", os.environ.get("OPENBLAS_NUM_THREADS"))
sys.exit(status)
"""
_SEARCH = """
import sys
from zerovl import cli
status = cli.main(["search", *sys.argv[1:]])
print(*sys.modules)
sys.exit(status)
"""


def imported_clip(folder: Path) -> Path:
    import_folder(make_clip(folder / "theirs"), folder / "ours")
    return folder / "ours"


def imported_siglip(folder: Path) -> Path:
    import_folder(make_siglip(folder / "theirs"), folder / "ours")
    return folder / "ours"


@pytest.mark.parametrize("make_model", [lambda folder: BUNDLE, imported_clip, imported_siglip])
def test_nothing_is_imported_that_words_do_not_need(make_model: Callable[[Path], Path], tmp_path: Path) -> None:
    model = str(make_model(tmp_path))
    pictures, index = make_picture_folder(tmp_path / "pictures"), tmp_path / "index"
    assert cli.main(["index", model, "--images", str(pictures), "--out", str(index)]) == 0
    words = [model, "a red box", "--index", str(index)]
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *found, modules = done.stdout.splitlines()
    assert len(found) == 3
    imported = set(modules.split())
    assert "zerovl.model.query_encoder" in imported
    assert imported & NOT_NEEDED == set()


@pytest.mark.parametrize(("asked", "found"), [(None, ["1", "None"]), ("3", ["3", "3"])])
def test_words_are_embedded_by_one_thread(asked: str | None, found: list[str], tmp_path: Path) -> None:
    """Of NumPy alone, which looks once; several would wait for each other."""
    pictures, index = make_picture_folder(tmp_path / "pictures"), tmp_path / "index"
    assert cli.main(["index", str(BUNDLE), "--images", str(pictures), "--out", str(index)]) == 0
    variable = "OPENBLAS_NUM_THREADS"
    environment = {name: value for name, value in os.environ.items() if name != variable}
    environment |= {} if asked is None else {variable: asked}
    command = [sys.executable, "-c", _THREADS, str(BUNDLE), "a red box", "--index", str(index)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [lines[0], lines[-1]] == [f"numpy sees {found[0]}", f"others see {found[1]}"]
