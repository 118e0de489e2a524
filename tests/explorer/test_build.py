"""The committed pages are those that the source gives, byte for byte."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "src" / "sarm_control" / "explorer" / "static"


@pytest.mark.long
def test_a_build_gives_the_committed_bytes(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or not (FRONTEND / "node_modules" / "vite").is_dir():
        pytest.skip("node or the packages of frontend/ are missing: make frontend installs them")
    env = {**os.environ, "EXPLORER_OUT": str(tmp_path / "static")}
    subprocess.run([npm, "run", "build"], cwd=FRONTEND, env=env, check=True, capture_output=True)
    built = {path.name: path.read_bytes() for path in (tmp_path / "static").iterdir()}
    assert built == {path.name: path.read_bytes() for path in STATIC.iterdir()}


def test_what_is_built_names_its_packages_and_their_licence() -> None:
    text = (STATIC / "LICENSES.txt").read_text(encoding="utf-8")
    assert "preact 10." in text
    assert "The MIT License" in text


def test_the_pages_load_nothing_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert 'src="explorer.js"' in page
    for name in ("index.html", "explorer.css"):
        assert "//" not in (STATIC / name).read_text(encoding="utf-8").replace(
            "http://www.w3.org/2000/svg", ""
        )
    script = (STATIC / "explorer.js").read_text(encoding="utf-8")
    assert "eval(" not in script
    assert "new Function" not in script
