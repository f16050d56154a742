"""Where the links of the Artifacts tab lead: a page that lists the runs, also before there is one."""

import os
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import reports
from tests.flows.test_pages import METRICS, RELEASE
from zerovl.files import write_json


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Reports of three runs: a whole one, one that registered nothing, and pages of one that failed."""
    folder = tmp_path / "reports"
    for age, name in enumerate(("whole run", "not-registered", "failed")):
        run = folder / name
        if name == "failed":
            (run / "unsent-pages").mkdir(parents=True)
        else:
            write_json(run / "evaluation" / "metrics.json", METRICS)
            (run / "evaluation" / "report.html").write_text(f"the report of {name}")
        os.utime(run, (1e9 - age, 1e9 - age))
    write_json(folder / "whole run" / "release.json", RELEASE)
    (folder / "whole run" / "validation").mkdir()
    (folder / "whole run" / "validation" / "index.html").write_text("the data")
    os.utime(folder / "whole run", (1e9, 1e9))
    (folder / ".in-writing.part").mkdir()
    return folder


@pytest.fixture
def url(kept: Path) -> Iterator[str]:
    server = reports.server(kept, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def read(address: str) -> str:
    with urllib.request.urlopen(address) as answer:
        return str(answer.read().decode())


def test_runs_are_listed_newest_first_with_what_they_came_to(url: str) -> None:
    page = read(url)
    rows = page.split("<tr>")[2:]
    assert [row.partition("<b>")[2].partition("</b>")[0] for row in rows] == ["whole run", "not-registered", "failed"]
    assert "2001-09-09 01:46" in rows[0]
    assert "RSUM 93.0, zerovl@4, production" in rows[0]
    assert "RSUM 93.0, not registered" in rows[1]
    assert ".html" not in rows[2]
    for link, text in (("evaluation/report.html", "the report of whole run"), ("validation/index.html", "the data")):
        assert f'href="whole%20run/{link}"' in rows[0]
        assert read(f"{url}/whole%20run/{link}") == text
    assert "report.html" in read(f"{url}/whole%20run/evaluation/")  # all files of a run


def test_before_the_first_run_it_says_how_there_will_be_one(url: str, kept: Path) -> None:
    shutil.rmtree(kept)
    kept.mkdir()
    page = read(url)
    assert "No run has finished yet" in page
    assert "reports/evaluation/report.html" in page
    assert "<table>" not in page


def test_a_broken_file_of_one_run_is_named_and_hides_no_other(url: str, kept: Path) -> None:
    broken = kept / "not-registered" / "evaluation" / "metrics.json"
    broken.write_text("{")
    page = read(url)
    assert f"{broken}: not valid JSON" in page
    assert "RSUM 93.0, zerovl@4, production" in page


def test_the_list_asks_its_server_for_no_icon(url: str) -> None:
    assert '<link rel="icon" href="data:,">' in read(url)
