"""README and docs show what result files and the heads of recipes say."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.common import RESULTS
from benchmarks.readme_places import MINUTES, PLACES, PLAN, ROOT, Place, render
from tests.support.fork_server import start_zerovl
from tests.support.project_copy import SMALL
from zerovl import cli
from zerovl.files import read_json, write_json


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.page}: {place.pattern[:30]}")
def test_readme_and_docs_show_what_the_files_say(place: Place) -> None:
    text = (ROOT / place.page).read_text(encoding="utf-8")
    made = render(place, text)
    assert made == text, "run python -m benchmarks.readme"
    with pytest.raises(ValueError, match="is there 2 times; expected once"):
        render(place, f"{text}\n{text}")


def test_the_plan_on_the_page_is_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert cli.main(["recipe", str(ROOT / "recipes" / "zerovl-14m.yaml")]) == 0
    capsys.readouterr()
    assert cli.main(["plan", *readme.PLANNED]) == 0
    shown = readme.shortened_plan(capsys.readouterr().out)
    assert shown == (RESULTS / PLAN).read_text(encoding="utf-8"), "run python -m benchmarks.readme --plan"
    command = f"zerovl recipe recipes/zerovl-14m.yaml && zerovl plan {' '.join(readme.PLANNED)}\n{shown}"
    assert command in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def shape(lines: Sequence[str]) -> list[str]:
    """Lines without their numbers, the spaces that a table fills up with, and what follows from a number."""
    numbers = (re.sub(r"[-+]?\d[\d.]*", "#", line) for line in lines)
    return [re.sub(r"\s+", " ", line.removesuffix(" *")).strip() for line in numbers]


def test_what_the_pages_show_of_the_demo_is_what_the_commands_print(tmp_path: Path) -> None:
    """Measured as for the pages, with a demo that takes seconds; forked, as the imports take longer than the rest."""

    def run(work: Path, *words: str) -> str:
        child = start_zerovl(*words, cwd=work, env=environment)
        out, err = child.communicate(timeout=280)
        assert child.returncode == 0, f"{words}\n{out}\n{err}"
        return out

    left_out = ("ZEROVL_STORE", "ZEROVL_RUN")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    environment |= {"ZEROVL_CACHE": str(tmp_path / "cache"), "ZEROVL_WORKERS": "1"}
    measured = readme.measure(tmp_path / "work", run, SMALL)
    kept = read_json(RESULTS / readme.FILE)
    assert measured.keys() == kept.keys()
    learned = [line for line in measured["summary"] if not line.startswith("  warning")]  # in seconds, hardly
    assert shape(learned) == shape(kept["summary"])
    assert shape(measured["compare"]) == shape(kept["compare"])
    assert shape([measured["holder"]]) == shape([kept["holder"]])
    results = tmp_path / "results"
    shutil.copytree(RESULTS, results)
    write_json(results / readme.FILE, {**measured, "summary": learned})
    for place in PLACES:  # a page made from it is known again by the same pattern
        text = (ROOT / place.page).read_text(encoding="utf-8")
        assert render(place, render(place, text, results)) == text


def test_a_comparison_is_shown_with_its_first_scores() -> None:
    lines = ["A  one", "", "SCORE  A", *(f"RSUM {number}" for number in range(6)), "", "PARAMETER  A", "", "page: x"]
    shown = readme.shortened(lines)
    assert shown == ["A  one", "", "SCORE  A", *(f"RSUM {number}" for number in range(4)), "...", *lines[9:]]
    assert readme.shortened(lines[:5]) == lines[:5]


def test_steps_of_a_log_are_timed_where_it_came_to_its_end() -> None:
    log = (
        "\n== make setup (0 s)\n== not a step\n\n== make test (57 s)\n1 passed\n"
        "\n== make test-oldest (1200 s)\n1 passed\n\n== done (1350 s)\n"
    )
    assert readme.step_seconds(log) == {"make setup": 57, "make test": 1143, "make test-oldest": 150}
    with pytest.raises(ValueError, match="it did not pass"):
        readme.step_seconds(log.partition("\n== done")[0])


def test_minutes_count_what_is_typed_and_are_rounded_up(tmp_path: Path) -> None:
    """`make demo` brings the set-up along, and no one who types `make test` waits for the oldest versions."""
    write_json(tmp_path / readme.FILE, {})
    demo, tests = PLACES[:2]
    lines = "registered model: about 1 minutes on 2 CPU cores\nall tests: about 1 minutes on 2 CPU cores"
    for setup, said in ((9, "7 minutes on 2 CPU cores, packages cached"), (200, "10 minutes on 2 CPU cores")):
        seconds = {"make setup": setup, "make demo": 381, "make test": 1141, "make test-oldest": 900}
        write_json(tmp_path / MINUTES, {"seconds": seconds})
        lines = render(tests, render(demo, lines, tmp_path), tmp_path)
        assert lines == f"registered model: about {said}\nall tests: about 20 minutes on 2 CPU cores"
