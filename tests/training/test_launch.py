"""Which of several failed ranks is the cause."""

import json
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

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
