"""What `import zerovl` gives: a few names, without the weight of what is behind them."""

import inspect
import subprocess
import sys
import tomllib

import pytest
import torch
import torch.nn.functional as F

import zerovl
from tests.support.paths import ROOT
from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.targets import Targets

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"
HEAVY = ("torch", "numpy", "pydantic", "timm", "transformers", "pyarrow", "yaml", "boto3")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_imports_nothing_heavy() -> None:
    code = f"import sys, zerovl; dir(zerovl); print([name for name in {HEAVY} if name in sys.modules])"
    assert run_python(code) == "[]"


def test_every_public_name_is_there() -> None:
    assert set(zerovl.__all__) == {"Encoder", "ZeroVLError", "__version__", "contrastive_loss", "load"}
    for name in zerovl.__all__:
        assert getattr(zerovl, name) is not None
        assert name in dir(zerovl)
    for name in ("Encoder", "ZeroVLError", "contrastive_loss", "load"):
        assert inspect.getdoc(getattr(zerovl, name))
    with pytest.raises(AttributeError, match="no attribute 'contrastive_los'"):
        _ = zerovl.contrastive_los


def test_names_that_come_when_asked_for_can_be_imported() -> None:
    from zerovl import Encoder, contrastive_loss
    from zerovl.model import encoder
    from zerovl.objective import tiled

    assert Encoder is encoder.Encoder
    assert contrastive_loss is tiled.contrastive_loss


# What says how rare collections are when torch is looked for; `{found}` is what they are before.
WATCH = """
import gc, sys, zerovl
from contextlib import suppress

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(gc.get_threshold())
            {then}

sys.meta_path.insert(0, Watch())
gc.set_threshold({found}, 9, 8)
with suppress({suppressed}):
    {asked}
print(gc.get_threshold())
"""
LOAD = f"zerovl.load({str(BUNDLE)!r}, device='cpu')"


def test_collections_are_rare_while_torch_is_imported_and_as_before_after_it() -> None:
    found = run_python(WATCH.format(then="", suppressed="", asked=LOAD, found=700))
    assert found.splitlines() == ["(50000, 9, 8)", "(700, 9, 8)"]


@pytest.mark.parametrize(
    ("asked", "found", "rare"),
    [
        ("zerovl.Encoder", 700, 50_000),
        ("zerovl.contrastive_loss", 700, 50_000),
        ("zerovl.contrastive_loss", 0, 0),
        ("zerovl.contrastive_loss", 90_000, 90_000),
    ],
)
def test_collections_are_as_before_where_torch_cannot_be_imported(asked: str, found: int, rare: int) -> None:
    code = WATCH.format(then="raise ImportError(name)", suppressed="ImportError", asked=asked, found=found)
    assert run_python(code).splitlines() == [f"({rare}, 9, 8)", f"({found}, 9, 8)"]


def test_loss_without_targets_and_ranks_is_that_of_matching_rows() -> None:
    torch.manual_seed(0)
    image_emb, text_emb = (F.normalize(torch.randn(12, 5)).requires_grad_() for _ in range(2))
    temperature = torch.tensor(0.1, requires_grad=True)
    leaves = (image_emb, text_emb, temperature)
    loss = zerovl.contrastive_loss(image_emb, text_emb, temperature)
    reference = dense_contrastive_loss(image_emb, text_emb, temperature, Targets())
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(reference, leaves))


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "zerovl.version.__version__"}
    assert f"\n## [{zerovl.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {zerovl.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_setuptools_reads_the_version_and_ships_the_types() -> None:
    """With neither a build nor an import of torch: what `pip install` asks of pyproject.toml."""
    code = """
import sys
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration
distribution = apply_configuration(Distribution(), "pyproject.toml")
assert "torch" not in sys.modules
print(distribution.metadata.version, "py.typed" in distribution.package_data["zerovl"])
"""
    assert run_python(code) == f"{zerovl.__version__} True"
    assert (ROOT / "zerovl" / "py.typed").is_file()
