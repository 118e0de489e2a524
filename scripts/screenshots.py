"""Takes the pictures of the explorer in docs/images: each page, light and dark, wide and on a phone.

It serves the embedded world, with an audit and a short training run made on the way, and looks at the pages
with headless Chromium. Needs the extras explore and audit, playwright, and a chromium.

    python scripts/screenshots.py [--work DIR] [--only NAME]
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
SIZES = {"desktop": (1360, 900), "phone": (390, 844)}
LARGEST = 150_000
FREQUENT = 160
STEPS = 40


def main() -> None:
    """Makes what the pages show, then the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder that keeps the audit and the run between calls")
    parser.add_argument("--only", default="", help="pictures whose name holds this")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        _make(work)
        with served(work) as address:
            _take(address, given.only)


def _make(work: Path) -> None:
    if not (work / "controls.yaml").exists():
        _sarm(work, "discover", "-o", "found", "--write-controls", "controls.yaml", "--overwrite")
    if not (work / "audit").exists():
        _sarm(work, "audit", "-o", "audit")
    if not (work / "run" / "policy").exists():
        training = ["--controls", "controls.yaml", "--steps", str(STEPS), "-o", "run", "--overwrite"]
        _sarm(work, "train", *training, "--set", "training.learning_rate=1e-3")


def _sarm(work: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "sarm_control", *words], cwd=work, check=True)


@contextmanager
def served(work: Path) -> Iterator[str]:
    """The address of an explorer on the embedded world with an audit and a run."""
    words = ["explore", "--port", "0", "--audit", "audit", "--run", "run"]
    command = [sys.executable, "-m", "sarm_control", *words]
    with subprocess.Popen(command, cwd=work, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                found = re.match(r"open (http://\S+)/ ", line)
                if found:
                    yield found[1]
                    break
            else:
                raise SystemExit("sarm explore did not start")
        finally:
            process.terminate()


def _take(address: str, only: str) -> None:
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    device_scale_factor=1,
                    reduced_motion="reduce",
                )
                page = context.new_page()
                for name, look in LOOKS.items():
                    file = IMAGES / f"explorer-{name}-{size}-{scheme}.png"
                    if only in file.name:
                        look(page, address)
                        _save(page, file)
                context.close()
        browser.close()


def _save(page: Any, file: Path) -> None:
    from PIL import Image

    IMAGES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=file)
    with Image.open(file) as taken:
        whole = taken.convert("RGB")
    whole.quantize(palette=_palette(whole), dither=Image.Dither.NONE).save(file, optimize=True)
    size = file.stat().st_size
    print(f"{file.relative_to(ROOT)} {size / 1000:.0f} kB")
    if size > LARGEST:
        raise SystemExit(f"{file} is larger than {LARGEST} bytes")


def _palette(whole: Any) -> Any:
    """256 colours of a page, which keep it as sharp in a third of the bytes.

    The frequent ones as they are, so that grounds stay even; the others spread over all that is left, so that
    a word in a colour of its own keeps it.
    """
    from PIL import Image

    frequent = [rgb for _, rgb in sorted(whole.getcolors(1 << 24), reverse=True)[:FREQUENT]]
    spread = whole.quantize(256 - FREQUENT, Image.Quantize.MAXCOVERAGE).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for rgb in frequent for part in rgb] + list(spread or []))
    return palette


def _latents(page: Any, address: str) -> None:
    page.goto(f"{address}/#/latents")
    page.locator(".row").first.wait_for()


def _latent(page: Any, address: str) -> None:
    page.goto(f"{address}/#/latent/15")
    page.get_by_role("button", name="token by token").first.click()
    page.locator(".tokens").first.wait_for()
    page.evaluate("document.activeElement.blur()")
    page.evaluate("scrollTo(0, 0)")


def _bench(page: Any, address: str) -> None:
    page.goto(f"{address}/#/bench")
    page.locator(".verdict").wait_for()
    for latent, scale in ((15, "0"), (11, "0")):
        slider = page.get_by_label(f"Edit of latent {latent}: scale")
        if slider.count():
            slider.fill(scale)
            slider.dispatch_event("change")
    page.locator(".check.right").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.evaluate("scrollTo(0, 0)")


def _run(page: Any, address: str) -> None:
    page.goto(f"{address}/#/run")
    page.locator(".lines path").first.wait_for()


LOOKS = {"latents": _latents, "latent": _latent, "bench": _bench, "run": _run}

if __name__ == "__main__":
    main()
