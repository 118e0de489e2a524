"""What is shipped: a wheel and an archive hold the embedded world and the templates (contract)."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from sarm_control.embedded import DATA, world_folder

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 12 * 1000**2
MODEL_FILES = (
    "chat_template.jinja",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
REQUIRED = {
    "world.json",
    "truth.json",
    *(f"{name}.jsonl" for name in DATA),
    *(f"{part}/{name}" for part in ("policy", "sarm", "classifier") for name in MODEL_FILES),
    "attached/attached.json",
    "attached/dictionary.safetensors",
    "attached_truth.json",
    "attached_world.json",
}


@pytest.fixture(scope="module")
def world() -> dict[str, int]:
    """The bytes of every file of the world in the checkout."""
    folder = world_folder()
    assert folder.is_relative_to(ROOT), "the tests run on an installed copy, not on the checkout"
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


def test_the_world_is_whole_and_small(world: dict[str, int]) -> None:
    assert set(world) >= REQUIRED
    assert sum(world.values()) <= MOST_BYTES


def test_the_world_holds_no_code_and_no_pickle(world: dict[str, int]) -> None:
    assert {Path(name).suffix for name in world} <= {".json", ".jsonl", ".jinja", ".safetensors"}


@pytest.mark.long
def test_a_wheel_holds_every_file_of_the_world(world: dict[str, int], tmp_path: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("sarm_control-*.whl")
    prefix = "sarm_control/lab/world/"
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    packed = {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)}
    assert packed == world
    assert {"sarm_control/lab/world.py", "sarm_control/embedded.py", "sarm_control/py.typed"} <= set(sizes)
    templates = ROOT / "src/sarm_control/pages/templates"
    needed = {f"sarm_control/pages/templates/{path.name}" for path in templates.iterdir()}
    assert len(needed) >= 6
    assert needed <= set(sizes)


@pytest.mark.long
def test_a_source_archive_holds_every_file_of_the_world(world: dict[str, int], tmp_path: Path) -> None:
    program = "import sys; from hatchling.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    (packed,) = tmp_path.glob("sarm_control-*.tar.gz")
    with tarfile.open(packed) as archive:
        sizes = {member.name.partition("/")[2]: member.size for member in archive if member.isfile()}
    prefix = "src/sarm_control/lab/world/"
    assert {
        name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)
    } == world
