"""Reports of finished runs over HTTP, on a page that lists the runs, newest first: what links in the UI lead to.

`make ui` serves them too; on a server of its own this does: `python -m flows.server.reports --host 0.0.0.0`.
"""

from __future__ import annotations

import argparse
import io
import os
from datetime import UTC, datetime
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flows.runtime.kept_reports import outcome, report_pages
from flows.runtime.paths import Paths
from zerovl.errors import ZeroVLError

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Reports of runs</title>
<style>
  body {{ margin: 0 auto; padding: 48px 24px; max-width: 960px; background: #fbfaf7; color: #1c1d22;
    font: 16px/1.5 system-ui, sans-serif; }}
  h1 {{ font-size: 28px; margin: 0 0 8px; }}
  p {{ color: #62646d; margin: 0 0 24px; max-width: 640px; }}
  div {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ text-align: left; padding: 10px 20px 10px 0; border-bottom: 1px solid #e6e3db; white-space: nowrap; }}
  th {{ font-size: 13px; color: #62646d; }}
  a {{ color: #3d4fd1; }}
</style>
<h1>Reports of runs</h1>
{body}
</html>
"""
_NONE = (
    "<p>No run has finished yet. Start one in the UI: Deployments, <b>train</b>, Run. Its reports are here when it is "
    "complete.</p><p>What <code>make demo</code> and <code>dvc repro</code> made lies in the checkout: "
    "<code>reports/evaluation/report.html</code>.</p>"
)


def render(folder: Path) -> str:
    """Return the page that lists the runs in `folder`, or says how the first one comes about."""
    whole = (each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))  # not one in writing
    runs = sorted(whole, key=lambda run: run.stat().st_mtime)
    if not runs:
        return _PAGE.format(body=_NONE)
    rows = "\n".join(_row(run) for run in reversed(runs))
    head = "<tr><th>Run<th>Written (UTC)<th>Came to<th>Pages<th>"
    return _PAGE.format(
        body=f"<p>What runs of the flows left to look at.</p>\n<div><table>{head}\n{rows}\n</table></div>"
    )


def _row(run: Path) -> str:
    written = datetime.fromtimestamp(run.stat().st_mtime, UTC)
    address = quote(run.name)
    pages = (f'<a href="{address}/{page.path}" title="{page.content}">{page.title}</a>' for page in report_pages(run))
    cells = (f"<b>{escape(run.name)}</b>", f"{written:%Y-%m-%d %H:%M}", escape(_came_to(run)) or "-", ", ".join(pages))
    return f'<tr>{"".join(f"<td>{cell}" for cell in cells)}<td><a href="{address}/">all files</a>'


def _came_to(run: Path) -> str:
    try:
        return outcome(run)
    except ZeroVLError as error:  # of one run: the others are to be seen all the same
        return str(error)


class _Reports(SimpleHTTPRequestHandler):
    def list_directory(self, path: str | os.PathLike[str]) -> io.BytesIO | None:
        """Answer with the list of runs at the top, and with the plain list of a run's files below it."""
        if Path(path).resolve() != Path(self.directory).resolve():
            return super().list_directory(path)
        page = render(Path(self.directory)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-store")  # else Back shows the runs of before
        self.end_headers()
        return io.BytesIO(page)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal is for the worker."""


def server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of the reports in `folder`, which is made where there is none; it answers once it is asked to.

    Raises:
        OSError: the port is taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return ThreadingHTTPServer((host, port), partial(_Reports, directory=str(folder)))


def main() -> None:
    """Serve the reports of this checkout until the end."""
    parser = argparse.ArgumentParser(prog="python -m flows.server.reports", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4201, help="default: 4201")
    arguments = parser.parse_args()
    server(Paths.here().reports, arguments.host, arguments.port).serve_forever()


if __name__ == "__main__":
    main()
