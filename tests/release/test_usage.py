"""The Python that loads a release has a caption of its own sample, in the card and where it is registered."""

from __future__ import annotations

import ast
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.finished_pipeline import write_pipeline
from zerovl import params_file
from zerovl.files import write_json
from zerovl.model.architecture import Architecture
from zerovl.params import Params, RegisterParams
from zerovl.registry.registry import Registry
from zerovl.release import outcome, usage
from zerovl.release.publish import Candidate, assemble, publish_and_judge
from zerovl.workspace import Workspace

BERT = Architecture(
    image_tower="resnet18",
    image_options={},
    text_config={"model_type": "bert"},
    embed_dim=8,
    temperature=0.07,
    learn_temperature=True,
    image_size=32,
    resize_size=36,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    max_tokens=16,
)


def sample(*captions: list[str]) -> bytes:
    """The tar of a sample with these captions of its pictures."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for row, its in enumerate(captions):
            record = json.dumps({"key": f"web-{row}", "captions": its}).encode()
            for suffix, data in (("jpg", b"picture %d" % row), ("json", record)):
                member = tarfile.TarInfo(f"{row:06d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def caption_of(lines: str) -> str:
    """The caption that the Python encodes, read as Python."""
    (call,) = [
        node for node in ast.walk(ast.parse(lines)) if getattr(getattr(node, "func", None), "attr", "") == "encode_text"
    ]
    (caption,) = ast.literal_eval(call.args[0])
    return str(caption)


@pytest.mark.parametrize("caption", ["a red box", 'a "red" box', "back\\slash", "línea\n\u4e00\U0001f3bf", "{label}"])
def test_any_caption_is_a_text_of_python(caption: str) -> None:
    lines = usage.usage_lines(RegisterParams(), "1", caption)
    assert caption_of(lines) == caption
    assert lines.count("\n") == 2


def test_the_shortest_caption_of_a_sample_is_the_example() -> None:
    assert usage.example_caption(sample(["three blue stars", "a box"], ["a dot", "a disc"]), "sample") == "a box"
    for without in (sample(), sample([]), b"not a tar"):
        assert usage.example_caption(without, "sample") == usage.NO_SAMPLE


def made(tmp_path: Path, *changes: str) -> tuple[Params, Candidate]:
    workspace = Workspace(tmp_path)
    write_pipeline(workspace)
    (workspace.evaluation_report / "sample" / "pairs.tar").write_bytes(sample(["three small blue stars"]))
    write_json(workspace.model / "config.json", replace(BERT, pooling="mean").to_json())
    params = params_file.from_recipe({}, [f"register.store={tmp_path / 'store'}", *changes], "test")
    return params, assemble(params, workspace)


def card_of(candidate: Candidate) -> str:
    card = candidate.files["MODEL_CARD.md"]
    assert isinstance(card, bytes)
    return card.decode()


def test_a_card_has_a_caption_of_the_sample_and_no_export_that_is_refused(tmp_path: Path) -> None:
    _, candidate = made(tmp_path)
    card = card_of(candidate)
    assert 'model.encode_text(["three small blue stars"]) @' in card
    assert "`--to hugging-face` is not for this model: its text tower bert is pooled by 'mean'" in card
    assert "`zerovl export MODEL --to open-clip --out DIR`" in card
    assert usage.NO_SAMPLE in card_of(made(tmp_path, "evaluate.sample=0")[1])


@pytest.mark.usefixtures("registry_environment", "unchecked")
def test_what_is_registered_is_told_with_a_caption_of_its_sample(
    tmp_path: Path, local: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    params, candidate = made(tmp_path)
    section = params.register_.model_copy(update={"alias": ""})
    registered = publish_and_judge(local, candidate, section, lambda *_: None)  # type: ignore[arg-type, return-value]
    outcome.tell(registered, section, [])
    said = capsys.readouterr().out
    assert caption_of("\n".join(line.strip() for line in said.splitlines()[-3:])) == "three small blue stars"
