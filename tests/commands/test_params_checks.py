"""What `zerovl doctor` looks at because the parameters name it, and what else says the same."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from tests.support import s3
from tests.support.flaky_proxy import REFUSED, UNAVAILABLE, FlakyProxy
from tests.support.paths import ROOT
from zerovl import params_file
from zerovl.commands import params_checks, recipe
from zerovl.data.manifest import Manifest, SplitInfo
from zerovl.errors import ZeroVLError
from zerovl.model.text_towers import named_text_config
from zerovl.workspace import Workspace


def test_sources_and_towers_that_are_not_there_are_told_by_recipe_and_doctor(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.apply(str(ROOT / "recipes" / "photos.yaml"), [], project / "params.yaml")
    written = capsys.readouterr().out
    assert "next: dvc repro" not in written
    missing = [
        "source 'flickr8k': ../shared/photos/flickr8k: no such folder; correct its path",
        "source 'fsa_color': ../shared/data/fsa_color: no such folder; correct its path",
        "model.image_tower.weights: towers/tf_efficientnet_lite1.safetensors: not there; run `make towers`",
        "model.text_tower.name: towers/all-MiniLM-L6-v2: not there; run `make towers`",
    ]
    told = [str(finding) for finding in params_checks.check_inputs(project / "params.yaml", Workspace(project))]
    for problem in missing:
        assert problem in written
        assert any(line.startswith("FAIL  inputs") and line.endswith(problem) for line in told)
    with pytest.raises(ZeroVLError, match=r"all-MiniLM-L6-v2 is not on this machine; run `make towers` \("):
        named_text_config("towers/all-MiniLM-L6-v2")  # as `zerovl plan` asks for it
    recipe.apply("demo", [], project / "params.yaml")  # which draws its sources itself
    assert capsys.readouterr().out.endswith("next: dvc repro\n")


def test_parameters(project: Path) -> None:
    assert [finding.level for finding in params_checks.check_params(project / "params.yaml")] == ["ok"]
    (project / "params.yaml").write_text("train: {}\n")
    finding = next(params_checks.check_params(project / "params.yaml"))
    assert finding.level == "FAIL"
    assert "train.batch_size: missing" in finding.text


def test_store(project: Path) -> None:
    assert params_checks.store_of(project / "params.yaml") == "registry"
    assert params_checks.store_of(project / "none.yaml") == "registry"
    finding = next(params_checks.check_store("registry"))
    assert (finding.level, "not there yet" in finding.text) == ("note", True)
    assert not (project / "registry").exists()
    (project / "file").write_text("")
    for uri in ("file", "gs://bucket"):
        assert next(params_checks.check_store(uri)).level == "FAIL"


def test_where_checkpoints_are_copied(project: Path, moto_bucket: str) -> None:
    assert list(params_checks.check_copies(project / "params.yaml")) == []
    place, nowhere = f"s3://{moto_bucket}/copies", "s3://no-such-bucket/copies"
    for copy, level in ((place, "ok"), (nowhere, "FAIL")):
        params = params_file.from_recipe({}, [f"machine.checkpoint_copy={copy}"], "test")
        params_file.write(params, project / "params.yaml")
        (finding,) = params_checks.check_copies(project / "params.yaml")
        assert finding.level == level
        assert copy in finding.text
    assert s3.client().list_objects_v2(Bucket=moto_bucket)["KeyCount"] == 0


def test_copies_that_nobody_may_delete_are_a_note_and_a_server_that_is_away_is_not_waited_for(
    project: Path, moto_bucket: str, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"s3://{moto_bucket}/copies"
    params = params_file.from_recipe({}, [f"machine.checkpoint_copy={place}"], "test")
    params_file.write(params, project / "params.yaml")
    keeps, away = FlakyProxy(moto_url, "DELETE", [REFUSED] * 2), FlakyProxy(moto_url, "PUT", [UNAVAILABLE] * 3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", keeps.url)
    for _ in range(2):
        (finding,) = params_checks.check_copies(project / "params.yaml")
        assert finding.level == "note"
        assert f"{place} can be written; old copies of checkpoints will stay there: " in finding.text
        assert "cannot delete copies/probe: access refused" in finding.text
    monkeypatch.setenv("AWS_ENDPOINT_URL", away.url)
    (finding,) = params_checks.check_copies(project / "params.yaml")
    assert finding.level == "FAIL"
    assert away.faults == [UNAVAILABLE]  # two attempts
    keeps.close()
    away.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    assert s3.client().list_objects_v2(Bucket=moto_bucket)["KeyCount"] == 1


def shard_cache(project: Path, *overrides: str) -> tuple[str, str] | None:
    """Level and text of what is said of the cache of shards, whose folder is in the project; None: nothing."""
    folder = f"machine.shard_cache.folder={project}/home/cache"
    params_file.write(params_file.from_recipe({}, [folder, *overrides], "test"), project / "params.yaml")
    found = [(finding.level, finding.text) for finding in params_checks.check_shard_cache(project / "params.yaml")]
    return found[0] if found else None


def test_the_cache_of_shards_is_looked_at_where_something_is_read_through_it(project: Path) -> None:
    assert shard_cache(project) is None
    away = '[{"name": "web", "path": "s3://bucket/web", "tars": "in_place"}]'
    for used in ("machine.shards=s3://bucket/copy", f"data.sources={away}"):
        said = shard_cache(project, used, "machine.shard_cache.size=1KiB")
        folder = project / "home/cache"
        assert said == ("ok", f"{folder} can be written and locked, and has room for 1.0 KiB of shards")
        assert not folder.parent.exists()


def test_a_cache_of_shards_that_cannot_work(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = "machine.shards=s3://bucket/copy"
    folder = project / "home" / "cache"
    usage = shutil.disk_usage(project)
    monkeypatch.setattr("zerovl.commands.node_cache.shutil.disk_usage", lambda _: usage._replace(free=3 << 30))
    folder.mkdir(parents=True)
    (folder / "0.tar").write_bytes(bytes(1 << 20))
    # A GiB of the disk stays free; what the cache has already does not need room again.
    fits, larger = f"machine.shard_cache.size={2 * 1024 + 1}MiB", f"machine.shard_cache.size={2 * 1024 + 2}MiB"
    assert (shard_cache(project, used, fits) or "")[0] == "ok"
    level, text = shard_cache(project, used, larger) or ("", "")
    assert level == "note"
    assert text.startswith(f"machine.shard_cache.size 2050MiB: the disk of {folder} has room for 2.0 GiB, and")

    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as without:
        without.setattr(fcntl, "flock", flock)
        level, text = shard_cache(project, used, fits) or ("", "")
    assert level == "note"
    assert text.startswith(f"machine.shard_cache.folder {folder}: its file system has no locks (No locks available)")

    def closed(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder / "tmp0"))

    with monkeypatch.context() as refused:
        refused.setattr("zerovl.commands.node_cache.missing_locks", closed)
        level, text = shard_cache(project, used, fits) or ("", "")
    assert level == "FAIL"
    assert f"{folder} is d" in text
    assert text.endswith("open it to you, or name a folder of your own")
    shutil.rmtree(folder.parent)
    folder.parent.write_text("a file")
    level, text = shard_cache(project, used, fits) or ("", "")
    assert level == "FAIL"
    assert text.endswith("name a folder on a disk of this node")


def test_a_gate_that_names_a_source_which_the_data_lack(project: Path) -> None:
    path, workspace = project / "params.yaml", Workspace(project)
    assert not list(params_checks.check_gate(path, workspace))
    Manifest(workspace.manifest, {("photos", "valid"): SplitInfo(8, 8, 0, ())}).save()
    for source, level in (("photos", "ok"), ("phtos", "FAIL")):
        params_file.write(params_file.from_recipe({}, [f"register.gate.min_source_rsum={{{source}: 1}}"], "x"), path)
        (finding,) = params_checks.check_gate(path, workspace)
        assert finding.level == level
    assert "min_source_rsum: 'phtos'" in finding.text
