"""A real browser for pages: headless Chromium, where it is installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NO_CHROMIUM = "chromium is not installed (Debian: apt install chromium): pages were not looked at"
NO_PLAYWRIGHT = "playwright is not installed (pip install playwright): pages were not looked at"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The page of a file in Chromium; a request beyond the file, or a word on the console, fails the test."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip(NO_CHROMIUM)
    sync = pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(path.resolve().as_uri())
        try:
            yield page
        finally:
            browser.close()
    # a page that breaks its own policy says so on the console
    assert asked == [path.resolve().as_uri()]
    assert said == []


def look(page: Any, *, width: int = 1280, scheme: str = "light", media: str = "screen") -> None:
    """Shows the page on a screen of another width, in light or dark, or as it would be printed."""
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(media=media, color_scheme=scheme)


def accessibility_findings(page: Any, *rules: str) -> list[str]:
    """What axe finds, one line each; only by some of its rules where they are named."""
    from axe_playwright_python.sync_playwright import Axe

    # a chart is one picture to a screen reader; the contrast of its colours is tested by itself
    context = {"exclude": [["figure svg"]]}
    options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else None
    return [
        f"{one['id']}: {one['help']}: {node['html'][:160]}"
        for one in Axe().run(page, context=context, options=options).response["violations"]
        for node in one["nodes"]
    ]


def sideways(page: Any) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def check_page(path: Path) -> None:
    """What every page owes its reader: axe finds nothing, light or dark; no telephone scrolls sideways."""
    with opened(path) as page:
        page.evaluate("document.querySelectorAll('details:not(.numbers)').forEach(one => one.open = true)")
        look(page, width=390)
        assert sideways(page) <= 0
        look(page)
        assert sideways(page) <= 0
        assert accessibility_findings(page) == []
        look(page, scheme="dark")
        assert accessibility_findings(page, "color-contrast") == []
