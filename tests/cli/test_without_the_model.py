"""Metamorphic: from a folder of latents every command says what it says from the data, without any model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sarm_control.cli import main
from tests.evaluation.benchmark_rows import reward_bench_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reward_bench_rows()))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_sarm_folder: Path) -> Path:
    return Path(shutil.copytree(tiny_sarm_folder, tmp_path_factory.mktemp("model") / "sarm"))


@pytest.fixture(scope="module")
def folder(rows: Path, model: Path) -> Path:
    """Latents of the rows; the model is gone afterwards."""
    folder = rows.with_name("latents")
    assert main(["latents", str(rows), "--model", str(model), "-o", str(folder), "--quiet"]) == 0
    (model / "model.safetensors").rename(model / "gone")
    return folder


COMMANDS = {
    "probe": ["probe", "DATA", "--edit", "3=0"],
    "rerank": ["rerank", "DATA", "--edit", "3=0", "--n", "1,2"],
    "eval": ["eval", "--benchmark", "reward-bench-2", "--data", "DATA", "--edit", "3=0"],
    "discover": ["discover", "DATA", "--min-prompts", "2", "-o", "OUT"],
}
# What names the input, or needs the model and is said to be left out without it.
OF_THE_INPUT = {"selection", "data", "inputs", "model", "max_length", "dtype", "self_check", "goal"}


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_says_what_the_data_says(
    name: str, rows: Path, model: Path, folder: Path, tmp_path: Path
) -> None:
    def told(data: Path, *more: str) -> dict[str, Any]:
        out = tmp_path / data.name
        words = [{"DATA": str(data), "OUT": str(out)}.get(word, word) for word in COMMANDS[name]]
        assert main([*words, *more, "--json", str(out.with_suffix(".json"))]) == 0
        said: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())
        return said

    without = told(folder)
    (model / "gone").rename(model / "model.safetensors")
    try:
        with_model = told(rows, "--model", str(model))
    finally:
        (model / "model.safetensors").rename(model / "gone")
    shared = (set(without) & set(with_model)) - OF_THE_INPUT
    assert len(shared) >= 3
    assert {key: without[key] for key in shared} == {key: with_model[key] for key in shared}


def test_the_model_is_really_gone(
    rows: Path, model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the tests above."""
    assert folder.is_dir()
    assert main(["probe", str(rows), "--model", str(model), "--edit", "3=0"]) == 2
    assert "safetensors" in capsys.readouterr().err
