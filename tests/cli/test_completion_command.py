"""`sarm completion`: the scripts are read by the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sarm_control.cli import COMMANDS, main

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
_sarm
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr()
    assert said.err == ""  # it is read at every start of a shell
    path = folder / f"sarm.{shell}"
    path.write_text(said.out, encoding="utf-8")
    return path


@pytest.mark.long
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_understands_its_script(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = script(shell, tmp_path, capsys)
    text = path.read_text(encoding="utf-8")
    assert all(name in text for name in COMMANDS)
    assert "write-controls" in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script was made and not read by it")
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["bu"], {"build"}),
        (["build", "--la"], {"--layer", "--latents"}),
        (["build", "--tune", "l"], {"lora"}),
        (["doctor", "reward", "--engine", "v"], {"verl"}),
        (["config", "s"], {"show", "schema"}),
        (["completion", "z"], {"zsh"}),
        (["score", "--qu"], {"--quiet"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes_commands_options_and_choices(
    words: list[str], found: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = script("bash", tmp_path, capsys)
    done = subprocess.run(
        ["bash", "-c", ASK, "ask", str(path), "sarm", *words], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == found


def test_bad_input_another_shell_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
