"""YAML is read by libyaml, and means what PyYAML's own parser says: values, refusals and words."""

from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from zerovl import yaml_file
from zerovl.errors import ZeroVLError
from zerovl.yaml_file import read_yaml, yaml_mapping

FILES = [ROOT / "params.yaml", ROOT / "dvc.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_mean_what_pyyaml_says(path: Path) -> None:
    assert read_yaml(path) == yaml.load(path.read_text(encoding="utf-8"), yaml.SafeLoader)


@pytest.mark.parametrize(
    "text",
    [
        "a: 0o7\nb: 1:30\nc: 2020-01-01\nd: 1e-4\ne: ~\nf: off",
        "a: &x [1, .5, 1_000]\nb: *x\nc: 'it''s'",
        'a: "\\x41\\n"\nb: |\n  x\n   y\nc: >-\n  x\n  y\n',
        "a: [http://x, {b: c:d}]  # e\n? f\n: {g}",
        "a: \u00e9\U0001f600\u2028\n",
        "{x:,y: 1}",  # which libyaml refuses
    ],
)
def test_values_are_those_of_pyyaml(text: str) -> None:
    assert yaml_mapping(text, "here") == yaml.load(text, yaml.SafeLoader)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "line 2, column 1: expected ',' or ']', but got '<stream end>'"),
        ("a: @x", "line 1, column 4: found character '@' that cannot start any token"),
        ("a: \tb", "line 1, column 4: found character '\\t' that cannot start any token"),  # which libyaml takes
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: 1\nb: {c: 1,\n  c: 2}", "line 3: key 'c' stands in line 2 already; keep one of them"),
        ("a: \ud800", "unacceptable character #xd800: special characters are not allowed"),
    ],
)
def test_refusals_are_those_of_pyyaml(text: str, said: str) -> None:
    with pytest.raises(ZeroVLError) as caught:
        yaml_mapping(text, "here")
    assert str(caught.value).startswith(f"here: not valid YAML: {said}")


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="this PyYAML was built without libyaml")
def test_a_file_is_read_by_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own parser took a fifth of the start of a training of the tests."""
    monkeypatch.setattr(yaml_file, "_Loader", None)
    assert read_yaml(ROOT / "params.yaml")["machine"]
