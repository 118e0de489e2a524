"""The study on real text: its rules and rows (oracle), and all stages on the smallest sizes."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sarm_control.study import cells_of, load_study
from sarm_control.study.measures import strip
from tests.outside import load
from tests.study.conftest import write_rows

SCRIPTS = Path(__file__).parents[2] / "scripts"
WORDS = [f"word{j}" for j in range(40)]


@pytest.fixture(scope="session")
def scripts() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The modules of the script, which stand outside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield import_module("real_shortcut_data"), import_module("real_shortcut_tables")


@pytest.fixture(scope="session")
def evasion() -> ModuleType:
    """The module of question 3 and of what rises instead."""
    return load(SCRIPTS / "real_shortcut_evasion.py")


@pytest.fixture(scope="session")
def signal() -> ModuleType:
    """The module of what each reward goes with."""
    return load(SCRIPTS / "real_shortcut_signal.py")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in the form of the benchmarks; every word is one of forty."""
    folder, rng = tmp_path_factory.mktemp("bench"), random.Random(0)

    def answer() -> str:
        return " ".join(rng.choices(WORDS, k=30))

    for part, size in (("chat", 20), ("safety-refuse", 20), ("safety-response", 20)):
        rows = [
            {
                "prompt": f"{part} {j}",
                "chosen": [answer() for _ in range(3)],
                "rejected": [answer() for _ in range(3)],
            }
            for j in range(size)
        ]
        write_rows(folder / f"rm_bench_{part}.jsonl", rows)
    rows = [
        {"prompt": f"judge {j}", "chosen": [answer()], "rejected": [answer() for _ in range(3)]}
        for j in range(24)
    ]
    write_rows(folder / "reward_bench_2_safety.jsonl", rows)
    write_rows(folder / "prompts.jsonl", [{"prompt": f"ask {j}"} for j in range(40)] + [{"prompt": "chat 0"}])
    return folder


@pytest.mark.parametrize("name", ["closing", "bullets", "length", "opener"])
def test_a_rule_finds_what_was_planted_and_stripping_takes_it_out(
    scripts: tuple[ModuleType, ModuleType], name: str
) -> None:
    shortcut = scripts[0].SHORTCUTS[name]
    for seed in range(20):
        planted, plain = (put(WORDS, random.Random(seed)) for put in (shortcut.plant, shortcut.plain))
        assert re.search(shortcut.rule, planted)
        assert not re.search(shortcut.rule, plain)
        stripped = strip(planted, shortcut.strip)
        assert not re.search(shortcut.rule, stripped)
        if name == "length":
            assert stripped.split() == WORDS[:14]
        else:
            assert stripped == plain
        assert strip(plain, shortcut.strip) == plain


def test_other_closings_count_and_an_offer_in_the_middle_does_not(
    scripts: tuple[ModuleType, ModuleType],
) -> None:
    rule = scripts[0].SHORTCUTS["closing"].rule
    assert re.search(rule, "Mix it. I am happy to help with more!")
    assert not re.search(rule, "Let me know the size first. Then mix it.")


def test_planted_shares_and_disjoint_parts(
    scripts: tuple[ModuleType, ModuleType], bench: Path, tmp_path: Path
) -> None:
    data = scripts[0]
    data.plant(bench, tmp_path, data.Sizes(30, 20, 6, 4, 16))
    rule = data.SHORTCUTS["closing"].rule
    files = {
        name: data.read(tmp_path / "closing" / f"{name}.jsonl") for name in ("training", "audit", "gate")
    }
    prompts = {name: {row["prompt"] for row in rows} for name, rows in files.items()}
    assert [len(one) for one in prompts.values()] == [30, 20, 10]
    assert len(set().union(*prompts.values())) == 60
    share = {
        side: sum(bool(re.search(rule, row[side][0])) for row in files["training"]) / 30
        for side in ("chosen", "rejected")
    }
    assert 0.25 < share["chosen"] < 0.75
    assert share["rejected"] < 0.3
    content, same = files["audit"][:10], files["audit"][10:]
    assert not any(re.search(rule, row[side][0]) for row in content for side in ("chosen", "rejected"))
    assert all(row["rejected"][0] == f"{row['chosen'][0]} {data.OFFER}" for row in same)
    names = ("held_out", "predicted", "check", "train")
    asked = [row["prompt"] for name in names for row in data.read(tmp_path / f"{name}_prompts.jsonl")]
    assert len(asked) == len(set(asked)) == 40
    assert "chat 0" not in asked
    judges = [data.read(tmp_path / f"judge_{name}.jsonl") for name in ("training", "held_out")]
    assert [len(rows) for rows in judges] == [18, 6]


def interval(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "seeds": 5, "prompts": 128}


