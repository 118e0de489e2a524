"""Detection, planted truth, annotators, tokenizer and files of a world (oracle, property)."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from sarm_control.conversation import ChatTemplate
from sarm_control.errors import DataError, ModelError
from sarm_control.lab.datasets import Writer, answer_rows, audit_rows, panel_shares
from sarm_control.lab.judges.annotators import MEAN, PANEL, panel, prefers_first, utility
from sarm_control.lab.judges.detection import auroc, best_latent, detect
from sarm_control.lab.judges.truth import Truth, measure_truth
from sarm_control.lab.language.language import Language
from sarm_control.lab.language.tokenizer import END, make_tokenizer
from sarm_control.lab.world import World
from sarm_control.reward_model import RewardModel

LANGUAGE = Language.draw(0)


def area(present: np.ndarray, scores: np.ndarray) -> float:
    """AUROC as scipy's Mann-Whitney statistic."""
    on, off = np.asarray(scores)[present], np.asarray(scores)[~present]
    return float(mannwhitneyu(on, off).statistic) / (len(on) * len(off))


@given(scores=st.lists(st.integers(-3, 3), min_size=2, max_size=40), seed=st.integers(0, 2**16))
def test_oracle_auroc_is_the_mann_whitney_statistic(scores: list[int], seed: int) -> None:
    present = np.random.default_rng(seed).random(len(scores)) < 0.5
    found = auroc(np.array(scores, dtype=float), present)
    if present.all() or not present.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(area(present, np.array(scores, dtype=float)))
        assert auroc(np.array(scores) * 3.0 + 1, present) == pytest.approx(found)


def test_detect_chooses_on_one_half_and_judges_on_the_other() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(400) < 0.3
    latents = rng.normal(size=(400, 6))
    latents[:, 4] += 3.0 * present
    states = np.column_stack([latents[:, 4] + latents[:, 1], latents[:, 1], rng.normal(size=400)])
    found = detect(latents, states, present)
    assert found.latent == best_latent(latents[:200], present[:200]) == 4
    assert found.best_latent == pytest.approx(area(present[200:], latents[200:, 4]))
    assert found.probe > 0.9
    assert (found.positives, found.answers) == (present[200:].sum(), 200)


def test_metamorphic_detect_judges_both_answers_of_a_pair_alike() -> None:
    """Better answers come first: an attribute of these alone is chosen on and judged on all the same."""
    present = np.tile([True, False], 100)
    latents = np.column_stack([present * 1.0, np.zeros(200)])
    found = detect(latents, latents, present)
    assert (found.latent, found.best_latent, found.positives, found.answers) == (0, 1.0, 50, 100)


@given(seed=st.integers(0, 2**32 - 1))
def test_property_the_panels_mean_is_the_planted_bias(seed: int) -> None:
    tastes = panel(seed)
    assert len(tastes) == PANEL
    np.testing.assert_allclose(np.mean(tastes, axis=0), MEAN, atol=1e-12)


@pytest.mark.long
def test_oracle_a_label_is_drawn_from_the_annotators_log_odds() -> None:
    """10,000 labels of one annotator agree with his own probabilities."""
    writer, tastes = Writer(LANGUAGE, 0), panel(0)
    pairs = writer.gold_pairs(2000, "test", keep=False)
    gains = [
        utility(tastes[0], a.question, a.attributes) - utility(tastes[0], b.question, b.attributes)
        for a, b in pairs
    ]
    expected = prefers_first(tastes[:1], [(gain,) for gain in gains])
    np.testing.assert_allclose(expected, 1 / (1 + np.exp(-np.array(gains))))
    assert panel_shares(pairs, tastes).shape == (2000,)


def test_files_share_no_prompt_and_gold_pairs_are_ordered() -> None:
    writer = Writer(LANGUAGE, 0)
    files = [
        answer_rows(writer.demonstrations(200)),
        writer.preferences(200, panel(0)),
        [{"prompt": question.text} for question in writer.prompts(100, "prompts")],
        audit_rows(writer.gold_pairs(100, "audit")),
    ]
    prompts = [{row["prompt"] for row in rows} for rows in files]
    assert sum(map(len, prompts)) == len(set.union(*prompts))
    assert all(better.gold > worse.gold for better, worse in writer.gold_pairs(50, "more"))
    assert {row["annotator"] for row in files[1]} == {f"annotator-{who}" for who in range(PANEL)}


def test_metamorphic_the_same_seed_writes_the_same_rows() -> None:
    first, second = (Writer(LANGUAGE, 3).preferences(50, panel(3)) for _ in range(2))
    assert first == second
    assert Writer(LANGUAGE, 4).preferences(50, panel(3)) != first


