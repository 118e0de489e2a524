"""How long the explorer takes until its table is on the screen, with 24 latents and with 65,536.

The second model has random weights: `--latents` latents, and `--answers` answers of 64 random active latents
each. Headless Chromium loads the page anew each time; the time runs from the navigation to the frame in which
the first row is there. It also scrolls through the whole table and gives the longest frame.

    python benchmarks/explorer.py [--repeats 7] [--json benchmarks/results/explorer.json]
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import Watch, machine

from sarm_control.data import Row, read_rows
from sarm_control.explorer import Site, Sources, found_in
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel, Scored, SparseLatents

# the tests' own server of a site
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.explorer.worlds import served

GOALS = {"lab": 1.0, "random": 2.0}
READY = """() => new Promise(done => {
  const look = () => document.querySelector('.table .row')
    ? requestAnimationFrame(() => done(performance.now())) : requestAnimationFrame(look);
  look();
})"""
SCROLL = """async () => {
  const box = document.querySelector('.table');
  const frames = [];
  let last = performance.now();
  for (let part = 0; part <= 120; part++) {
    box.scrollTop = box.scrollHeight * part / 120;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    last = now;
  }
  return frames;
}"""


def main() -> None:
    """Measures both and prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--answers", type=int, default=4_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    # the browser's processes are not children that end here: what runs beside is looked at before
    others = Watch.before()
    for name, sources in (("lab", _lab()), ("random", _random(given.latents, given.answers))):
        started = time.perf_counter()
        site = Site(sources)
        opened = time.perf_counter() - started
        with served(site) as url:
            found[name] = {"latents": sources.size, "open_s": opened, **_measure(url, given.repeats)}
        paint = found[name]["first_paint_s"]["median"]
        held = "held" if paint < GOALS[name] else "MISSED"
        print(f"{name}: {json.dumps(found[name])}; goal < {GOALS[name]} s: {held}")
    if given.json is not None:
        found["machine"] = machine(others)
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _lab() -> Sources:
    rm = RewardModel.from_pretrained("lab", device="cpu")
    rows = read_rows(Path("lab:audit"), want={"pair"})
    data = ScoredRows(rows, score_rows(rm, rows))
    found = found_in(None, data, "lab:audit")
    return Sources("lab", rm.fingerprint, rm.head.weight, rm, data, "lab:audit", found)


def _random(latents: int, answers: int, k: int = 64) -> Sources:
    generator = np.random.default_rng(0)
    head = generator.normal(0, 0.01, latents).astype(np.float32)
    # a few latents fire often and most of them hardly ever, as in real dictionaries
    odds = generator.pareto(1.1, latents) + 1e-3
    indices = np.stack(
        [np.sort(generator.choice(latents, k, replace=False, p=odds / odds.sum())) for _ in range(answers)]
    )
    values = np.abs(generator.normal(1, 1, indices.shape)).astype(np.float32)
    codes = SparseLatents.of_equal_rows(indices.astype(np.int32), values, latents)
    whole = np.zeros(answers, dtype=np.int64)
    scored = Scored(codes.dot(head), codes, head, whole, whole == 0, whole + 20, fingerprint="0" * 16)
    pairs = answers // 2
    text = [f"answer {n} of many words" for n in range(answers)]
    rows = [
        Row(
            Path("random"),
            n + 1,
            {},
            "pair",
            f"prompt {n}",
            chosen=(text[2 * n],),
            rejected=(text[2 * n + 1],),
        )
        for n in range(pairs)
    ]
    data = ScoredRows(rows, scored)
    return Sources("random", scored.fingerprint, head, None, data, "random", found_in(None, data, "random"))


def _measure(url: str, repeats: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        paints = []
        for _ in range(repeats):
            context = browser.new_context(viewport={"width": 1360, "height": 900})
            page = context.new_page()
            page.goto(url, wait_until="commit")
            paints.append(page.evaluate(READY) / 1000)
            frames = page.evaluate(SCROLL)
            context.close()
        browser.close()
    return {
        "first_paint_s": {"median": statistics.median(paints), "max": max(paints)},
        "scroll_frame_ms": {"median": statistics.median(frames), "max": max(frames)},
    }


if __name__ == "__main__":
    main()
