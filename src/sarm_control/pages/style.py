"""The one look of all pages: the style sheet, with the colours of the charts for light and dark."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from sarm_control.charts import COLOURS


@cache
def style_sheet() -> str:
    """The style sheet: it loads nothing.

    The colours are CSS variables by the names of `sarm_control.charts.COLOURS`; in charts a colour of light
    paper is replaced by its variable, so that charts follow the screen too.
    """
    light = "".join(f"--{name}:{shade.light};" for name, shade in COLOURS.items())
    dark = "".join(f"--{name}:{shade.dark};" for name, shade in COLOURS.items())
    charts = "".join(
        f'svg [{part}="{shade.light}"]{{{part}:var(--{name})}}'
        for name, shade in COLOURS.items()
        for part in ("fill", "stroke")
    )
    rules = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    # paper has no dark: only a screen asks for it
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{charts}\n{rules}"
    )


def security_policy(*styles: str, scripts: tuple[str, ...] = ()) -> str:
    """A content security policy under which a page loads nothing, sends nothing, and runs only what is named.

    Args:
        styles: the texts of the page's style elements.
        scripts: the texts of its script elements; without any, no script runs.

    Returns:
        The content of the `meta` element.
    """
    parts = ["default-src 'none'", f"style-src {_hashes(styles)}"]
    if scripts:
        parts.append(f"script-src {_hashes(scripts)}")
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _hashes(texts: tuple[str, ...]) -> str:
    # hashes and not a nonce: a page that is opened from a disk has no server to draw one
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
