"""What a run is called by: settings that came later leave the fingerprints of earlier runs as they are."""

from typing import Any

import pytest

from tests.support.tiny_project import make_project, recipe
from zerovl.training import fingerprint
from zerovl.training.run_spec import make_spec
from zerovl.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


def described(workspace: Workspace, *overrides: str) -> dict[str, Any]:
    return make_spec(recipe(*overrides), workspace).description


def test_a_later_setting_of_the_towers_counts_where_it_is_not_what_was_there_before(workspace: Workspace) -> None:
    before = described(workspace, "model.text_tower.pooling=first")
    assert set(before["model"]["text_tower"]) == {"name", "pretrained", "config"}
    mean = described(workspace, "model.text_tower.pooling=mean")
    assert mean["model"]["text_tower"]["pooling"] == "mean"
    assert described(workspace) == mean, "auto is the mean for a tower from scratch"
    assert fingerprint.differences(before, mean) == ["model.text_tower.pooling: first -> mean"]
