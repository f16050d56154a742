"""Memory does not grow with the number of pairs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.drawn_manifest import write

CHILD = """
import json, re, sys, time
from pathlib import Path
import great_expectations, pandas
from zerovl.stages import validate
from zerovl.params import Params
from zerovl.workspace import Workspace
for root in sys.argv[1:]:  # the first sets the mark above which the others may not rise by much
    started = time.monotonic()
    validate.run(Params(), Workspace(Path(root)))
    # Not ru_maxrss, which begins with what the parent had when it started this process.
    highest = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    print(json.dumps({"highest": highest, "seconds": time.monotonic() - started}))
"""


@pytest.mark.slow
def test_half_a_million_rows_fit_in_little_memory(tmp_path: Path) -> None:
    for name, train in (("small", 50_000), ("large", 480_000)):
        write(tmp_path / name / "data/manifest", train, 20_000)
    folders = [str(tmp_path / "small"), str(tmp_path / "large")]
    child = subprocess.run([sys.executable, "-c", CHILD, *folders], capture_output=True, text=True, check=True)
    small, large = (json.loads(line) for line in child.stdout.splitlines() if line.startswith("{"))
    print(small, large)
    assert 0 < small["highest"] < 1e9
    # 430,000 rows more: the bytes of their tables would be 28 MB and more, beside what the first buckets take, about
    # 35 MB; their values 0.25 GB.
    assert large["highest"] - small["highest"] < 50e6
    verdict = json.loads((tmp_path / "large/reports/validation/verdict.json").read_text())
    assert verdict["rows"] == 500_000
    assert verdict["sampled_rows"] == 20_000