def test_the_tokenizer_knows_every_word_and_ends_a_turn() -> None:
    template = ChatTemplate(make_tokenizer(LANGUAGE.vocabulary()))
    answer = f"{LANGUAGE.flattery[0]} {LANGUAGE.closings[1]}"
    encoded = template.encode("what is the color of the apple ?", answer)
    assert template.tokenizer.unk_token_id not in encoded.input_ids[encoded.prompt_length :]
    assert encoded.input_ids[-1] == template.end_of_turn_id == END
    assert template.decode_answer(encoded.input_ids[encoded.prompt_length :]) == answer


def test_oracle_truth_is_the_mean_contribution_of_each_latent(tiny_sarm: RewardModel, tmp_path: Path) -> None:
    pairs = Writer(LANGUAGE, 0).gold_pairs(40, "truth", keep=False)
    truth = measure_truth(tiny_sarm, pairs)
    sides = [
        tiny_sarm.score([p[side].question.text for p in pairs], [p[side].text for p in pairs])
        for side in (0, 1)
    ]
    z = [side.latents.to_scipy().toarray().astype(np.float64) for side in sides]
    contribution = tiny_sarm.head.weight.astype(np.float64) * (z[0] - z[1])
    np.testing.assert_allclose(truth.effect, contribution.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(truth.error, contribution.std(axis=0, ddof=1) / np.sqrt(40), atol=1e-7)
    margin = sides[0].rewards.astype(np.float64) - sides[1].rewards
    assert truth.effect.sum() == pytest.approx(margin.mean(), abs=1e-5)
    truth.save(tmp_path / "truth.json")
    again = Truth.load(tmp_path / "truth.json")
    np.testing.assert_array_equal(again.d_z, truth.d_z)
    assert (again.detects, again.harming) == (truth.detects, truth.harming)
    with pytest.raises(ModelError, match=f"planted truth is of head {tiny_sarm.fingerprint}, not of other"):
        truth.check("other")


@pytest.mark.parametrize("lacking", ["all", "none", "in one half"])
def test_bad_input_an_attribute_that_nothing_can_tell_is_named(lacking: str) -> None:
    present = np.zeros(20, dtype=bool)
    present[:] = lacking == "all"
    if lacking == "in one half":
        present[:10:2] = True
    latents, states = np.ones((20, 3)), np.ones((20, 2))
    count = {"all": 10, "none": 0, "in one half": 0}[lacking]
    with pytest.raises(DataError, match=f"^hedging: {count} of 10 answers have it") as refused:
        detect(latents, states, present, "hedging")
    assert refused.value.hint == "measure on more pairs"
    if lacking != "in one half":
        with pytest.raises(DataError, match=r"^junk: (0|20) of 20 answers have it"):
            best_latent(latents, present, "junk")


def test_bad_input_truth_without_some_attribute(tiny_sarm: RewardModel) -> None:
    pairs = Writer(LANGUAGE, 0).gold_pairs(2, "truth", keep=False)
    with pytest.raises(DataError, match=r"^\w+: [04] of 4 answers have it"):
        measure_truth(tiny_sarm, pairs)


NO_DESCRIPTION = {
    "[]": "it is no JSON object",
    '"sarm-lab-1"': "it is no JSON object",
    '{"format": "sarm-lab-1", "figures": {}}': "it lacks seed",
    '{"format": "sarm-lab-1", "seed": 0}': "it lacks figures",
    '{"format": "sarm-lab-1", "seed": "0", "figures": {}}': "seed is not a whole number",
    '{"format": "sarm-lab-1", "seed": true, "figures": {}}': "seed is not a whole number",
    '{"format": "sarm-lab-1", "seed": 0, "figures": []}': "figures is not an object",
}


@pytest.mark.parametrize("text", NO_DESCRIPTION)
def test_bad_input_a_world_whose_description_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text(text)
    with pytest.raises(DataError) as refused:
        World.open(tmp_path)
    where = tmp_path / "world.json"
    assert str(refused.value) == f"{where} is no description of a world: {NO_DESCRIPTION[text]}"
    assert refused.value.hint == "build it again with sarm lab build"


def test_bad_input_no_world_and_no_truth(tmp_path: Path) -> None:
    for text in (None, "{", b"\xff"):
        if text is not None:
            (tmp_path / "world.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match="holds no world") as refused:
            World.open(tmp_path)
        assert refused.value.hint == "make one with sarm lab build -o FOLDER"
    (tmp_path / "world.json").write_text(json.dumps({"format": "sarm-lab-0"}))
    with pytest.raises(DataError, match="format sarm-lab-0, this version reads sarm-lab-1") as refused:
        World.open(tmp_path)
    assert refused.value.hint == "build it again with sarm lab build"
    (tmp_path / "truth.json").write_text("[]")
    with pytest.raises(DataError, match="no table of planted truth"):
        Truth.load(tmp_path / "truth.json")
    world = World(tmp_path, 0, {})
    with pytest.raises(DataError, match="no prompt of this world: 'who are you"):
        world.gold(["who are you ?"], ["me"])
