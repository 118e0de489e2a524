"""Oracle and property tests of placebo and matched arms."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import vstack

from sarm_control.control import Controls, Penalty, edit_delta, in_sd
from sarm_control.data.rows import Row
from sarm_control.discovery import good_correlation, group_by_prompt
from sarm_control.discovery.discovery import ScoredRows, discover
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.lab import controlled
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import from_scipy
from sarm_control.study import Cell, StudyConfig, load_study
from sarm_control.study.arms import (
    as_gentle,
    check_settings,
    chosen_controls,
    role_of_cell,
    run_config,
    shuffled,
    step_of_kl,
)
from sarm_control.study.measures import CellAnswers, distinct_pairs, strip
from sarm_control.study.study_config import Discovered
from sarm_control.training.config.roles import settled_role
from tests.discovery.worlds import Planted, make_world
from tests.present import present

PROMPTS = 400
HARM = {11: Planted(0.3, 0.1, 0.6), 12: Planted(-0.3, 0.6, 0.1), 13: Planted(0.2, 0.1, 0.5)}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> ScoredRows:
    """One chosen and one rejected answer to each prompt; three latents harm."""
    world = make_world(prompts=PROMPTS, answers=1, planted=HARM)
    path = tmp_path_factory.mktemp("pairs") / "p.jsonl"
    rows = [
        Row(path, p + 1, {}, "pair", f"prompt {p}", chosen=(f"good {p}",), rejected=(f"bad {p}",))
        for p in range(PROMPTS)
    ]
    order = [side * PROMPTS + p for p in range(PROMPTS) for side in (0, 1)]
    latents = from_scipy(vstack([world.chosen, world.rejected], format="csr")[order])
    head, count = np.asarray(world.head, dtype=np.float32), len(order)
    return ScoredRows(
        rows,
        Scored(
            rewards=latents.dot(head), latents=latents, head=head, truncated=np.zeros(count, np.int64),
            ended=np.ones(count, bool), lengths=np.ones(count, np.int64), fingerprint="head-1",
        ),
    )  # fmt: skip


def test_shuffled_labels_move_answers_with_their_scores(pairs: ScoredRows) -> None:
    mixed = shuffled(pairs, 3)
    reward = dict(
        zip((text for row in pairs.rows for text in row.answers), pairs.scored.rewards, strict=True)
    )
    again = zip((text for row in mixed.rows for text in row.answers), mixed.scored.rewards, strict=True)
    assert all(reward[text] == value for text, value in again)
    swapped = sum(row.chosen[0].startswith("bad") for row in mixed.rows)
    # a fair coin: four standard errors
    assert abs(swapped - PROMPTS / 2) < 4 * np.sqrt(PROMPTS / 4)
    assert [row.chosen for row in shuffled(pairs, 3).rows] == [row.chosen for row in mixed.rows]
    assert [row.chosen for row in shuffled(pairs, 4).rows] != [row.chosen for row in mixed.rows]


@pytest.mark.long
def test_a_discovery_on_shuffled_labels_calls_nothing_that_harms_here(pairs: ScoredRows) -> None:
    assert {one.latent for one in controlled(discover(pairs))} == set(HARM)
    called = Counter(len(discover(shuffled(pairs, seed)).lists["harms"]) for seed in range(5))
    assert called[0] >= 4


@pytest.mark.long
def test_the_placebo_has_as_many_latents_of_each_kind_and_knows_nothing_of_the_labels(
    pairs: ScoredRows,
) -> None:
    found = chosen_controls(pairs, Discovered(), 0)
    placebo = chosen_controls(pairs, Discovered(labels="shuffled"), 0)
    head = pairs.scored.head
    assert found.about["controlled"] == [11, 12, 13] or set(found.about["controlled"]) == set(HARM)
    stand_ins = placebo.about["stand_ins"]
    assert sorted(np.sign(head[stand_ins])) == sorted(np.sign(head[list(HARM)]))
    # the sizes were chosen on shuffled pairs, for latents of their own
    assert set(placebo.controls.latents()) <= set(stand_ins)
    assert chosen_controls(pairs, Discovered(labels="shuffled"), 1).about["stand_ins"] != stand_ins
    assert placebo.controls.fingerprint == "head-1"


@pytest.mark.parametrize("asked", [{}, {"labels": "shuffled"}, {"latents": "random"}])
def test_every_choice_says_what_it_leaves_of_the_reward_of_good_answers(
    pairs: ScoredRows, asked: dict[str, Any]
) -> None:
    """A placebo that ruined the reward held every shortcut, and nothing in the study said so."""
    chosen = chosen_controls(pairs, Discovered(**asked), 0)
    good = pairs.scored.take(np.arange(0, len(pairs.scored), 2))
    left = good.rewards + edit_delta(good, chosen.controls.edits)
    unit = pairs.scored.rewards.astype(np.float64).std(ddof=1)
    for one in chosen.controls.penalties:
        assert isinstance(one.latent, int)
        left -= sds(one) * unit * one.fires(good.latents.columns([one.latent])[:, 0].astype(np.float64))
    assert chosen.about["good_correlation"] == pytest.approx(np.corrcoef(good.rewards, left)[0, 1])


def test_a_gentle_placebo_leaves_good_answers_their_reward_as_other_controls_do(pairs: ScoredRows) -> None:
    latents = group_by_prompt(pairs.rows, pairs.scored).latents

    def kept(controls: Controls) -> float:
        return present(good_correlation(latents, [*controls.edits, *controls.penalties]))

    # here the placebo changes good answers less than the controls do, so the controls are scaled
    strong, mild = (
        chosen_controls(pairs, asked, 0).controls for asked in (Discovered(), Discovered(labels="shuffled"))
    )
    assert kept(strong) < kept(mild)
    found, factor = as_gentle(latents, strong, mild)
    assert 0.01 < factor < 1.0
    assert kept(found) >= kept(mild)
    # the same latents, every size by one factor
    assert found.latents() == strong.latents()
    for one, whole in zip(found.penalties, strong.penalties, strict=True):
        assert (one.latent, one.tau) == (whole.latent, whole.tau)
        assert sds(one) == pytest.approx(factor * sds(whole), rel=1e-3)
    for edit, full in zip(found.edits, strong.edits, strict=True):
        top = max(side[:, [edit.latent]].max() for side in (latents.chosen, latents.rejected))
        if full.max is not None:
            assert edit.max == pytest.approx(full.max + (1 - factor) * (top - full.max), rel=1e-3)
        if full.add is not None:
            assert edit.add == pytest.approx(factor * full.add, rel=1e-3)
    assert as_gentle(latents, mild, strong) == (mild, 1.0)


@pytest.mark.long
def test_a_gentle_arm_says_its_factor(pairs: ScoredRows) -> None:
    found = chosen_controls(pairs, Discovered(labels="shuffled", as_gentle=True), 0)
    assert found.about["factor"] == 1.0
    assert found.controls == chosen_controls(pairs, Discovered(labels="shuffled"), 0).controls


def sds(penalty: Penalty) -> float:
    assert penalty.alpha is not None
    return present(in_sd(penalty.alpha, "alpha"))


def test_only_a_placebo_with_sizes_can_be_gentle(study_file: Path) -> None:
    text = study_file.read_text()
    for found, why in (
        ("{as_gentle: true}", "as_gentle is for placebos: set labels: shuffled or latents: random"),
        (
            "{as_gentle: true, labels: shuffled, target_rate: 0.1}",
            "as_gentle scales sizes, and target_rate has none: drop one of them",
        ),
    ):
        study_file.write_text(text.replace("  none: {}\n", f"  none: {{discover: {found}}}\n"))
        with pytest.raises(ConfigError, match=why):
            load_study(study_file)


def test_random_latents_are_none_of_the_called(pairs: ScoredRows) -> None:
    found = chosen_controls(pairs, Discovered(latents="random"), 0)
    assert not set(found.controls.latents()) & set(HARM)


def test_an_arm_may_keep_a_part_or_hold_a_rate(pairs: ScoredRows) -> None:
    whole = chosen_controls(pairs, Discovered(), 0).controls
    edits = chosen_controls(pairs, Discovered(keep="edits"), 0).controls
    rate = chosen_controls(pairs, Discovered(keep="penalties", target_rate=0.05), 0).controls
    assert (edits.edits, edits.penalties) == (whole.edits, ())
    assert [(one.latent, one.alpha, one.target_rate) for one in rate.penalties] == [
        (one.latent, None, 0.05) for one in whole.penalties
    ]


def test_a_run_is_stopped_where_its_kl_first_reaches_the_others() -> None:
    curve = [0.0, 0.2, 0.4, 0.9, 1.6, 2.0]
    assert step_of_kl(curve, 0.0) == 1
    # means of up to three steps: 0, .1, .2, .5, .967, 1.5
    assert step_of_kl(curve, 0.5) == 4
    assert step_of_kl(curve, 0.6) == 5
    assert step_of_kl(curve, 9.0) == 6


def test_texts_are_stripped_and_their_word_pairs_counted() -> None:
    assert strip("Mix it. Let me know!", (("Let me know.*", ""),)) == "Mix it."
    assert strip("- a\n- b", ((r"(?m)^- ", ""), (r"\n", " "))) == "a b"
    assert distinct_pairs("a b a b") == pytest.approx(2 / 3)
    assert distinct_pairs("a") == distinct_pairs("") == 1.0


def test_answers_to_one_prompt_count_once() -> None:
    rows = [
        {"policy": "end", "prompt": 0, "reward": 1.0},
        {"policy": "end", "prompt": 0, "reward": 3.0},
        {"policy": "end", "prompt": 1, "reward": 5.0},
        {"policy": "end", "prompt": 1, "reward": 5.0},
        {"policy": "start", "prompt": 0, "reward": 0.0},
        {"policy": "start", "prompt": 1, "reward": 2.0},
    ]
    found = CellAnswers(rows)
    values = found.by_prompt("reward", "end")
    assert values is not None
    assert values.tolist() == [2.0, 5.0]
    assert found.by_prompt("kl", "end") is None
    assert found.sd_at_start("reward") == pytest.approx(np.sqrt(2))
    assert found.means() == {"reward": {"start": 1.0, "end": 3.5}}


def test_a_held_arm_gets_the_others_kl_as_its_target(tmp_path: Path, asked: dict[str, Any]) -> None:
    study = StudyConfig.model_validate({**asked, "arms": {**asked["arms"], "held": {"hold_kl_of": "edited"}}})
    cell = Cell("tiny", "held", 1)
    with pytest.raises(TrainingError, match="has no steps, so there is no KL to match"):
        run_config(tmp_path, study, cell)
    other = Cell("tiny", "edited", 1).run(tmp_path)
    other.mkdir(parents=True)
    rows = [f'{{"step": {step}, "objective/kl": {kl}}}\n' for step, kl in enumerate((0.1, 0.5, 1.0, 1.5), 1)]
    (other / "metrics.jsonl").write_text("".join(rows))
    config = run_config(tmp_path, study, cell)
    assert config.training.seed == 1
    assert config.training.kl_target == pytest.approx(1.0)


ARMS: dict[str, Any] = {
    "none": {},
    "edited": {"set": {"reward": {"edits": ["3:max=0.5"]}}},
    "ruled": {"rule_penalty": "1sd"},
    "of chance": {"set": {"reward": {"edits": ["3:max=0.5"]}}, "role": "placebo"},
    "found": {"discover": {"audit": "pairs"}},
    "shuffled": {"discover": {"audit": "pairs", "labels": "shuffled"}},
    "random": {"discover": {"audit": "pairs", "latents": "random"}},
    "other": {"discover": {"audit": "pairs"}, "role": "placebo"},
    "stopped": {"stop_at_kl_of": "edited"},
}


def study_of(asked: dict[str, Any], tmp_path: Path, arms: dict[str, Any]) -> StudyConfig:
    worlds = {"tiny": {**asked["worlds"]["tiny"], "audits": {"pairs": [str(tmp_path / "pairs.jsonl")]}}}
    return StudyConfig.model_validate({**asked, "compare": [], "worlds": worlds, "arms": arms})


def write_chosen(folder: Path, edits: str) -> None:
    """Controls as a discovery would have written them, for the arms of `ARMS` that discover."""
    (folder / "controls" / "tiny").mkdir(parents=True, exist_ok=True)
    for name in ("found", "shuffled-seed-0", "random-seed-0", "other"):
        (folder / "controls" / "tiny" / f"{name}.yaml").write_text(f"reward:\n  edits: {edits}\n")


def roles(folder: Path, study: StudyConfig) -> dict[str, str]:
    """What the manifest of each arm's run would say."""
    found: dict[str, str] = {}
    for name in study.arms:
        cell = Cell("tiny", name, 0)
        config = run_config(folder, study, cell)
        given = role_of_cell(study, cell, config)
        found[name] = settled_role(given, controls=config.reward.has_controls)
    return found


