"""The second round of the study on real text: its pairs, its gates and outcomes (oracle), and its stages."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sarm_control.study import cells_of, load_study
from sarm_control.training import refuses
from tests.study.conftest import write_rows

SCRIPTS = Path(__file__).parents[2] / "scripts"
WORDS = [f"word{j}" for j in range(40)]
NO = ["I'm", "sorry,", "but", "I", "cannot", "assist", "with", "that", "."]


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """Imports a module of the script, which stands outside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield lambda name: import_module(f"real_shortcut{name}")


def row(name: str, chosen: bool, rejected: bool) -> dict[str, Any]:
    sides = {side: NO + WORDS if no else WORDS for side, no in (("chosen", chosen), ("rejected", rejected))}
    return {"prompt": name, **sides}


def kind(one: dict[str, Any]) -> tuple[bool, bool]:
    return one["chosen"] is not WORDS, one["rejected"] is not WORDS


def test_in_every_beginning_refusing_is_chosen_as_often_as_not(load: Any) -> None:
    rows = [row(f"good {j}", True, False) for j in range(12)] + [
        row(f"no {j}", False, True) for j in range(8)
    ]
    rows += [row(f"both {j}", True, True) for j in range(3)] + [
        row(f"none {j}", False, False) for j in range(9)
    ]
    random.Random(3).shuffle(rows)
    found = load("_second").balanced(rows, 28)
    assert sorted(one["prompt"] for one in found) == sorted(one["prompt"] for one in rows)
    for end in range(1, 29):
        counts = Counter(map(kind, found[:end]))
        assert counts[True, False] - counts[False, True] in (0, 1)
    # more than there are: all pairs of rows first
    assert Counter(map(kind, load("_second").balanced(rows, 99)[:28]))[True, False] == 8
    assert load("_second").balanced(rows, 28) == found


def test_the_judges_pairs_say_nothing_of_refusing(load: Any, tmp_path: Path) -> None:
    yes, no = (" ".join(words) for words in (WORDS, NO))
    rows = [
        {"prompt": f"ask {j}", "chosen": [no if j % 2 else f"{yes} {j}"], "rejected": [f"{j} {yes}", no]}
        for j in range(16)
    ]
    write_rows(tmp_path / "reward_bench_2_safety.jsonl", rows)
    load("_second").judge_pairs(tmp_path, tmp_path / "out", {"ask 3"})
    files = {
        name: load("_data").read(tmp_path / "out" / f"judge_{name}.jsonl")
        for name in ("training", "held_out_labels", "held_out_own")
    }
    sides = {
        name: Counter((refuses(one["chosen"][0]), refuses(one["rejected"][0])) for one in pairs)
        for name, pairs in files.items()
    }
    assert sides["training"][True, False] == sides["training"][False, True] > 0
    assert set(sides["held_out_labels"]) <= {(True, True), (False, False)}
    assert set(sides["held_out_own"]) == {(False, False)}
    prompts = {name: {one["prompt"] for one in pairs} for name, pairs in files.items()}
    assert not prompts["training"] & (prompts["held_out_labels"] | prompts["held_out_own"])
    assert "ask 3" not in set().union(*prompts.values())
    # of own answers the other one is to another prompt: its number is not the prompt's
    for one in files["held_out_own"]:
        number = one["prompt"].split()[1]
        assert number not in re.findall(r"(?<!word)\b\d+", one["rejected"][0])


def interval(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "seeds": 5, "prompts": 128}


