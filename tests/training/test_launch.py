"""Which of several failed ranks is the cause."""

import json
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tests.support.tiny_project import recipe
from zerovl.errors import ZeroVLError
from zerovl.training import launch
from zerovl.training.launch import find_cause


@pytest.mark.parametrize(
    ("statuses", "words", "rank", "text"),
    [
        ([4, -9], {0: "rank 0 lost another rank"}, 1, "rank 1 (pid 101) died by SIGKILL"),
        ([-11, 4, -15], {}, 0, "rank 0 (pid 100) died by SIGSEGV"),
        ([5, -9], {0: "rank 1 does not answer"}, 0, "rank 1 does not answer"),  # killed as it would not end
        ([2, 2], {1: "shard 3 is damaged"}, 1, "shard 3 is damaged"),  # the one that said it
        ([-15, 1], {1: "rank 1: ValueError: x"}, 1, "rank 1: ValueError: x"),
        ([4, 3], {}, 1, "ended with status 3"),
        ([-15, 4], {1: "rank 1 lost another rank"}, 1, "rank 1 lost another rank"),  # the agent told rank 0 to end
        ([-6, -9, -6], {}, 1, "rank 1 (pid 101) died by SIGKILL"),  # NCCL aborts the ranks that are left
        ([-6, 1], {1: "rank 1: ValueError: x"}, 1, "rank 1: ValueError: x"),
        ([4, -6, -15], {0: "rank 0 lost another rank"}, 1, "rank 1 (pid 101) died by SIGABRT"),
    ],
)
def test_cause(statuses: list[int], words: dict[int, str], rank: int, text: str, tmp_path: Path) -> None:
    failures = []
    for number, status in enumerate(statuses):
        file = tmp_path / f"{number}.json"
        if number in words:
            file.write_text(json.dumps({"message": words[number], "timestamp": 1}))
        failures.append((number, ProcessFailure(number, 100 + number, status, str(file))))
    cause = find_cause(failures)
    assert (cause.rank, cause.status) == (rank, statuses[rank])
    assert text in cause.text


def test_towers_that_cannot_work_are_told_before_a_rank_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["machine.ranks=2", "train.micro_batch=8", "model.image_tower.options={img_size: 64}"]
    monkeypatch.setattr(launch, "_run_group", lambda *_: pytest.fail("ranks were started"))
    with pytest.raises(ZeroVLError, match="image_size 32 does not fit the image tower vit_tiny_patch16_224"):
        launch.run(recipe(*asked), "params.yaml")