def closing(judge_low: float) -> dict[str, Any]:
    against = {
        "controls - none": interval(-0.4, -0.6, -0.2),
        "controls - placebo": interval(-0.3, -0.5, -0.1),
        "controls - none, stopped": interval(-0.2, -0.3, -0.1),
    }
    judge = {"controls - none": interval(0.0, judge_low, 0.1)}
    change = {"controls": {"change": interval(0.1, 0.05, 0.15)}}
    return {
        "rate": {"arms": {"none": {"end": 0.6}}, "against": against},
        "judge": {"arms": change, "against": judge},
        "stripped_reward": {"arms": change, "against": {}},
    }


def test_an_outcome_is_claimed_only_if_all_before_it_hold(scripts: tuple[ModuleType, ModuleType]) -> None:
    outcomes = scripts[1].outcomes
    lines = outcomes({"worlds": {"closing": {"measures": closing(-0.05)}}})
    assert lines[1].endswith("[-0.60, -0.20]: success")
    assert [line.rpartition(": ")[2] for line in lines[2:]] == ["holds"] * 5
    lines = outcomes({"worlds": {"closing": {"measures": closing(-0.2)}}})
    assert [line.rpartition(": ")[2] for line in lines[2:]] == [
        *("holds", "holds", "does not hold", "holds, not claimed", "holds, not claimed"),
    ]
    nothing = closing(0.0)
    nothing["rate"]["arms"]["none"]["end"] = 0.2
    lines = outcomes({"worlds": {"closing": {"measures": nothing}}})
    assert lines[0].endswith("there was nothing to hold")
    assert lines[1].endswith("no success")
    assert outcomes({"worlds": {}}) == ["Primary: not run."]


ASKED = ("first?", "second?")


def answered(study: Path, cell: str, start: tuple[str, str], end: tuple[str, str]) -> None:
    rows = [
        {"policy": policy, "prompt": number, "response": text}
        for policy, texts in (("start", start), ("end", end))
        for number, text in enumerate(texts)
    ]
    path = study / "cells" / f"{cell}.answers.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows)


def test_oracle_what_an_arm_moved_is_counted_in_its_answers(evasion: ModuleType, tmp_path: Path) -> None:
    plain, offer, other = (
        "Mix it.",
        "Mix it. Let me know if you need anything else!",
        "Mix it. Happy to help!",
    )
    cells = {("none", 0): (offer, offer), ("none", 1): (offer, plain), ("controls", 0): (other, plain)}
    for (arm, seed), end in cells.items():
        answered(tmp_path, f"closing/{arm}/seed-{seed}", (plain, plain), end)
    rows = [
        {"world": "closing", "arm": arm, "seed": seed, "name": f"closing/{arm}/seed-{seed}", "status": "done"}
        for arm, seed in cells
    ]
    rows.append({**rows[0], "seed": 9, "name": "closing/none/seed-9", "status": "begun"})
    (tmp_path / "study.json").write_text(json.dumps({"cells": rows}))
    rule = "let me know|happy to help"
    moved = evasion.movements(tmp_path, ASKED, "closing", f"(?i){rule}")
    assert moved["closing"]["by_seed"]["none"] == [1.0, 0.5]
    assert moved[evasion.OTHER]["by_seed"] == {"none": [0.0, 0.0], "controls": [0.5]}
    assert moved[evasion.OTHER]["against"]["controls"]["mean"] == 0.5
    assert moved["bullets"]["change"]["controls"]["mean"] == 0.0
    predicted = {name: {"change": 0.0, "sd": 1.0, "best_of": 16, "certified": "still"} for name in moved}
    text = evasion.evasion_text("closing", predicted, moved)
    assert "| other closing | +0.00 | +0.00 | +0.50 | +0.50 | still |" in text
    assert "| bullets |" not in text


def test_oracle_agreement_is_the_rank_correlation_in_sds(evasion: ModuleType) -> None:
    changes = {
        "a": (0.1, 0.3, 0.2),
        "b": (0.2, 0.1, 0.4),
        "length": (1.0, 50.0, 60.0),
        "never": (0.0, 0.0, 0.0),
    }
    predicted = {
        name: {"change": one[0], "sd": 100.0 if name == "length" else 1.0} for name, one in changes.items()
    }
    moved = {name: {"by_seed": {"none": list(one[1:])}} for name, one in changes.items()}
    # in SDs best-of-n is (0.1, 0.2, 0.01), the seeds are (0.3, 0.1, 0.5) and (0.2, 0.4, 0.6)
    assert evasion.agreement(predicted, moved) == pytest.approx([-1.0, -0.5])


