from __future__ import annotations

import builtins
import errno
import fcntl
import http.server
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import s3
from tests.support.flaky_proxy import REFUSED, UNAVAILABLE, FlakyProxy
from tests.support.paths import ROOT
from zerovl import gpu_leases, params_file
from zerovl.commands import doctor, recipe
from zerovl.data.manifest import Manifest, SplitInfo
from zerovl.errors import ZeroVLError
from zerovl.model.text_towers import named_text_config
from zerovl.params import Params
from zerovl.workspace import Workspace


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with valid parameters, and nothing set in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("ZEROVL_STORE", raising=False)
    monkeypatch.setenv("ZEROVL_LEASE", str(tmp_path / "leases"))
    params_file.write(Params(), tmp_path / "params.yaml")
    return tmp_path


@pytest.fixture
def prefect_url() -> Iterator[str]:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *arguments: Any) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    thread.join()
    server.server_close()


def levels(printed: str) -> dict[str, str]:
    """Subject -> level."""
    lines = [line.split(maxsplit=2) for line in printed.splitlines()]
    return {line[1]: line[0] for line in lines if line[0] in ("ok", "note", "FAIL")}


def test_a_machine_that_is_ready(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "registry").mkdir()
    assert doctor.run(project / "params.yaml") == 0
    printed = capsys.readouterr().out
    assert printed.endswith("\nno problems found\n")
    found = levels(printed)
    assert set(found) == {"python", "torch", "torchvision", "gpu", "disk", "params", "git", "dvc", "store", "prefect"}
    assert "FAIL" not in found.values()
    assert found["store"] == "ok"
    assert not list((project / "registry").glob("probe*"))


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
    told = [str(finding) for finding in doctor.check_inputs(project / "params.yaml", Workspace(project))]
    for problem in missing:
        assert problem in written
        assert any(line.startswith("FAIL  inputs") and line.endswith(problem) for line in told)
    with pytest.raises(ZeroVLError, match=r"all-MiniLM-L6-v2 is not on this machine; run `make towers` \("):
        named_text_config("towers/all-MiniLM-L6-v2")  # as `zerovl plan` asks for it
    recipe.apply("demo", [], project / "params.yaml")  # which draws its sources itself
    assert capsys.readouterr().out.endswith("next: dvc repro\n")


