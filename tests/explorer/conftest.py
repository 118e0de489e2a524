"""The embedded world opened for the pages: one site, one server and one browser for all tests."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("fastapi", reason='the explorer wants the extra "explore"')
pytest.importorskip("uvicorn", reason='the explorer wants the extra "explore"')

from sarm_control import RewardModel
from sarm_control.data import read_rows
from sarm_control.explorer import LatentName, LiveRun, Notes, Site, Sources, found_in
from sarm_control.latents import ScoredRows, score_rows
from tests.explorer.worlds import served

SCRIPT = '<script>window.owned = 1</script><img src=x onerror="window.owned = 1">'
SVG = '<svg onload="window.owned = 1"><a xlink:href="javascript:window.owned = 1">x</a></svg>'


class Explored(NamedTuple):
    """A server, and the files behind it."""

    url: str
    site: Site
    run: Path
    notes: Path


@pytest.fixture(scope="session")
def lab() -> RewardModel:
    return RewardModel.from_pretrained("lab", device="cpu")


@pytest.fixture(scope="session")
def data(lab: RewardModel) -> ScoredRows:
    """Pairs of the embedded world; the texts of one of them are payloads."""
    rows = list(read_rows(Path("lab:audit"), want={"pair"})[:240])
    rows[7] = replace(rows[7], prompt=f"what is {SVG} ?", chosen=(SCRIPT,), rejected=(f"{SVG} {SCRIPT}",))
    return ScoredRows(rows, score_rows(lab, rows))


@pytest.fixture(scope="session")
def sources(lab: RewardModel, data: ScoredRows) -> Sources:
    return Sources(
        model="lab",
        fingerprint=lab.fingerprint,
        head=lab.head.weight,
        rm=lab,
        data=data,
        data_name="lab:audit",
        found=found_in(None, data, "lab:audit"),
        names={8: LatentName("closing sentence", 0.87, "AUROC"), 15: LatentName(SCRIPT)},
    )


@pytest.fixture(scope="session")
def site(sources: Sources) -> Site:
    return Site(sources)


@pytest.fixture(scope="session")
def explored(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """The pages behind a real port, with notes and a run folder that is being written."""
    folder = tmp_path_factory.mktemp("explored")
    run, notes = folder / "run", folder / "notes.json"
    run.mkdir()
    site = Site(replace(sources, run=LiveRun(run), notes=Notes(notes, sources.fingerprint)))
    with served(site) as url:
        yield Explored(url, site, run, notes)


@pytest.fixture(scope="module")  # while it is open its event loop runs, and other files' tests run loops too
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page; a script error or a refusal of the content security policy fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "console",
        lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None,
    )
    yield opened
    context.close()
    assert not problems