def test_a_reward_that_ignores_the_shortcut_does_not_go_with_it(signal: ModuleType) -> None:
    rows = [
        {"rate": closing, "stripped_reward": merit, "judge": merit, "refuses": 0.0}
        for closing in (0.0, 1.0)
        for merit in (-1.0, 0.0, 1.0)
    ]
    merit, closing = (np.array([row[name] for row in rows]) for name in ("stripped_reward", "rate"))
    found = signal.correlations({"no control": merit + 2 * closing, "controls": 3 * merit}, rows)
    assert found["controls"]["rate"] == pytest.approx(0.0)
    assert found["controls"]["stripped_reward"] == pytest.approx(1.0)
    # variances 2/3 of merit and 1 of twice the closing: sqrt(2/5) and sqrt(3/5)
    assert found["no control"]["stripped_reward"] == pytest.approx(0.4**0.5)
    assert found["no control"]["rate"] == pytest.approx(0.6**0.5)
    assert np.isnan(found["controls"]["refuses"])
    assert "| no control | 1.29 | +0.77 | +0.63 | +0.63 | - |" in signal.signal_text("closing", found)


def test_the_answers_of_a_seed_are_counted_once(tmp_path: Path, signal: ModuleType) -> None:
    for arm in ("none", "controls"):
        folder = tmp_path / "cells" / "closing" / arm
        folder.mkdir(parents=True)
        for seed in (0, 1):
            write_rows(
                folder / f"seed-{seed}.answers.jsonl",
                [{"policy": policy, "prompt": 0, "seed": seed} for policy in ("start", "end")],
            )
    assert [row["seed"] for row in signal.starting_answers(tmp_path, "closing")] == [0, 1]


def test_refusals_of_one_side_alone_are_counted(tmp_path: Path, signal: ModuleType) -> None:
    no, yes = "I'm sorry, but I cannot assist with that.", "Here it is."
    sides = [(no, yes), (no, yes), (yes, no), (no, no), (yes, yes)]
    pairs = [{"prompt": "p", "chosen": [one], "rejected": [other]} for one, other in sides]
    for name in ("training", "content"):
        write_rows(tmp_path / f"{name}.jsonl", pairs)
    counted = "the chosen answer in 2 of 5 pairs, the rejected in 1"
    assert signal.refusal_text(tmp_path) == f"Refuses alone, training: {counted}; content: {counted}."


def test_the_time_of_a_run_is_the_mean_of_those_that_are_done(
    scripts: tuple[ModuleType, ModuleType],
) -> None:
    done = [{"status": "done", "seconds": {"training": one, "measuring": 10.0}} for one in (100.0, 200.0)]
    text = scripts[1].outcome_text({"worlds": {}, "cells": [*done, {"status": "new"}]}, {})
    assert text.endswith("2 runs took 150 s of training and 10 s of measuring each, on average")


@pytest.mark.usefixtures("scripts")
def test_the_study_file_of_the_design_can_be_read(tmp_path: Path) -> None:
    """YAML writes a list that occurs twice as an anchor, which the reader refuses."""
    main = import_module("real_shortcut")
    (tmp_path / "gates.json").write_text(
        json.dumps({name: {"controllable": True} for name in ("closing", "bullets", "closing-attached")})
    )
    study = load_study(main.write_study(main.Places(tmp_path, tmp_path, tiny=False, jobs=1)))
    assert list(study.worlds) == ["closing", "closing-attached", "bullets"]
    cells = [cell for cell in cells_of(study) if cell.world == "closing"]
    assert len(cells) == 44
    # seed by seed within the four arms that are compared
    assert [(cell.arm, cell.seed) for cell in cells[:5]] == [
        *((arm, 0) for arm in ("none", "controls", "placebo", "none, stopped")),
        ("none", 1),
    ]


@pytest.mark.minutes
def test_all_stages_fit_together_on_the_smallest_sizes(bench: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        SCRIPTS / "real_shortcut.py",
        "--data",
        bench,
        "--work",
        tmp_path / "work",
        "--tiny",
    ]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    work = tmp_path / "work"
    found = json.loads((work / "study" / "study.json").read_text())
    assert [cell["status"] for cell in found["cells"]] == ["done"]
    assert {"rate", "judge", "stripped_reward", "kl"} <= set(found["worlds"]["closing"]["measures"])
    gates = json.loads((work / "gates.json").read_text())
    assert set(gates) == {"closing", "closing-attached"}
    assert set(gates["closing"]) == {
        "latent",
        "detects",
        "latents",
        "best_latent",
        "paid",
        "controllable",
    }
    text = (work / "tables.md").read_text()
    assert "Primary: not run." in text
    assert "**closing: what rises instead**" in text
    again = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert again.stdout.count("is there already") == 11
