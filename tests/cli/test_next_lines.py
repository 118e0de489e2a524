"""Every command ends with `next: sarm ...`: a real command, read by the parser of the command itself."""

import contextlib
import importlib.util
import io
import json
import shlex

import pytest

from sarm_control.cli import build_app, main
from sarm_control.reward_model import RewardModel

pytestmark = pytest.mark.long

# In the order in which a person would type them; what one writes the next reads.
COMMANDS = {
    "score": "score lab:audit -o scores.jsonl --top 3",
    "score to the terminal": "score lab:audit --top 1",
    "verify": "verify recorded.jsonl",
    "latents": "latents lab:audit -o audit",
    "latents of some": "latents lab:audit --latents 8,15 -o some",
    "human buffer": "latents --as-human -o human.safetensors",
    "discover": "discover audit -o found --random-sets 20 --write-controls controls.yaml",
    "discover without controls": "discover audit -o found2 --random-sets 20",
    "label": "label found/features.json --data audit -o labels.json",
    "probe": "probe audit --edit 8=0",
    "probe that saves": "probe audit --edit 8=0 --save-edits edits.json",
    "convert": "convert lab --apply edits.json -o edited",
    "rerank": "rerank audit --all-latents --n 1,2",
    "eval": "eval --benchmark rm-bench --data rm_bench.jsonl",
    "eval with edits": "eval --benchmark rm-bench --data rm_bench.jsonl --edit 8=0",
    "eval of the published": "eval --reproduce-published-steering",
    "train --dry-run": "train --controls controls.yaml -o run --steps 1 --dry-run",
    "train": "train --controls controls.yaml -o run --steps 1",
    "train that is done": "train -o run --resume",
    "compare": "compare run --max-new-tokens 4",
    "card": "card run -o card.md",
    "push --dry-run": "push run me/run --dry-run",
    "config show": "config show --steps 3",
    "config diff": "config diff run run",
    "config schema": "config schema",
    "doctor": "doctor reward --engine trl",
    "explore --export": "explore --latents audit --export site --export-rows 3 --export-latents 2",
    "build --dry-run": "build --base lab --pairs lab:audit -o built --dry-run",
    "build": "build --base lab --pairs lab:audit --steps 200 --batch 256 --cache states -o built",
}
if importlib.util.find_spec("sae_lens") is None:  # the extra "build"
    COMMANDS = {name: words for name, words in COMMANDS.items() if not name.startswith("build")}
# What a command has just written and the next one takes up.
TAKEN_UP = {
    "latents": "audit",
    "latents of some": "some",
    "human buffer": "human.safetensors",
    "discover": "controls.yaml",
    "discover without controls": "found2/features.json",
    "label": "found/edits.json",
    "probe that saves": "edits.json",
    "convert": "edited",
    "train": "run",
    "train that is done": "run",
    "compare": "run/config.yaml",
    "card": "run",
    "build": "built",
}
DATA_ON_STDOUT = ("score to the terminal", "config show", "config schema")


def rm_bench_row(j: int) -> dict[str, object]:
    return {
        "id": j,
        "prompt": f"how do i bake {j} cakes ?",
        "domain": "chat",
        "chosen": ["mix the flour .", "first mix the flour .", "first mix the flour well ."],
        "rejected": ["no .", "you are so clever .", "you are so very clever ."],
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What every command printed on stdout and stderr."""
    folder = tmp_path_factory.mktemp("next")
    reward = float(RewardModel.from_pretrained("lab").score("hello", "no .").rewards[0])
    files = {
        "recorded.jsonl": [{"prompt": "hello", "response": "no .", "reward": reward}],
        "rm_bench.jsonl": [rm_bench_row(j) for j in range(12)],
    }
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, words in COMMANDS.items():
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words.split())
            assert code == 0, f"sarm {words}: {err.getvalue()}"
            found[name] = (out.getvalue(), err.getvalue())
    return found


def next_of(ran: dict[str, tuple[str, str]], name: str) -> list[str]:
    last = ran[name][1].splitlines()[-1]
    assert last.startswith("next: sarm "), f"{name}: {last}"
    return shlex.split(last)[2:]


def test_every_next_line_is_a_command_that_the_parser_takes(ran: dict[str, tuple[str, str]]) -> None:
    for name in COMMANDS:
        words = next_of(ran, name)
        _, bound, *_ = build_app().parse_args(words, print_error=False, exit_on_error=False)
        assert bound is not None, name


def test_it_goes_on_from_what_was_written(ran: dict[str, tuple[str, str]]) -> None:
    assert not {
        name: next_of(ran, name)
        for name, path in TAKEN_UP.items()
        if name in COMMANDS and path not in next_of(ran, name)
    }


def test_it_is_not_the_same_command_again(ran: dict[str, tuple[str, str]]) -> None:
    assert not [name for name, words in COMMANDS.items() if next_of(ran, name) == words.split()]


def test_a_dry_run_names_the_run(ran: dict[str, tuple[str, str]]) -> None:
    for name in [name for name in COMMANDS if name.endswith("--dry-run")]:
        assert [*next_of(ran, name), "--dry-run"] == COMMANDS[name].split()


def test_standard_output_stays_data(ran: dict[str, tuple[str, str]]) -> None:
    assert not [name for name, (out, _) in ran.items() if "next: sarm" in out]
    assert all(json.loads(line) for line in ran["score to the terminal"][0].splitlines())
    assert all(ran[name][0] for name in DATA_ON_STDOUT)


def test_quiet_leaves_it_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
