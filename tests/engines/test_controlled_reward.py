"""The reward of engines: equal to the library's parts (oracle), changed by learning alone (metamorphic),
opened from files; bad input is refused with the reason."""

from pathlib import Path

import numpy as np
import pytest

from sarm_control import Controls, Edit, HumanKL, Penalty, RewardModel
from sarm_control.control.edits.edit_files import save_edits
from sarm_control.control.edits.edits import edit_delta
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.data.rows import read_rows
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.engines.reward.open_reward import ControlFiles, open_reward
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.latents.human import HumanBuffer
from sarm_control.latents.rows import score_rows
from sarm_control.reward_model.scored import Scored


@pytest.fixture(scope="module", params=["lab", "lab:attached"])
def model(request: pytest.FixtureRequest) -> RewardModel:
    return RewardModel.from_pretrained(request.param, device="cpu")


@pytest.fixture(scope="module")
def human(model: RewardModel) -> Scored:
    return score_rows(model, read_rows(Path("lab:human"), want={"answer"})[:200])


@pytest.fixture(scope="module")
def answers(model: RewardModel) -> Scored:
    scored = score_rows(model, read_rows(Path("lab:demonstrations"), want={"answer"})[:64])
    ended = np.arange(64) % 8 != 0
    return Scored(**{**vars(scored), "ended": ended})


def busiest(scored: Scored, count: int) -> list[int]:
    """Latents that fire on about half of the answers, so that controls have something to act on."""
    rates = np.zeros(scored.latents.size)
    np.add.at(rates, scored.latents.indices[scored.latents.values > 0], 1 / len(scored))
    return [int(latent) for latent in np.argsort(np.abs(rates - 0.5), kind="stable")[:count]]


def test_every_part_is_the_libraries_own(model: RewardModel, human: Scored, answers: Scored) -> None:
    capped, penalised = busiest(human, 2)
    controls = Controls(
        edits=[Edit(capped, scale=0.5)], penalties=[Penalty(penalised, tau=0.0, alpha="0.5sd")]
    )
    reference = ReferenceStatistics.from_scored(human)
    reward = ControlledReward(model, controls, missing_end="2sd", reference=reference)
    breakdown = reward.breakdown(answers)
    z = answers.latents.columns([penalised])[:, 0]
    edits = edit_delta(answers, controls.edits)
    amount = 0.5 * reference.sd * (z > 0)
    missing = np.where(answers.ended, 0.0, -2 * reference.sd)
    total = answers.rewards.astype(float) + edits - amount + missing
    assert np.abs(edits).max() > 0
    assert amount.max() > 0
    np.testing.assert_allclose(reward.values(breakdown), total, atol=1e-12)
    assert set(breakdown.columns) == set(reward.terms)
    parts = [column for name, column in breakdown.columns.items() if name != "reward/total"]
    np.testing.assert_allclose(sum(parts), total, atol=1e-12)


def test_standardised_values_are_in_sds_of_the_reference(
    model: RewardModel, human: Scored, answers: Scored
) -> None:
    reference = ReferenceStatistics.from_scored(human)
    plain = ControlledReward(model, reference=reference)
    scaled = ControlledReward(model, reference=reference, standardize=True)
    expected = (plain.values(plain.breakdown(answers)) - reference.mean) / reference.sd
    np.testing.assert_allclose(scaled.values(scaled.breakdown(answers)), expected, atol=1e-12)


@pytest.mark.long
def test_the_parts_sum_to_a_total_that_is_bounded(
    model: RewardModel, answers: Scored, tmp_path: Path
) -> None:
    file = tmp_path / "controls.yaml"
    file.write_text('reward:\n  shaping: par\n  edits: ["3:max=0.5"]\n')
    reward = open_reward(model, ControlFiles(controls=file, reference=Path("lab:human")))
    assert reward.shaping == "par"
    breakdown = reward.breakdown(answers)
    assert set(breakdown.columns) == set(reward.terms)
    parts = sum(breakdown.columns[name] for name in reward.terms if name != "reward/total")
    np.testing.assert_allclose(parts, reward.values(breakdown), atol=1e-12)
    assert np.ptp(breakdown.columns["reward/shaping"]) > 0