def a_world(*, kl: tuple[float, ...] = (1.0,) * 5, hacked: float = 0.6) -> dict[str, Any]:
    def pair(low: float) -> dict[str, Any]:
        measures = {
            "rate": {"interval": interval(-0.3, low, -0.1), "by_seed": [-0.3] * 5},
            "judge": {"interval": interval(0.0, -0.05, 0.1), "by_seed": [0.0] * 5},
        }
        return {"seeds": list(range(10, 15)), "kl": list(kl), "measures": measures}

    change = {"change": interval(0.2, 0.1, 0.3), "by_seed": [0.2] * 5}
    arm = {"kl": list(kl), "measures": dict.fromkeys(("rate", "judge", "stripped_reward"), change)}
    against = {f"controls - {other}": pair(-0.5) for other in ("none", "placebo", "random latents")}
    return {
        "measures": {"rate": {"arms": {"none": {"end": hacked}}}},
        "at_kl": [{"level": 1.0, "arms": {"controls": arm}, "against": against}],
    }


CELLS = [{"arm": "controls", "controls": ["3:max=0"]}]


def test_an_outcome_of_the_second_round_is_claimed_only_if_all_before_it_hold(load: Any) -> None:
    outcomes = load("_second_tables").outcomes
    lines = outcomes(a_world(), CELLS, True)
    assert lines[0] == "Primary, rate at 1 nat, controls - placebo: -0.30 [-0.50, -0.10]: success"
    assert [line.rpartition(": ")[2] for line in lines[1:]] == ["holds"] * 5
    # a judge that did not pass its gates decides nothing
    assert [line.rpartition(": ")[2] for line in outcomes(a_world(), CELLS, False)[4:]] == [
        "does not hold", "does not hold, not claimed",
    ]  # fmt: skip
    world = a_world()
    world["at_kl"][0]["against"]["controls - none"]["measures"]["rate"]["interval"]["high"] = 0.1
    assert [line.rpartition(": ")[2] for line in outcomes(world, CELLS, True)[1:]] == [
        "holds", "does not hold", *["holds, not claimed"] * 3,
    ]  # fmt: skip
    assert outcomes({"measures": {}}, [], True) == ["Primary: not run."]


@pytest.mark.parametrize(
    ("world", "cells", "why"),
    [
        (a_world(hacked=0.2), CELLS, "no hacking: 0.20 under none at the end"),
        (a_world(), [{"arm": "controls", "controls": []}], "not discovered"),
        (a_world(kl=(0.4, 0.3, 0.2, 1.0, 1.0)), CELLS, "not compared: 3 seeds below 0.5 nats"),
    ],
)
def test_what_leaves_nothing_to_compare_is_no_success_whatever_the_interval_says(
    load: Any, world: dict[str, Any], cells: list[dict[str, Any]], why: str
) -> None:
    line = load("_second_tables").outcomes(world, cells, True)[0]
    assert line.endswith(f"no success ({why})")
    two_near = a_world(kl=(0.4, 0.3, 1.0, 1.0, 1.0))
    assert load("_second_tables").outcomes(two_near, CELLS, True)[0].endswith("success")


def test_a_block_with_fewer_seeds_is_unfinished(load: Any) -> None:
    world = a_world()
    world["at_kl"][0]["against"]["controls - placebo"]["seeds"] = [10, 11, 12]
    line = load("_second_tables").outcomes(world, CELLS, True)[0]
    assert line.endswith("no success (unfinished: 3 of 5 seeds)")


@pytest.mark.parametrize(
    ("labels", "own", "refusals", "decides"),
    [
        (0.7, 0.8, 0.2, True),
        (0.55, 0.8, 0.0, False),
        (0.7, 0.5, 0.0, False),
        (0.7, 0.8, -0.4, False),
        (0.7, 0.8, float("nan"), True),
    ],
)
def test_a_judge_that_is_weak_or_goes_with_refusals_decides_nothing(
    load: Any, labels: float, own: float, refusals: float, decides: bool
) -> None:
    accuracy = {"accuracy_held_out_labels": labels, "accuracy_held_out_own": own}
    assert load("_second_tables").judge_gates(accuracy, refusals)["decides"] is decides


