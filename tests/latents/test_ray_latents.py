"""Latents made on a real local Ray: the same bytes as without (metamorphic); Ray absent is one clear line."""

import subprocess
import sys
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.embedded import data_file
from tests.latents.folders import bytes_of


@pytest.mark.minutes
def test_two_actors_give_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip(
        "ray.data", reason="Ray is not installed: pip install 'ray[data]'", exc_type=ImportError
    )
    lines = data_file(Path("lab:human")).read_text().splitlines(keepends=True)[:30]
    (tmp_path / "data.jsonl").write_text("".join(lines))
    words = ["latents", str(tmp_path / "data.jsonl"), "--shard-size", "8", "-o"]
    assert main([*words, str(tmp_path / "plain")]) == 0
    # In a process of its own, so that Ray's threads, warnings and handlers are not pytest's.
    ray = [
        sys.executable,
        "-m",
        "sarm_control",
        *words,
        str(tmp_path / "ray"),
        "--engine",
        "ray",
        "--workers",
        "2",
    ]
    ended = subprocess.run(ray, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stderr
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "plain")


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    out = tmp_path / "out"
    assert main(["latents", "lab:human", "-o", str(out), "--engine", "ray"]) == 2
    said = capsys.readouterr().err
    assert "--engine ray needs ray, which cannot be imported" in said
    assert 'pip install ".[ray]" in the clone' in said
    assert not out.exists()
