"""Whether the manual's search finds what it should: `site/` on loopback, in headless Chromium.

    python scripts/search_manual.py [--site site]

Part of `make docs`. Without Chromium or Playwright it says so and checks nothing.
"""

import argparse
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Request

SEARCHES = {
    "tau": "tau-and-alpha.html",
    "threshold": "tau-and-alpha.html",
    "ledger": "reading-the-ledger.html",
    "placebo": "glossary.html",
    "resume": "training.html",
    "margin_effects": "api.html",
}
"""What somebody may type -> a page that has to be among the hits."""

_WAIT = 60_000
"""Milliseconds until a search counts as without hits."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def misses(site: Path, chromium: str) -> list[str]:
    """What goes wrong when each search is typed into the first page, one line each."""
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    found: list[str] = []

    def asked(request: "Request") -> None:
        if not request.url.startswith(home):
            found.append(f"asks for {request.url}")

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(_WAIT)
        page.on("request", asked)
        page.on("pageerror", lambda error: found.append(f"a script fails: {error}"))
        for words, wanted in SEARCHES.items():
            page.goto(f"{home}index.html")
            hits = _hits(page, words)
            if not any(wanted in one for one in hits):
                found.append(f"{words!r} does not find {wanted}: {', '.join(hits) or 'no hit'}")
        browser.close()
    server.shutdown()
    return found


def _hits(page: Any, words: str) -> list[str]:
    """The addresses that the search lists for some words."""
    from playwright.sync_api import TimeoutError as Late

    # typed key by key, since the page listens to keys and to the focus
    page.locator("input.md-search__input").click(force=True)
    page.keyboard.type(words)
    try:
        page.wait_for_selector(".md-search-result__item a", state="attached")
    except Late:
        return []
    links = page.locator(".md-search-result__item a").evaluate_all("all => all.map(one => one.href)")
    return [link.rsplit("/", 1)[-1] for link in links]


def main() -> int:
    """Searches, and says what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--site", type=Path, default=Path("site"))
    site = parser.parse_args().site
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        import playwright  # noqa: F401  # only whether it is there
    except ImportError:
        chromium = None
    if chromium is None:
        print("the manual's search was not tried: it needs chromium (apt install chromium) and playwright")
        return 0
    found = misses(site, chromium)
    print("\n".join(found) or f"the manual's search finds {', '.join(SEARCHES)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