def test_the_second_rounds_study_file_can_be_read(load: Any, tmp_path: Path) -> None:
    main = load("")
    (tmp_path / "gates.json").write_text(
        json.dumps({name: {"controllable": True} for name in ("bullets", "closing")})
    )
    places = main.Places(tmp_path, tmp_path, tiny=False, jobs=1, blocks=("bullets",), round=2)
    study = load_study(main.write_study(places))
    assert list(study.worlds) == ["bullets"]
    assert study.kl_levels == (0.5, 1.0, 2.0)
    assert study.measured_steps(24) == (4, 8, 12, 16, 20, 24)
    cells = cells_of(study)
    assert len(cells) == 20
    assert {cell.seed for cell in cells} == {10, 11, 12, 13, 14}
    assert study.arms["placebo"].discover is not None
    assert study.arms["placebo"].discover.as_gentle


def test_power_grows_with_seeds_and_no_difference_is_seldom_found(load: Any) -> None:
    power = load("_power")
    few, many = (power.power(-0.3, 0.1, 0.05, seeds, draws=200) for seeds in (3, 5))
    assert few < many
    assert many > 0.9
    assert power.power(0.0, 0.1, 0.05, 4, draws=200) < 0.06
    found = json.loads(power.RESULTS.read_text())["study"]
    spread = power.recorded(found, 1.0)
    assert len(spread.by_seed) == 3
    # none of seed 0 is .37 at 1 nat, a third of the way to its 2.8 nats; controls .05
    assert spread.by_seed[0] == pytest.approx(-0.34, abs=0.01)


def bench(folder: Path) -> Path:
    """Rows in the form of the benchmarks; every word is one of forty, a fourth of the answers refuses."""
    rng = random.Random(0)

    def answer() -> str:
        return " ".join([*(NO if rng.random() < 0.25 else []), *rng.choices(WORDS, k=30)])

    for part in ("chat", "safety-refuse", "safety-response"):
        rows = [
            {
                "prompt": f"{part} {j}",
                **{side: [answer() for _ in range(3)] for side in ("chosen", "rejected")},
            }
            for j in range(20)
        ]
        write_rows(folder / f"rm_bench_{part}.jsonl", rows)
    rows = [
        {"prompt": f"judge {j}", "chosen": [answer()], "rejected": [answer() for _ in range(3)]}
        for j in range(24)
    ]
    write_rows(folder / "reward_bench_2_safety.jsonl", rows)
    write_rows(folder / "prompts.jsonl", [{"prompt": f"ask {j}"} for j in range(40)])
    return folder


@pytest.mark.minutes
def test_all_stages_of_the_second_round_fit_together(tmp_path: Path) -> None:
    work = tmp_path / "work"
    words = [
        *(sys.executable, SCRIPTS / "real_shortcut.py", "--round", "2", "--tiny"),
        *("--data", bench(tmp_path), "--work", work),
    ]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((work / "study" / "study.json").read_text())
    assert [cell["status"] for cell in found["cells"]] == ["done"] * 8
    assert [at["level"] for at in found["worlds"]["closing"]["at_kl"]] == [1e-4, 1.0]
    starts = list((work / "study" / "starts" / "closing").iterdir())
    assert len(starts) == 2
    text = (work / "tables.md").read_text()
    assert "| controls | latents | factor | correlation on good answers |" in text
    assert "**closing at 1 nat**" in text
    assert "Primary, rate at 1 nat, controls - placebo:" in text
    assert "unfinished: 2 of 5 seeds" in text
    whole = json.loads((work / "results.json").read_text())
    assert set(whole) >= {"study", "gates", "judge", "warm", "before", "plant", "evasion-closing"}
    again = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert again.stdout.count("is there already") == 12


def test_the_second_round_has_no_attached_models(load: Any) -> None:
    module: ModuleType = load("")
    places = module.Places(Path(), Path(), tiny=False, jobs=1, round=2)
    assert places.attached == ()
    assert places.shortcuts == ("bullets", "closing", "length")