def with_curves(folder: Path) -> Path:
    """The runs that an arm stopped early is matched with."""
    for arm in ("none", "edited"):
        run = Cell("tiny", arm, 0).run(folder)
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text('{"step": 1, "objective/kl": 0.5}\n')
    return folder


def test_the_arms_of_a_study_say_what_they_are(tmp_path: Path, asked: dict[str, Any]) -> None:
    study = study_of(asked, tmp_path, ARMS)
    check_settings(study)
    write_chosen(with_curves(tmp_path), "['4=0']")
    assert roles(tmp_path, study) == {
        "none": "no control",
        "edited": "controlled",
        "ruled": "controlled",
        "of chance": "placebo",
        "found": "controlled",
        "shuffled": "placebo",
        "random": "placebo",
        "other": "placebo",
        "stopped": "no control",
    }


def test_an_arm_whose_discovery_calls_nothing_is_one_without_control(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    write_chosen(with_curves(tmp_path), "[]")
    found = roles(tmp_path, study_of(asked, tmp_path, ARMS))
    assert {found[name] for name in ("found", "shuffled", "random", "other")} == {"no control"}


def test_a_role_that_an_arms_controls_belie_is_told_before_anything_runs(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    study = study_of(asked, tmp_path, {"none": {"role": "placebo"}})
    with pytest.raises(ConfigError, match="arm none: the role is to be placebo, but the run has no edits"):
        check_settings(study)


def test_a_role_that_there_is_not_names_those_that_there_are(study_file: Path) -> None:
    study_file.write_text(study_file.read_text().replace("  none: {}\n", "  none: {role: fake}\n"))
    with pytest.raises(ConfigError) as refused:
        load_study(study_file)
    assert re.fullmatch(
        rf"{re.escape(str(study_file))}:\d+: arms\.none\.role: "
        "Input should be 'no control', 'controlled' or 'placebo'",
        str(refused.value),
    )
