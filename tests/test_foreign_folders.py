"""A folder of another library, where a bundle is asked for: every command says how to make one of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import zerovl
from tests.support.fake_world import make_picture_folder
from zerovl import cli, params_file
from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.foreign_folders import refuse
from zerovl.params import Params

COMMANDS = {
    "embed pictures": "embed {} --images pictures --out out.npz",
    "embed pairs": "embed {} --pairs pairs.csv --images pictures --out out.npz",
    "index": "index {} --images pictures --out index",
    "search": "search {} words --images pictures",
    "serve": "serve {} --images pictures --port 0",
    "classify": "classify {} --classes a,b --images pictures",
    "export": "export {} --to onnx --out out",
    "compare": "compare {} pictures",
}


@pytest.fixture(params=["open_clip", "transformers"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of such a folder where the command runs, with what tells it from a bundle."""
    monkeypatch.chdir(tmp_path)
    make_picture_folder(tmp_path / "pictures")
    Path("pairs.csv").write_text("image,image_id,caption,caption_id\nred.png,0,words,1\n")
    if request.param == "open_clip":
        write_json(Path("their model") / "open_clip_config.json", {"model_cfg": {}})
    else:
        write_json(Path("their model") / "config.json", {"model_type": "clip"})
        Path("their model", "model.safetensors").write_bytes(b"")
    return f"a folder of {request.param} ("


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_every_command_names_the_import(foreign: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word.replace("{}", "their model") for word in words.split()]
    assert cli.main(given) == 2
    said = capsys.readouterr().err
    assert f"their model: {foreign}" in said
    assert "make one with `zerovl import 'their model' --out MODEL`" in said


def test_stages_name_it_too(foreign: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("faulthandler.register", "signal.signal"):  # this process keeps its own
        monkeypatch.setattr(f"zerovl.command_line.pipeline.{name}", lambda *_: None)
    params_file.write(Params(), Path("params.yaml"))
    assert cli.main(["recipe", "params.yaml", "train.init_from=their model", "--out", "from.yaml"]) == 0
    assert cli.main(["train", "--params", "from.yaml"]) == 2
    assert f"train.init_from: their model: {foreign}" in capsys.readouterr().err
    Path("their model").rename("model")
    for stage in ("evaluate", "register"):
        assert cli.main([stage]) == 2
        assert f"model: {foreign}" in capsys.readouterr().err
    with pytest.raises(ZeroVLError, match="zerovl import model --out MODEL"):
        zerovl.load("model")


def test_bundles_and_other_folders_are_not_refused(tmp_path: Path) -> None:
    refuse(tmp_path, "nothing in it")
    (tmp_path / "config.json").write_text("not JSON")
    refuse(tmp_path, "damaged")
    write_json(tmp_path / "config.json", {"format": "zerovl-1"})
    write_json(tmp_path / "open_clip_config.json", {})
    refuse(tmp_path, "a bundle, whatever lies beside it")
