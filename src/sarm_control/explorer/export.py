"""The pages as files that need no server: for a web space, or the appendix of a paper.

A page that was opened from a disk may not read files, but it may run scripts beside it: every answer that the
server would give is a script that hands over one JSON value.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.explorer.site import Site
from sarm_control.files import atomic_folder, manifest, write_json

STATIC = Path(__file__).with_name("static")
_COPIED = ("explorer.js", "explorer.css", "LICENSES.txt")
_NOTHING_ELSE = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'\">"
)


class Exported(NamedTuple):
    """What was written: latents with a page of their own, rows for the bench, and bytes in all."""

    latents: int
    rows: int
    size: int


def export_site(site: Site, folder: Path, *, latents: int, rows: int, overwrite: bool = False) -> Exported:
    """Writes the pages and their data.

    Args:
        site: what is shown.
        folder: where to; as a whole or not at all.
        latents: latents with a page of their own at most: called ones first, then those whose contributions
            vary most.
        rows: rows that the bench can open at most.
        overwrite: replace the folder if it exists.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    chosen = site.ranked()[:latents]
    count = min(rows, len(site.sources.data.rows))
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        for name in _COPIED:
            shutil.copyfile(STATIC / name, temporary / name)
        page = (STATIC / "index.html").read_text(encoding="utf-8")
        (temporary / "index.html").write_text(_as_export(page), encoding="utf-8")
        world = {**site.world(), "export": True, "scores": False, "pages": chosen, "opened": count}
        _write(temporary, "world", world)
        _write(temporary, "latents", site.table())
        for latent in chosen:
            _write(temporary, f"latents/{latent}", {**site.latent(latent), "note": _note(site, latent)})
        listed = site.rows(0, max(count, 1))["rows"][:count]
        _write(temporary, "rows", {"count": count, "rows": listed})
        # the row that the bench opens with is there even where it is not among the first
        for number in sorted({*range(count), world["first"]} if count else ()):
            _write(temporary, f"rows/{number}", site.row(number))
        if site.sources.run is not None:
            _write(temporary, "run", site.whole_run())
        about = {
            "model": site.sources.model,
            "head": site.sources.fingerprint,
            "data": site.sources.data_name,
        }
        write_json(temporary / "manifest.json", manifest("explore", inputs=[], config=about))
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
    return Exported(len(chosen), count, size)


def _as_export(page: str) -> str:
    return page.replace("<html ", "<html data-export ").replace("<head>", f"<head>\n{_NOTHING_ELSE}", 1)


def _note(site: Site, latent: int) -> dict[str, Any] | None:
    return None if site.sources.notes is None else site.note(latent)


def _write(folder: Path, key: str, value: Any) -> None:
    path = folder / "data" / f"{key}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    # U+2028 and U+2029 end a line of a script for old browsers; "<" could end a script inside a page
    text = json.dumps(value, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    path.write_text(f"sarmData({json.dumps(key)}, {text});\n", encoding="utf-8")