def test_everything_missing_is_reported_without_a_crash(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("torch", "boto3", "pydantic", "yaml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("zerovl.commands.doctor.shutil.which", lambda command, path=None: None)
    monkeypatch.setattr("zerovl.commands.doctor.shutil.disk_usage", lambda folder: 1 / 0)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert doctor.run(project / "params.yaml") == 1
    printed = capsys.readouterr().out
    found = levels(printed)
    for subject in ("torch", "disk", "git", "dvc", "prefect"):
        assert found[subject] == "FAIL", subject
    assert found["python"] == found["params"] == "ok"
    assert printed.endswith("\n5 to fix\n")


@pytest.mark.parametrize("text", ["train: {lrr: 1}", None], ids=["wrong", "missing"])
def test_what_the_parameters_name_is_looked_at_once_they_are_right(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = project / "params.yaml"
    path.unlink()
    if text:
        path.write_text(text)
    monkeypatch.setattr(doctor, "check_torch", lambda: pytest.fail("torch is imported for nothing"))
    assert doctor.run(path) == 1
    printed = capsys.readouterr().out
    found = levels(printed)
    assert {subject for subject, level in found.items() if level == "FAIL"} == {"params"}
    left = ("inputs", "gate", "store", "copies", "shards", "torch")
    assert set(found) == {"python", "params", "disk", "git", "dvc", "prefect", *left}
    for subject in left:
        assert f"note  {subject:<12} not looked at: fix {path} first, then run it again" in printed
    assert printed.endswith("\n1 to fix\n")


def test_missing_packages_hide_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "zerovl.params_file", None)
    monkeypatch.delattr("zerovl.params_file")
    doctor.run(project / "params.yaml")
    found = levels(capsys.readouterr().out)
    assert found["packages"] == "FAIL"
    assert "torchvision" in found


def test_a_torchvision_of_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    found = {finding.subject: finding for finding in doctor.check_torch()}
    assert found["torch"].level == "ok"
    assert found["torchvision"].level == "FAIL"
    assert "nms does not exist); install the torchvision that was built for this torch" in found["torchvision"].text


def test_who_has_which_gpu(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(doctor.check_leases()) == []
    turn = gpu_leases.take(1, gpu_leases.CPU, "run slow", print)
    (found,) = doctor.check_leases()
    assert found.text.startswith("run slow has cpu since 2")
    turn.release()
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.setenv("ZEROVL_GPUS", "GPU-a,GPU-b")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lease = gpu_leases.take(1, ["GPU-b"], "run fast", print)
    (found,) = doctor.check_leases()
    lease.release()
    assert found.text.startswith("1 of 2 GPUs free; run fast has GPU-b since 2")
    monkeypatch.setenv("ZEROVL_GPUS", "MIG-a,MIG-b,MIG-c")
    (found,) = doctor.check_leases()
    assert found.text == "3 of 3 MIG devices, of which a process sees one, free; nobody has any"


def test_parameters(project: Path) -> None:
    assert [finding.level for finding in doctor.check_params(project / "params.yaml")] == ["ok"]
    (project / "params.yaml").write_text("train: {}\n")
    finding = next(doctor.check_params(project / "params.yaml"))
    assert finding.level == "FAIL"
    assert "train.batch_size: missing" in finding.text


def test_store(project: Path) -> None:
    assert doctor.store_of(project / "params.yaml") == "registry"
    assert doctor.store_of(project / "none.yaml") == "registry"
    finding = next(doctor.check_store("registry"))
    assert (finding.level, "not there yet" in finding.text) == ("note", True)
    assert not (project / "registry").exists()
    (project / "file").write_text("")
    for uri in ("file", "gs://bucket"):
        assert next(doctor.check_store(uri)).level == "FAIL"


def test_where_checkpoints_are_copied(project: Path, moto_bucket: str) -> None:
    assert list(doctor.check_copies(project / "params.yaml")) == []
    place, nowhere = f"s3://{moto_bucket}/copies", "s3://no-such-bucket/copies"
    for copy, level in ((place, "ok"), (nowhere, "FAIL")):
        params = params_file.from_recipe({}, [f"machine.checkpoint_copy={copy}"], "test")
        params_file.write(params, project / "params.yaml")
        (finding,) = doctor.check_copies(project / "params.yaml")
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
        (finding,) = doctor.check_copies(project / "params.yaml")
        assert finding.level == "note"
        assert f"{place} can be written; old copies of checkpoints will stay there: " in finding.text
        assert "cannot delete copies/probe: access refused" in finding.text
    monkeypatch.setenv("AWS_ENDPOINT_URL", away.url)
    (finding,) = doctor.check_copies(project / "params.yaml")
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
    found = [(finding.level, finding.text) for finding in doctor.check_shard_cache(project / "params.yaml")]
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
    assert not list(doctor.check_gate(path, workspace))
    Manifest(workspace.manifest, {("photos", "valid"): SplitInfo(8, 8, 0, ())}).save()
    for source, level in (("photos", "ok"), ("phtos", "FAIL")):
        params_file.write(params_file.from_recipe({}, [f"register.gate.min_source_rsum={{{source}: 1}}"], "x"), path)
        (finding,) = doctor.check_gate(path, workspace)
        assert finding.level == level
    assert "min_source_rsum: 'phtos'" in finding.text


def test_disk(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(project)
    for free, level in ((10**9, "note"), (10**12, "ok")):
        monkeypatch.setattr(
            "zerovl.commands.doctor.shutil.disk_usage", lambda folder, free=free: usage._replace(free=free)
        )
        assert next(doctor.check_disk(project)).level == level


def test_prefect(prefect_url: str) -> None:
    assert next(doctor.check_prefect("")).level == "note"
    assert next(doctor.check_prefect(prefect_url)).level == "ok"
    assert next(doctor.check_prefect(prefect_url + "/")).level == "ok"
    for url in (prefect_url + "/v2", "http://127.0.0.1:9/api", "file:///etc"):
        finding = next(doctor.check_prefect(url))
        assert finding.level == "FAIL"
        assert "PREFECT_API_URL" in finding.text


def test_the_targets_of_make_that_it_names_exist() -> None:
    source = Path(doctor.__file__)
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make ([a-z0-9-]+)`", source.read_text()))
    assert named <= set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
