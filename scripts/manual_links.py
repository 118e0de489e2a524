"""Links of the manual that lead out of `docs/`: the files they name come along, so that they work there too.

On GitHub `../examples/lab.yaml` is a file of the repository. In the site it becomes a copy of it,
`repository/examples/lab.yaml`. A Markdown file is copied as text, a folder becomes a list of its files, and
the README is the manual's first page. A link to what does not exist is an error of the build, and so is a
page that fetches anything from a network.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(?<!!)\]\((?P<to>(?:\.\./)+[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_PLACE = "repository"
_FETCHED = re.compile(r"<(?:script|img|iframe|source)[^>]+src=[\"']?https?:|<link[^>]+href=[\"']?https?:")
log = logging.getLogger("mkdocs.hooks.manual_links")


def _target(page: str, to: str) -> Path | None:
    """The file of the repository that a page's link leads to; None where it stays in `docs/`."""
    found = Path(posixpath.normpath((DOCS / page).parent.joinpath(to).as_posix()))
    return None if found.is_relative_to(DOCS) or not found.is_relative_to(ROOT) else found


def _name(file: Path) -> str:
    name = file.relative_to(ROOT).as_posix()
    return f"{_PLACE}/{name}.txt" if file.suffix == ".md" else f"{_PLACE}/{name}"


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the files of the repository that pages link to; a folder is a text file that lists its content."""
    known: dict[str, Path] = {}
    for page in files.documentation_pages():
        text = Path(str(page.abs_src_path)).read_text(encoding="utf-8")
        for link in _LINK.finditer(text):
            target = _target(page.src_uri, link["to"])
            if target is not None and target != ROOT / "README.md":
                known[_place(target)] = target
    for name, target in sorted(known.items()):
        if target.is_dir():
            listed = "\n".join(sorted(path.name for path in target.iterdir()))
            files.append(File.generated(config, name, content=f"{listed}\n"))
        elif target.is_file():
            files.append(File.generated(config, name, content=target.read_bytes()))
    return files


def _place(target: Path) -> str:
    return f"{_name(target)}/files.txt" if target.is_dir() else _name(target)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Points such links to the copies."""
    del config, files

    def local(link: re.Match[str]) -> str:
        target = _target(page.file.src_uri, link["to"])
        if target is None:
            return link[0]
        up = "../" * page.file.src_uri.count("/")
        if target == ROOT / "README.md":
            return f"]({up}index.md)"
        if not target.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, link["to"])
        return f"]({up}{_place(target)})"

    return _LINK.sub(local, markdown)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Refuses pages that would fetch something from elsewhere; links that a reader may follow do not."""
    del config
    for found in _FETCHED.findall(output):
        log.warning("%s fetches from a network: %s", page.file.src_uri, found)
    return output