def test_paying_changes_nothing_and_learning_does(model: RewardModel, human: Scored, answers: Scored) -> None:
    controls = Controls(human_kl=HumanKL(beta=0.1))
    reward = ControlledReward(model, controls, human=HumanBuffer.from_scored(human))
    first = reward.values(reward.breakdown(answers))
    np.testing.assert_array_equal(reward.values(reward.breakdown(answers)), first)
    reward.learn(answers)
    learnt = reward.values(reward.breakdown(answers))
    assert np.abs(learnt - first).max() > 1e-3
    other = ControlledReward(model, controls, human=HumanBuffer.from_scored(human))
    other.load_state_dict(reward.state_dict())
    assert other.learnt_batches == 1
    np.testing.assert_array_equal(other.values(other.breakdown(answers)), learnt)
    many = Scored.concatenate([answers] * (len(human) // len(answers) + 1))
    with pytest.raises(DataError, match=f"has {len(human)} demonstrations, a step has {len(many)} answers"):
        other.learn(many)


@pytest.mark.long
def test_a_file_of_controls_with_reference_answers(model: RewardModel, tmp_path: Path) -> None:
    file = tmp_path / "controls.yaml"
    file.write_text("reward:\n  penalties:\n    - 9:tau=q0.5,alpha=1sd\n")
    reward = open_reward(model, ControlFiles(controls=file, reference=Path("lab:human")))
    human = score_rows(model, read_rows(Path("lab:human"), want={"answer"}))
    by_hand = Controls(penalties=[Penalty(9, tau="q0.5", alpha="1sd")]).resolve(
        ReferenceStatistics.from_scored(human, [9])
    )
    assert reward.controls == by_hand
    # with reference answers the default of a run holds: an answer that did not end loses an SD
    assert reward.rule.missing_end == pytest.approx(ReferenceStatistics.from_scored(human).sd)


def test_a_file_of_saved_edits_is_a_file_of_controls_for_its_own_head(
    model: RewardModel, tmp_path: Path
) -> None:
    edits, answer = [Edit(4, set=0), Edit(5, max=1)], ("how do i bake a cake ?", "first mix the flour .")
    for head in (model.fingerprint, "0123456789abcdef"):
        save_edits(tmp_path / f"{head}.json", edits, fingerprint=head, model="lab")
    reward = open_reward(model, ControlFiles(controls=tmp_path / f"{model.fingerprint}.json"))
    assert reward.controls == Controls(edits=edits, fingerprint=model.fingerprint)
    scored = model.score(*answer)
    values = reward.values(reward.breakdown(scored))
    np.testing.assert_allclose(values, scored.rewards + edit_delta(scored, edits), atol=1e-6)
    with pytest.raises(ModelError, match="0123456789abcdef"):
        open_reward(model, ControlFiles(controls=tmp_path / "0123456789abcdef.json"))


def test_amounts_in_sds_ask_for_reference_answers(model: RewardModel, tmp_path: Path) -> None:
    file = tmp_path / "controls.yaml"
    file.write_text("reward:\n  penalties:\n    - 9:tau=1,alpha=1sd\n")
    with pytest.raises(ConfigError, match="penalty on latent 9 is given in SDs or quantiles"):
        open_reward(model, ControlFiles(controls=file))
    with pytest.raises(ConfigError, match="standardised rewards: that needs answers of the reference"):
        open_reward(model, standardize=True)


def test_statistics_of_another_head_are_refused(model: RewardModel, tiny_sarm: RewardModel) -> None:
    scored = tiny_sarm.score(["a", "b", "c"], ["x", "y", "z"])
    with pytest.raises(ModelError, match="reference statistics of head"):
        ControlledReward(model, reference=ReferenceStatistics.from_scored(scored))


def test_a_human_kl_term_asks_for_demonstrations(model: RewardModel) -> None:
    with pytest.raises(ConfigError, match="human_kl needs human demonstrations"):
        ControlledReward(model, Controls(human_kl=HumanKL(beta=0.1)))
