"""The `sarm` command: contract tests of its help, and the message for every kind of mistake."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import App, Parameter, validators

from sarm_control.cli import COMMANDS, GROUPS, build_app, help_of, main
from sarm_control.cli._errors import run_safely
from sarm_control.errors import ConfigError, OutputError, SarmError

HEAVY = (
    *("torch", "transformers", "scipy", "sklearn", "pyarrow", "pandas", "sae_lens", "peft"),
    *("numpy", "jaxtyping", "pydantic", "jinja2"),
)
ROOT = Path(__file__).resolve().parents[1]


class Outcome:
    """What one run of the command printed and returned."""

    def __init__(self, code: int, capsys: pytest.CaptureFixture[str]) -> None:
        self.code = code
        self.out, self.err = capsys.readouterr()


def parse_pair(text: str) -> str:
    if "=" not in text:
        raise ConfigError(f'"{text}" has no =', hint="write LATENT=VALUE")
    return text


def sample(
    *data: Path,
    model: str,
    top: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 3,
    share: float = 0.5,
    edit: Annotated[
        list[str] | None, Parameter(converter=lambda _, tokens: [parse_pair(t.value) for t in tokens])
    ] = None,
) -> int:
    """A command with every kind of argument."""
    sys.stdout.write(f"{[str(d) for d in data]} {model} {top} {share} {edit}\n")
    return 1 if model == "no" else 0


def single(data: Path, *, model: str, top: int = 3) -> None:
    """A command with one required file."""
    sys.stdout.write(f"{data} {model} {top}\n")


@pytest.fixture
def app() -> App:
    tree = build_app()
    tree.command(sample)
    tree.command(single)
    return tree


def run(app: App, words: str, capsys: pytest.CaptureFixture[str]) -> Outcome:
    return Outcome(run_safely(lambda: app.meta(words.split())), capsys)


HELP = [["--help"], [], ["config", "--help"]]
HELP += [[name, "--help"] for name in COMMANDS]
HELP += [[group, name, "--help"] for group, (_, names) in GROUPS.items() for name in names]


@pytest.mark.long
@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_answers_without_anything_heavy(words: list[str]) -> None:
    program = (
        "import sys; from sarm_control.cli import main; code = main(sys.argv[1:]); "
        f"sys.stdout.write('\\nloaded:' + ','.join(m for m in {HEAVY} if m in sys.modules)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["Usage: sarm", *words[:-1]]))
    assert done.stdout.endswith("\nloaded:")


def test_root_help_has_a_line_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    help_text = Outcome(main(["--help"]), capsys).out
    for name in COMMANDS:
        assert f"  {name}: {help_of(name, name).splitlines()[0]}\n" in help_text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_has_a_row_for_every_command(name: str) -> None:
    assert f"| `sarm {name}` |" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from sarm_control import __version__

    assert Outcome(main(["--version"]), capsys).out == f"{__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_real_command_suggests_the_right_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = Outcome(main([name, "--hlep"]), capsys)
    assert result.code == 2
    assert result.err.startswith("error: unknown option --hlep; did you mean --help?\n")


MISTAKES = {
    "scroe": "unknown command scroe; did you mean score?",
    "frobnicate": "unknown command frobnicate",
    "config shw": "unknown command shw; did you mean show?",
    "--verson": "unknown option --verson; did you mean --version?",
    "sample d --modle x": "unknown option --modle; did you mean --model?",
    "sample d --modle=x": "unknown option --modle; did you mean --model?",
    "sample d --model x --frobnicate 3": "unknown option --frobnicate",
    "sample --tpo 3 d": "unknown option --tpo; did you mean --top?",
    "single d --tpo 3": "unknown option --tpo; did you mean --top?",
    "single d --hlep": "unknown option --hlep; did you mean --help?",
    "single": "DATA is required",
    "sample d": "--model is required",
    "sample d --model": "--model needs a value",
    "sample d --model x --model y": "--model is given twice",
    "sample d --model x --top 0": "--top: must be >= 1, not 0",
    "sample d --model x --top many": '--top: needs a whole number, not "many"',
    "sample d --model x --share half": '--share: needs a number, not "half"',
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistyped_command_line_gets_one_line_and_one_hint(
    words: str, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(app, words, capsys)
    first, second = result.err.splitlines()
    assert result.code == 2
    assert first == f"error: {MISTAKES[words]}"
    assert second.startswith("  hint: ")
    assert result.out == ""


def test_an_unknown_command_lists_what_exists(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    hint = run(app, "frobnicate", capsys).err.splitlines()[1]
    assert all(name in hint for name in COMMANDS)


def test_a_hint_names_the_command_whose_help_would_help(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert "hint: sarm sample --help lists the options" in run(app, "sample d", capsys).err


def test_our_own_error_inside_a_converter_keeps_its_hint(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    err = run(app, "sample d --model x --edit 5", capsys).err
    assert err == 'error: --edit: "5" has no =\n  hint: write LATENT=VALUE\n'


def test_a_good_command_line_runs_and_returns_its_own_code(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    good = run(app, "sample a b --model x --top 1 --edit 1=2 --edit 3=4", capsys)
    assert (good.code, good.out, good.err) == (0, "['a', 'b'] x 1 0.5 ['1=2', '3=4']\n", "")
    assert run(app, "sample a --model no", capsys).code == 1


def test_quiet_is_understood_by_every_command(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    from sarm_control import console

    def remark() -> None:
        """Says something."""
        console.say("a remark")

    app.command(remark)
    assert run(app, "remark", capsys).err == "a remark\n"
    assert run(app, "remark -q", capsys).err == ""
    assert run(app, "remark", capsys).err == "a remark\n"


def failing_with(error: BaseException, capsys: pytest.CaptureFixture[str]) -> Outcome:
    def fail() -> None:
        raise error

    return Outcome(run_safely(fail), capsys)


@pytest.mark.parametrize("kind", [SarmError, ConfigError, OutputError])
def test_errors_meant_for_users_have_no_traceback(
    kind: type[SarmError], capsys: pytest.CaptureFixture[str]
) -> None:
    with_hint = failing_with(kind("alpha is -1", hint="use alpha >= 0"), capsys)
    assert (with_hint.code, with_hint.err) == (2, "error: alpha is -1\n  hint: use alpha >= 0\n")
    assert failing_with(kind("alpha is -1"), capsys).err == "error: alpha is -1\n"


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "rows.jsonl"
    result = Outcome(run_safely(missing.read_bytes), capsys)
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: {missing}: no such file or directory")


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = Outcome(run_safely(tmp_path.read_bytes), capsys)
    assert (result.code, result.err) == (2, f"error: {tmp_path}: is a directory\n")


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    result = failing_with(OSError(28, "No space left on device"), capsys)
    assert (result.code, result.err) == (
        2,
        "error: cannot write to standard output: no space left on device\n",
    )


def test_an_interrupt_is_one_line_and_may_name_the_last_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = failing_with(KeyboardInterrupt(), capsys)
    assert (plain.code, plain.err) == (130, "interrupted\n")
    named = failing_with(KeyboardInterrupt("interrupted; the last checkpoint is step-000100"), capsys)
    assert (named.code, named.err) == (130, "interrupted; the last checkpoint is step-000100\n")


def test_anything_unexpected_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_safely(lambda: 1 // 0)
    with pytest.raises(OSError, match=r"^connection lost$"):
        run_safely(lambda: (_ for _ in ()).throw(OSError("connection lost")))


def test_a_real_ctrl_c_exits_130_with_one_line() -> None:
    program = (
        "import sys, time\nfrom sarm_control.cli._errors import run_safely\n"
        "def wait():\n    sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)\n"
        "sys.exit(run_safely(wait))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "interrupted\n")


@pytest.mark.parametrize("write", ["main(['--help'])", "run_safely(lambda: print('row\\n' * 100_000))"])
def test_a_closed_pipe_is_quiet(write: str) -> None:
    program = (
        "import sys; from sarm_control.cli import main; "
        f"from sarm_control.cli._errors import run_safely; sys.exit({write})"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode in (1, 141)  # 1 is rich's choice while it prints help
    assert done.stderr == b""


def test_python_dash_m_is_the_same_command() -> None:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sarm_control", "scroe"], capture_output=True, text=True, check=False
    )
    sys.stdout.write(f"sarm scroe: {time.monotonic() - start:.2f} s\n")  # shown by pytest -rP
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown command scroe; did you mean score?\n")
