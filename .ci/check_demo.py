"""After `make demo`: its promises, and what `dvc repro` reruns after a change. Leaves the checkout as it was."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import zerovl
from zerovl import params_file
from zerovl.files import read_json

STAGES = ["prepare", "validate", "train", "evaluate", "register"]


def command(*words: str) -> str:
    """Run a command as in an activated environment; returns what it printed."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def stages_of(printed: str) -> list[str]:
    return [name for name in re.findall(r"Running stage '([^']*)'", printed) if name in STAGES]


def change(*overrides: str) -> None:
    params_file.write(params_file.from_recipe({}, list(overrides), "check"), "params.yaml")


def main() -> None:
    scores = read_json("reports/evaluation/metrics.json")["overall"]
    assert scores["rsum"] >= 10 * scores["untrained_rsum"], scores
    release = read_json("reports/release.json")
    assert release["promoted"], release
    page = Path("reports/evaluation/report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"']?https?:", page), "the report reaches for the network"

    again = command("make", "demo")
    assert stages_of(again) == [], again
    assert "report.html" in again

    with tempfile.TemporaryDirectory() as folder:
        model = zerovl.load(f"registry/{release['name']}@production")
        picture = Path(folder, "a.png")
        shutil.copy("reports/evaluation/gallery.png", picture)
        assert (model.encode_text(["a red star"]) @ model.encode_image([picture]).T).shape == (1, 1)

    before = Path("params.yaml").read_bytes()
    try:
        for stage, overrides in (("prepare", "prepare.shard_samples=999"), ("train", "train.lr=0.003")):
            change(overrides)
            assert f"{stage}:" in command("dvc", "status"), f"{overrides} goes unnoticed"
            downstream = command("dvc", "repro", "--dry", "--force", "--downstream", stage)
            assert stages_of(downstream) == STAGES[STAGES.index(stage) :], downstream
        change("evaluate.bootstrap=500")
        assert stages_of(command("dvc", "repro")) == ["evaluate", "register"]
        assert read_json("reports/release.json")["version"] == release["version"] + 1  # other metrics, other release
    finally:
        Path("params.yaml").write_bytes(before)
    restored = command("dvc", "repro")
    assert stages_of(restored)[-1] == "register", restored
    assert "train" not in stages_of(restored), restored
    assert read_json("reports/release.json")["version"] == release["version"], "the same model got another version"
    print("the demo keeps its promises")


if __name__ == "__main__":
    main()
