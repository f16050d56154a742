"""The page of `zerovl serve`, and what it asks its server for. Nothing comes from elsewhere, and nothing is kept."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from zerovl.serving.about import About
from zerovl.serving.answers import Answers, BadQueryError
from zerovl.serving.guard import REPORT_POLICY, App, Guard

MOST_UPLOAD = 20 << 20  # bytes
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class _TooLargeError(ValueError):
    """An upload has more than `MOST_UPLOAD` bytes."""


def make_app(answers: Answers, about: About, names: Iterable[str] = ()) -> App:
    """Build the application; `names` are those that it is reached by, beside addresses and localhost."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.exception_handler(BadQueryError)(_bad_query)
    app.exception_handler(_TooLargeError)(_too_large)
    for path in _FILES:
        app.get(path)(_file)
    _add_searches(app, answers)
    _add_pictures(app, answers)
    _add_about(app, answers, about)
    return Guard(app, names)


def _add_searches(app: FastAPI, answers: Answers) -> None:
    @app.get("/api/search")
    def by_words(words: str = "") -> dict[str, Any]:
        return answers.by_words(words)

    @app.post("/api/search")
    async def by_picture(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(answers.by_picture, await _bounded_body(request))

    @app.get("/api/some")
    def some() -> dict[str, Any]:
        return answers.some()

    @app.get("/api/like/{row}")
    def like(row: int) -> dict[str, Any]:
        return answers.like(row)


def _add_pictures(app: FastAPI, answers: Answers) -> None:
    @app.get("/thumbnails/{row}")
    def thumbnail(row: int) -> Response:
        return _jpeg(answers.thumbnail(row))

    @app.get("/pictures/{row}")
    def large(row: int) -> Response:
        return _jpeg(answers.large(row))


def _add_about(app: FastAPI, answers: Answers, about: About) -> None:
    @app.get("/api/about")
    def told() -> dict[str, Any]:
        return {**about.to_json(answers.index), "most_upload": MOST_UPLOAD}

    @app.get("/card")
    def card() -> Response:
        if about.card is None:
            return PlainTextResponse("This model has no card.\n", 404)
        return PlainTextResponse(about.card)

    @app.get("/report")
    def report() -> Response:
        if about.report is None or not about.report.is_file():
            return PlainTextResponse("There is no report of this model.\n", 404)
        return FileResponse(about.report, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


def _file(request: Request) -> Response:
    name, kind = _FILES[request.url.path]
    content = files("zerovl.serving").joinpath(name).read_bytes()
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def _bounded_body(request: Request) -> bytes:
    """Read an upload; one that is too long is not read to its end."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > MOST_UPLOAD:
        raise _TooLargeError
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > MOST_UPLOAD:
            raise _TooLargeError
    return bytes(data)


async def _bad_query(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


async def _too_large(_request: Request, _error: Exception) -> JSONResponse:
    text = f"This picture has more than {MOST_UPLOAD >> 20} MiB, which is too much; make it smaller and try again."
    return JSONResponse({"detail": text}, 413, {"Connection": "close"})
