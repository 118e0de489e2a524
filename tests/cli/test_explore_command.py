"""`sarm explore`: what it opens, and what it refuses in one line before anything is served."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sarm_control.cli import main

pytest.importorskip("uvicorn", reason='the explorer wants the extra "explore"')


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explore", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.long
def test_a_port_in_use_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = told(capsys, "--port", str(port), "--notes", str(tmp_path / "notes.json"), "--rows", "20")
    assert f"cannot serve on 127.0.0.1 port {port}" in said
    assert "choose another one with --port" in said
    # two of these rows have an empty answer, as the lab's language has
    assert "warning" not in said


def test_features_of_another_model_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    features = tmp_path / "features.json"
    content = {"format": "sarm-features-1", "head": "0" * 16, "model": "m", "goal": "g", "lists": {}}
    features.write_text(json.dumps(content))
    said = told(capsys, "--features", str(features), "--rows", "20")
    assert f"found on the head {'0' * 16}" in said


def test_a_run_folder_that_there_is_not_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "no such run folder" in told(capsys, "--run", str(tmp_path / "none"))


def test_a_public_address_wants_a_token(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = told(capsys, "--host", "0.0.0.0", "--rows", "20", "--notes", str(tmp_path / "n.json"))
    assert "that needs a token" in said


def test_an_export_over_a_folder_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    assert "--overwrite" in told(capsys, "--export", str(tmp_path / "site"))


def test_latents_of_another_model_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["latents", "lab:audit", "--rows", "4", "-o", str(tmp_path / "latents")])
    main(["convert", "lab", "-o", str(tmp_path / "other"), "--apply", str(_edits(tmp_path))])
    said = told(capsys, "--latents", str(tmp_path / "latents"), "--model", str(tmp_path / "other"))
    assert "their latents have other meanings" in said


def test_labels_of_another_head_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"head": "0" * 16, "labels": []}))
    said = told(capsys, "--labels", str(labels), "--rows", "20")
    assert f"names latents of the head '{'0' * 16}'" in said
    assert "label this model's latents: sarm label" in said


def _edits(folder: Path) -> Path:
    path = folder / "edits.json"
    path.write_text('[{"latent": 1, "scale": 0.5}]')
    return path


@pytest.mark.long
def test_a_latents_folder_alone_is_exported_without_a_model(tmp_path: Path) -> None:
    main(["latents", "lab:audit", "--rows", "30", "-o", str(tmp_path / "latents")])
    main(
        [
            "explore",
            "--latents",
            str(tmp_path / "latents"),
            "--export",
            str(tmp_path / "site"),
            "--export-rows",
            "2",
        ]
    )
    page = (tmp_path / "site" / "index.html").read_text()
    assert "data-export" in page
    assert "Content-Security-Policy" in page
    world = re.fullmatch(
        r'sarmData\("world", (.*)\);\n', (tmp_path / "site" / "data" / "world.js").read_text()
    )
    assert world is not None
    found = json.loads(world[1])
    assert (found["scores"], found["opened"], found["notes"]) == (False, 2, None)


@pytest.mark.long
@pytest.mark.slow
def test_without_options_the_embedded_world_is_opened_and_a_signal_stops_it(tmp_path: Path) -> None:
    words = ["explore", "--port", "0", "--rows", "20"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sarm_control", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("next:"):
            break
    process.terminate()
    process.wait(60)
    process.stderr.close()
    text = "".join(lines)
    assert "the embedded lab, a tiny world" in text
    assert re.search(r"open http://127\.0\.0\.1:\d+/ in a browser; Ctrl-C stops", text)
    assert "next: sarm explore --port 0 --rows 20 --export site" in text
    assert not list(tmp_path.iterdir()), "no file is made by looking"
