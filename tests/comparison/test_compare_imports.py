"""`zerovl compare` reads figures that are there: it computes no embedding, and imports nothing that does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

ASSETS = ROOT / "tests" / "assets"
NOT_NEEDED = {"torch", "transformers", "timm", "scipy", "boto3", "dvc", "prefect", "matplotlib"}
# The last import is what `zerovl registry show` compares two releases with.
_COMPARE = """
import sys
from zerovl import cli
status = cli.main(["compare", *sys.argv[1:]])
import zerovl.release.kept_ranks
print(*sys.modules)
sys.exit(status)
"""


def test_nothing_is_imported_that_kept_figures_do_not_need(tmp_path: Path) -> None:
    for name in ("first", "second"):
        for asset in ("bundle_zerovl_1", "release_before_items"):
            shutil.copytree(ASSETS / asset, tmp_path / name, dirs_exist_ok=True)
    words = [sys.executable, "-c", _COMPARE, "first", "second"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *shown, modules = done.stdout.splitlines()
    assert "page: reports/comparison.html" in shown
    assert NOT_NEEDED & set(modules.split()) == set()
