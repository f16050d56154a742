"""The page of `zerovl serve` in a real browser: typed at, clicked, dropped on, and on a phone's width."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import CHROMIUM, keep, open_browser
from tests.support.fake_world import png
from zerovl.serving.guard import App
from zerovl.serving.server import address, make_server, open_port

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs one"),
]
_DROP = """async (bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


@contextmanager
def running(app: App) -> Iterator[str]:
    taken = open_port("127.0.0.1", 0)
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        yield address(taken)
    finally:
        server.should_exit = True
        thread.join()
        taken.close()


def first_is(page: Page, name: str) -> None:
    expect(page.locator("#found li").first).to_contain_text(name)
    expect(page.locator("body")).not_to_have_class("busy")


def test_what_one_types_drops_and_clicks(app: App, tmp_path: Path) -> None:
    with running(app) as url, open_browser() as page:
        told: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        expect(page.locator("#status")).to_have_text("12 pictures are ready.")

        page.keyboard.type("colour 100 100 100")
        page.keyboard.press("Enter")
        first_is(page, "<b>05.png")  # as text
        expect(page.locator("#found li").first).to_contain_text("1.000")
        page.wait_for_function("() => document.querySelector('#found img').naturalWidth === 360")
        keep(page, "serve")
        page.reload()  # the address keeps what was asked
        first_is(page, "<b>05.png")

        page.locator("#found li button").nth(1).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#place")).to_contain_text("2 of 12, cosine 0.")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#place")).to_have_text("1 of 12, cosine 1.0000")
        page.wait_for_function("() => document.querySelector('#large').naturalWidth === 500")
        page.get_by_role("button", name="More like this").click()
        expect(page.locator("#viewer")).to_be_hidden()
        expect(page.locator("#query")).to_have_text("Like <b>05.png")
        expect(page.locator("#found li")).to_have_count(11)

        (tmp_path / "mine.png").write_bytes(png((200, 100, 100)))
        page.locator("#file").set_input_files(tmp_path / "mine.png")
        first_is(page, "<b>10.png")
        page.evaluate(_DROP, list(png((20, 100, 100))))
        first_is(page, "<b>01.png")
        assert told == []
        page.evaluate(_DROP, [1, 2, 3])
        expect(page.locator("#status")).to_have_text("This cannot be used as a picture: not a picture.")
        told.clear()  # the browser tells of the answer 422

        page.get_by_role("button", name="Model card").click()
        expect(page.locator("#card-text")).to_contain_text(
            "It finds colours <script>document.title = 'taken'</script>."
        )
        expect(page.locator("#card-text h3")).to_have_text("Details")
        expect(page.locator("#card-text p").last).to_have_text("#tag")
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        expect(page.locator("#words")).to_be_focused()
        assert page.title() == "demo@1 · ZeroVL search"

        page.set_viewport_size({"width": 360, "height": 740})
        page.keyboard.type("colour 0 100 100")
        page.keyboard.press("Enter")
        first_is(page, "<b>00.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 24)"
        page.goto(f"{url}/report")
        assert page.title() == "The report"
        assert told == []
        assert all(one.startswith((url, "blob:")) for one in asked)
