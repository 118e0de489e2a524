"""Oracle and property tests of arms at equal KL, and of a whole study that measures on the way."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.cli import main
from sarm_control.comparison import Sampling, compare_runs, open_run
from sarm_control.data.rows import read_rows
from sarm_control.errors import ConfigError
from sarm_control.reward_model import RewardModel
from sarm_control.study import Cell, StudyConfig, load_study
from sarm_control.study.cells import CellState
from sarm_control.study.equal_kl import KlPath, mean_kl, policy_at
from sarm_control.study.measures import CellAnswers, Measuring, read_answers
from sarm_control.study.tables import study_tables, study_text
from sarm_control.training import read_run_config
from tests.present import present


def rows_of(policy: str, rates: tuple[float, ...], kl: float | None) -> list[dict[str, Any]]:
    extra = {} if kl is None else {"kl": kl}
    return [{"policy": policy, "prompt": p, "rate": rate, **extra} for p, rate in enumerate(rates)]


def a_path(*measured: tuple[tuple[float, ...], float], start: tuple[float, ...] = (0.0, 0.0)) -> KlPath:
    """A run measured after steps 4, 8 and so on, the last of which is its end."""
    rows = rows_of("start", start, None)
    for number, (rates, kl) in enumerate(measured, 1):
        rows += rows_of("end" if number == len(measured) else policy_at(4 * number), rates, kl)
    return KlPath.of(CellAnswers(rows))


def test_oracle_a_value_lies_on_the_line_between_two_measurements() -> None:
    path = a_path(((0.0, 1.0), 0.4), ((1.0, 1.0), 1.4), ((1.0, 0.0), 3.4))
    assert path.policies == ("start", "step-4", "step-8", "end")
    assert path.kl == pytest.approx((0.0, 0.4, 1.4, 3.4))
    values = {kl: present(path.at(kl, "rate")).tolist() for kl in (0.0, 0.2, 0.4, 0.9, 2.4)}
    wanted = {0.0: (0, 0), 0.2: (0, 0.5), 0.4: (0, 1), 0.9: (0.5, 1), 2.4: (1, 0.5)}
    assert values == {kl: pytest.approx(one) for kl, one in wanted.items()}
    assert present(path.at(0.9, "kl")).tolist() == pytest.approx([0.9, 0.9])
    assert path.at(0.9, "judge") is None


def test_steps_are_in_order_of_their_numbers_and_the_first_crossing_counts() -> None:
    rows = rows_of("start", (0.0,), None) + rows_of("step-12", (0.9,), 2.0) + rows_of("step-4", (0.1,), 1.0)
    path = KlPath.of(CellAnswers(rows + rows_of("step-8", (0.5,), 0.2) + rows_of("end", (1.0,), 3.0)))
    assert path.policies == ("start", "step-4", "step-8", "step-12", "end")
    # a run that comes back is taken where it was first so far out
    assert present(path.at(0.5, "rate")).tolist() == pytest.approx([0.05])
    assert present(path.at(1.5, "rate")).tolist() == pytest.approx([0.5 + 0.4 * 1.3 / 1.8])


@settings(deadline=None, max_examples=50)
@given(
    kls=st.lists(st.floats(-0.5, 5), min_size=1, max_size=6),
    rates=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    share=st.floats(0, 1),
)
def test_a_value_at_a_reached_kl_is_between_those_measured(
    kls: list[float], rates: list[float], share: float
) -> None:
    path = a_path(*(((rate, rate), kl) for kl, rate in zip(kls, rates, strict=False)))
    found = present(path.at(share * path.reached, "rate"))
    assert min(0, *rates[: len(kls)]) - 1e-9 <= found[0] <= max(0, *rates[: len(kls)]) + 1e-9
    kl = present(path.at(share * path.reached, "kl"))
    assert kl[0] == pytest.approx(share * path.reached, abs=1e-9)


def made_study(folder: Path, asked: dict[str, Any], cells: dict[tuple[str, int], KlPath]) -> dict[str, Any]:
    study = StudyConfig.model_validate({**asked, "measure_every": 4, "kl_levels": [1.0]})
    states = []
    for (arm, seed), path in cells.items():
        cell = Cell("tiny", arm, seed)
        cell.answers(folder).parent.mkdir(parents=True, exist_ok=True)
        cell.answers(folder).write_text("".join(json.dumps(row) + "\n" for row in path.answers.rows))
        states.append(CellState(cell, "done", {}))
    return study_tables(folder, study, states)


def test_a_run_that_stays_put_is_compared_where_both_got_to_and_not_left_out(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    moved = a_path(((0.5, 0.5), 1.0), ((1.0, 1.0), 2.0))
    stuck = a_path(((0.0, 0.2), 0.1), ((0.0, 0.2), 0.1))
    cells = {("none", 0): moved, ("none", 1): moved, ("edited", 0): stuck, ("edited", 1): moved}
    found = made_study(tmp_path, asked, cells)
    at = found["worlds"]["tiny"]["at_kl"][0]
    assert at["level"] == 1.0
    assert at["arms"]["edited"]["kl"] == pytest.approx([0.1, 1.0])
    assert at["arms"]["edited"]["censored"] == [True, False]
    assert at["arms"]["none"]["censored"] == [False, False]
    assert at["arms"]["none"]["measures"]["rate"]["by_seed"] == pytest.approx([0.5, 0.5])
    pair = at["against"]["edited - none"]
    assert pair["kl"] == pytest.approx([0.1, 1.0])
    assert pair["censored"] == [True, False]
    # none has .05 at 0.1 nats, edited .1
    assert pair["measures"]["rate"]["by_seed"] == pytest.approx([0.05, 0.0])
    assert pair["measures"]["rate"]["interval"]["mean"] == pytest.approx(0.025)
    assert "tiny at a KL of 1, or the largest reached" in study_text(found)


def test_levels_that_could_not_be_measured_are_refused(study_file: Path) -> None:
    text = study_file.read_text()
    for lines, why in (
        ("kl_levels: [1]", "kl_levels need measurements on the way: set measure_every, such as 4"),
        ("measure_every: 2\nkl_levels: [2, 1]", "kl_levels must ascend"),
        ("measure_every: 2\nkl_levels: [0]", "Input should be greater than 0"),
    ):
        study_file.write_text(f"{text}\n{lines}\n")
        with pytest.raises(ConfigError, match=why):
            load_study(study_file)


def test_the_last_step_is_always_measured(asked: dict[str, Any]) -> None:
    plain, often = (StudyConfig.model_validate({**asked, **more}) for more in ({}, {"measure_every": 4}))
    assert plain.measured_steps(10) == (10,)
    assert often.measured_steps(10) == (4, 8, 10)
    assert often.measured_steps(8) == (4, 8)
    assert often.measured_steps(3) == (3,)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, asked: dict[str, Any]) -> Callable[[str], Path]:
    """A cell measured at its end, the same one after each step, and one of four steps that ends early."""
    folder = tmp_path_factory.mktemp("studies")
    both = {**asked, "seeds": [0], "compare": [], "arms": {name: asked["arms"][name] for name in ARMS}}
    often = {**both, "measure_every": 1, "kl_levels": [1e-6, 1e3], "arms": {"none": {}}}
    ways = {
        "plain": both,
        "often": often,
        "early": {**often, "kl_levels": [1.0], "set": {"training": {"steps": 4}}},
    }

    def made(name: str) -> Path:
        path = folder / f"{name}.yaml"
        if not path.is_file():
            path.write_text(yaml.safe_dump(ways[name], sort_keys=False))
            assert main(["study", str(path), "-o", str(folder / name)]) == 0
        return folder / name

    return made


ARMS = ("none", "edited")


@pytest.mark.long
def test_training_from_measurement_to_measurement_changes_nothing(studies: Callable[[str], Path]) -> None:
    cell = Cell("tiny", "none", 0)
    plain, often = ((cell.run(studies(name)) / "metrics.jsonl").read_bytes() for name in ("plain", "often"))
    assert plain == often
    ends = {}
    for name in ("plain", "often"):
        rows = read_answers(cell.answers(studies(name))).rows
        ends[name] = [row for row in rows if row["policy"] in ("start", "end")]
    assert ends["plain"] == ends["often"]
    rows = read_answers(cell.answers(studies("often"))).rows
    assert list(dict.fromkeys(row["policy"] for row in rows)) == ["start", "step-1", "end"]
    assert cell.measurements(studies("often")) == []
    record = json.loads(cell.record(studies("often")).read_text())
    assert (record["steps"], record["steps_now"]) == (2, 2)


@pytest.mark.long
def test_a_run_ends_at_the_first_measurement_beyond_the_largest_level(studies: Callable[[str], Path]) -> None:
    cell = Cell("tiny", "none", 0)
    first, plain, early = (
        [row for row in read_answers(cell.answers(studies(name))).rows if row["policy"] == policy]
        for name, policy in (("often", "step-1"), ("plain", "end"), ("early", "end"))
    )
    # after one step it is near, after two it is beyond the level, and there were to be four
    assert mean_kl(first) < 1.0 < mean_kl(plain)
    assert early == plain
    record = json.loads(cell.record(studies("early")).read_text())
    assert (record["steps"], record["stopped"]) == (2, None)


@pytest.mark.long
def test_the_starting_policy_is_measured_once_a_seed_and_as_it_would_be_afresh(
    studies: Callable[[str], Path], asked: dict[str, Any], tmp_path: Path
) -> None:
    kept = list((studies("plain") / "starts/tiny").iterdir())
    assert len(kept) == 1
    cell, study = Cell("tiny", "edited", 0), load_study(studies("plain").with_suffix(".yaml"))
    run = cell.run(studies("plain"))
    config = read_run_config(run)
    fresh = Measuring(study, "tiny", config).of_start(tmp_path)
    (file,) = tmp_path.iterdir()
    assert (file.name, file.read_bytes()) == (kept[0].name, kept[0].read_bytes())
    kept_rows = read_answers(cell.answers(studies("plain"))).rows
    assert fresh == [row for row in kept_rows if row["policy"] == "start"]
    # oracle: the answers and rewards of `sarm compare`
    rows = read_rows(Path(asked["prompts"]), want={"prompt"})
    training, model = config.training, RewardModel.from_pretrained(config.reward.model)
    sampling = Sampling(1, training.max_new_tokens, training.temperature, 0, 64)
    other = compare_runs([open_run(run)], rows, model, sampling).answers
    names = ["response", "reward", "length", "ended"]
    assert [[row[name] for name in names] for row in fresh] == [
        [row[name] for name in names] for row in other if row["policy"] == "base"
    ]
    ends = [row for row in kept_rows if row["policy"] == "end"]
    names.append("kl")
    assert [[row[name] for name in names] for row in ends] == [
        [row[name] for name in names] for row in other if row["policy"] != "base"
    ]


@pytest.mark.long
def test_another_seed_prompt_or_rule_is_measured_anew(studies: Callable[[str], Path]) -> None:
    config = read_run_config(Cell("tiny", "none", 0).run(studies("plain")))
    study = load_study(studies("plain").with_suffix(".yaml"))
    seed = config.model_copy(update={"training": config.training.model_copy(update={"seed": 1})})
    world = study.worlds["tiny"].model_copy(update={"rule": "we"})
    ruled = study.model_copy(update={"worlds": {"tiny": world}})
    files = {
        one.start_file(Path()).name
        for one in (
            Measuring(study, "tiny", config),
            Measuring(study, "tiny", seed),
            Measuring(study, "tiny", config, limit=2),
            Measuring(ruled, "tiny", config),
            Measuring(study.model_copy(update={"answers_per_prompt": 2}), "tiny", config),
        )
    }
    assert len(files) == 5


WRITER = """
import sys, time
from pathlib import Path
from sarm_control.files import write_jsonl
from sarm_control.locks import locked
path = Path(sys.argv[1])
with locked(path):
    print("held", flush=True)
    time.sleep(1)
    write_jsonl(path, [{"policy": "start", "prompt": 0, "reward": 7.0}])
"""


@pytest.mark.long
def test_a_process_waits_for_the_answers_that_another_one_measures(
    studies: Callable[[str], Path], tmp_path: Path
) -> None:
    config = read_run_config(Cell("tiny", "none", 0).run(studies("plain")))
    measuring = Measuring(load_study(studies("plain").with_suffix(".yaml")), "tiny", config)
    words = [sys.executable, "-c", WRITER, str(measuring.start_file(tmp_path))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert measuring.of_start(tmp_path) == [{"policy": "start", "prompt": 0, "reward": 7.0}]
    assert other.returncode == 0
