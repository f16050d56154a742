"""What the server answers: searches, pictures by their number alone, and nothing to those who should not ask."""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.support.fake_world import png
from zerovl.files import write_json
from zerovl.serving import app as application
from zerovl.serving.about import about
from zerovl.serving.answers import LARGE, LONGEST_WORDS, THUMBNAIL
from zerovl.serving.guard import Guard
from zerovl.workspace import Workspace

FIFTH = "sub/<b>05.png"


def test_words_and_pictures_find_the_same(client: TestClient) -> None:
    found = client.get("/api/search", params={"words": "colour 100 100 100"}).json()
    assert found["results"][0] == {"id": 5, "key": FIFTH, "score": 1.0, "has_picture": True}
    assert len(found["results"]) == 12
    assert found["gone"] == 0
    uploaded = client.post("/api/search", content=png((100, 100, 100))).json()
    assert uploaded["results"] == found["results"]
    like = client.get("/api/like/5").json()
    assert like["results"] == found["results"][1:]
    some = client.get("/api/some").json()["results"]
    assert [result["id"] for result in some] == list(range(12))
    assert some[0] == {"id": 0, "key": "sub/<b>00.png", "score": None, "has_picture": True}


def test_pictures_are_thumbnails_by_number(client: TestClient) -> None:
    for path, side in (("/thumbnails/5", THUMBNAIL), ("/pictures/5", 500)):
        answer = client.get(path)
        assert answer.headers["content-type"] == "image/jpeg"
        image = Image.open(io.BytesIO(answer.content))
        assert (image.format, max(image.size)) == ("JPEG", side)
        assert all(abs(low - 100) < 3 for low, _ in image.getextrema())
    assert LARGE > 500


def test_pictures_that_are_gone_are_said(changing: tuple[TestClient, Path]) -> None:
    client, pictures = changing
    (pictures / FIFTH).unlink()
    assert client.get("/pictures/5").json() == {
        "detail": "This picture is gone since it was indexed; run `zerovl index` again."
    }
    found = client.get("/api/search", params={"words": "colour 100 100 100"}).json()
    assert found["gone"] == 1
    assert FIFTH not in [result["key"] for result in found["results"]]


@pytest.mark.parametrize(
    "path",
    [
        *("/thumbnails/12", "/thumbnails/-1", "/thumbnails/..%2f..%2fetc%2fpasswd", "/pictures/../../etc/passwd"),
        *("/thumbnails/sub/05.png", "/page.py", "/app.py", "/docs", "/openapi.json", "/api/like/99999999999999999999"),
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


@pytest.mark.parametrize(
    ("words", "sentence"), [(" ", "Type what you are looking for."), ("x" * (LONGEST_WORDS + 1), "2,001 characters")]
)
def test_words_that_are_none(client: TestClient, words: str, sentence: str) -> None:
    answer = client.get("/api/search", params={"words": words})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)


def test_uploads_are_decoded_with_care_and_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.post("/api/search", content=b"no picture")
    assert (answer.status_code, answer.json()["detail"]) == (422, "This cannot be used as a picture: not a picture.")
    monkeypatch.setattr(application, "MOST_UPLOAD", 3 << 20)
    for content in (bytes((3 << 20) + 1), (bytes(1 << 20) for _ in range(4))):  # of a length that is said, or not
        answer = client.post("/api/search", content=content)
        assert answer.status_code == 413
        assert answer.json()["detail"].startswith("This picture has more than 3 MiB, which is too much")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("192.168.0.7:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("localhost@evil.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
def test_only_requests_that_name_this_server_are_answered(client: TestClient, host: str, status: int) -> None:
    answer = client.get("/api/about", headers={"Host": host})
    assert answer.status_code == status
    assert "img-src 'self' blob:" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        (
            {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
            403,
        ),  # a form
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),  # typed
        ({"Origin": "https://hub.example", "Sec-Fetch-Site": "same-origin"}, 200),  # a proxy that changes Host
    ],
)
def test_pages_of_others_ask_in_vain(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/some", headers=headers).status_code == status
    assert client.post("/api/search", content=png((100, 100, 100)), headers=headers).status_code == status


def test_names_that_are_given_are_served_too() -> None:
    guard = Guard(lambda scope, receive, send: None, ["Gallery.example"])  # type: ignore[arg-type, return-value]
    assert guard.serves("gallery.example:80")
    assert not guard.serves("example:80")


def test_card_and_report(client: TestClient) -> None:
    told = client.get("/api/about").json()
    assert (told["model"], told["pictures"], told["card"], told["report"]) == ("demo@1", 12, True, True)
    assert "# A model" in client.get("/card").text
    report = client.get("/report")
    assert "The report" in report.text
    assert "style-src 'unsafe-inline'" in report.headers["content-security-policy"]


@pytest.mark.parametrize("weights", [b"weights", b"other weights"])
def test_the_report_is_that_of_the_model(tmp_path: Path, weights: bytes) -> None:
    model, here = tmp_path / "model", Workspace(tmp_path)
    model.mkdir()
    (model / "model.safetensors").write_bytes(weights)
    here.evaluation_report.mkdir(parents=True)
    here.evaluation_page.write_text("the page")
    scores = {"mean": {"rsum": 300.0}, "sources": {"a": {}}}
    write_json(here.evaluation_metrics, {"model_digest": sha256(b"weights").hexdigest(), **scores})
    found = about("demo@1", model, here)
    assert found.card is None
    assert (found.report is not None) == (found.metrics is not None) == (weights == b"weights")
