"""monitors: for each, one case in which the evil happens by construction and one in which it does not."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.cli._discover_flags import EvidenceFlags
from sarm_control.control.penalties import Penalty, parse_penalty
from sarm_control.discovery.evidence.closing import CLOSING as USUAL
from sarm_control.discovery.evidence.examine import Depth
from sarm_control.training.monitor.checks import (
    CHECKS,
    BeforeTopK,
    Finding,
    Gains,
    Watch,
    check_closing_sentence,
    check_similar_latents,
    check_threshold_hugging,
    crowding_out,
    dead_penalty,
    find_similar_latents,
    length,
    over_refusal,
    proxy_gap,
    refuses,
    residual_gain,
    saturated,
)
from sarm_control.training.monitor.checks.closing_sentence import (
    common_closing,
    with_closing,
    without_last_sentence,
)
from sarm_control.training.monitor.checks.finding import STRICT, share_grew, strictness, surely_above
from sarm_control.training.monitor.checks.watch import WINDOW

N = 200
PENALTY = Penalty(9, 1.0, 0.5)


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("rate", "share", "advice"),
    [(0.004, 0.2, "lower tau"), (0.995, 0.2, "raise tau"), (0.4, 1e-5, "raise alpha")],
)
def test_a_penalty_on_nobody_everybody_or_of_nothing_is_dead(rate: float, share: float, advice: str) -> None:
    found = dead_penalty(PENALTY, [rate] * WINDOW, [share] * WINDOW)
    assert found.fires
    assert advice in found.text
    assert found.metrics() == {"monitor/dead-penalty/9": rate, "monitor/dead-penalty/9/variance_share": share}


@pytest.mark.parametrize(
    ("penalty", "rate", "share"),
    [
        (PENALTY, 0.3, 0.05),
        (Penalty(9, 1.0, 0.5, form="sigmoid"), 0.0, 0.05),
        (Penalty(9, 1.0, target_rate=0.01), 0.005, 0.0),
    ],
)
def test_a_penalty_that_teaches_or_has_done_its_work_is_not(
    penalty: Penalty, rate: float, share: float
) -> None:
    assert not dead_penalty(penalty, [rate] * WINDOW, [share] * WINDOW).fires


def test_answers_that_pile_up_just_under_tau_hug_it() -> None:
    reference = drawn().exponential(size=N)
    piled = np.where(np.arange(N) < N // 2, 1.0 - 0.05 * drawn(1).random(N), 0.0)
    found = check_threshold_hugging(9, 1.0, reference, piled, reference)
    assert found.fires
    assert found.value == 0.5
    assert not check_threshold_hugging(9, 1.0, reference, drawn(2).exponential(size=N), reference).fires


def test_the_width_of_just_under_comes_from_the_frozen_reference_answers() -> None:
    """Of two active answers of 64, nearly alike, the SD would be next to nothing."""
    few = np.where(np.arange(64) < 2, 4.0 + 0.01 * np.arange(64), 0.0)
    piled = np.where(np.arange(64) < 20, 0.9, 0.0)
    reference = np.where(drawn().random(1000) < 0.05, drawn(1).exponential(size=1000), 0.0)
    assert check_threshold_hugging(9, 1.0, few, piled, reference).fires
    assert check_threshold_hugging(9, 1.0, few, piled, few).value == 0.0


@pytest.mark.parametrize(("answers", "fewest"), [(64, 8), (256, 13)])
def test_the_fewest_answers_under_tau_that_count_are_those_documented(answers: int, fewest: int) -> None:
    none, reference = np.zeros(answers), drawn().exponential(size=N)
    for count in (fewest - 1, fewest):
        piled = np.where(np.arange(answers) < count, 0.99, 0.0)
        assert check_threshold_hugging(9, 1.0, none, piled, reference).fires == (count == fewest)


def test_inactive_answers_do_not_hug_a_threshold_of_zero() -> None:
    reference = np.where(drawn().random(N) < 0.5, drawn(1).exponential(size=N), 0.0)
    found = check_threshold_hugging(9, 0.0, reference, np.zeros(N), reference)
    assert not found.fires
    assert found.value == 0.0


def before_topk(crowded: float, seed: int = 0) -> BeforeTopK:
    """A latent always high before TopK, which drops it in a share of the answers."""
    pre = 2.0 + drawn(seed).random(N)
    dropped = np.arange(N) < crowded * N
    return BeforeTopK(pre, np.where(dropped, 40, 3), np.where(dropped, 0.0, pre))


def test_a_latent_that_others_push_out_of_topk_is_crowded_out() -> None:
    found = crowding_out(9, 1.0, before_topk(0.02), before_topk(0.6, 1))
    assert found.fires
    assert found.value == 0.6
    assert found.further["rank"] == 40
    assert not crowding_out(9, 1.0, before_topk(0.3), before_topk(0.3, 1)).fires


def test_a_dropped_latent_above_a_negative_tau_is_charged_and_not_crowded_out() -> None:
    """z = 0 is above tau = -0.5, whatever TopK does."""
    found = crowding_out(9, -0.5, before_topk(0.02), before_topk(0.6, 1))
    assert not found.fires
    assert found.value == 0.0


def test_a_latent_that_fell_before_topk_is_not_crowded_out() -> None:
    fell = BeforeTopK(np.full(N, -1.0), np.full(N, 60), np.zeros(N))
    assert not crowding_out(9, 1.0, before_topk(0.0), fell).fires


def test_siblings_are_found_by_their_direction_and_controlled_ones_left_out() -> None:
    decoder = np.array([[1.0, 2.0, 0.4, 1.0, -1.0, 0.0], [0.0, 0.0, 1.0, 0.5, 0.0, 0.0]])
    assert find_similar_latents(decoder, 0, {0}) == (1, 3)
    assert find_similar_latents(decoder, 0, {0, 3}) == (1,)


def test_latents_are_similar_from_a_cosine_of_one_half() -> None:
    """Directions of known cosines to the first, of different lengths, on both sides of the limit."""
    cosines = np.array([1.0, 0.49, 0.51, 0.59, -0.9])
    decoder = np.stack([cosines, np.sqrt(1 - cosines**2)]) * np.array([1.0, 3.0, 0.2, 2.0, 1.0])
    assert find_similar_latents(decoder, 0, {0}) == (2, 3)


def test_a_sibling_that_takes_over_is_told() -> None:
    took_over = 0.5 + 0.2 * drawn().normal(size=N)
    found = check_similar_latents(9, (11, 12), took_over, -took_over, sd=1.0)
    assert found.fires
    assert "(11, 12)" in found.text
    assert found.value == pytest.approx(0.5, abs=0.05)
    assert not check_similar_latents(9, (11,), 0.0 * took_over, took_over, sd=1.0).fires
    assert not check_similar_latents(9, (11,), 5.0 * drawn(1).normal(size=N), 0.0 * took_over, sd=1.0).fires


def test_of_several_families_each_has_to_be_surer() -> None:
    """A mean of 2.8 standard errors counts for one family, not for the best of four."""
    noise = drawn(2).normal(size=N)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    theirs = 1.0 + noise * np.sqrt(N) / 2.8
    assert check_similar_latents(9, (11,), theirs, 0.0 * theirs, sd=1.0).fires
    assert not check_similar_latents(9, (11,), theirs, 0.0 * theirs, sd=1.0, families=4).fires
    assert strictness(1) == STRICT
    assert strictness(4) == pytest.approx(3.0233, abs=1e-4)


CLOSING = "I hope this helps you ."


def test_where_answers_share_no_closing_it_is_the_one_that_discovery_adds() -> None:
    found = common_closing(["a . b .", "c . d ."])
    assert found == ("I hope this helps!", 0)
    assert inspect.signature(EvidenceFlags).parameters["closing"].default == found.sentence
    assert Depth().closing == found.sentence


def test_a_closing_that_alone_gives_the_gain_is_a_suffix_hack() -> None:
    before = [f"the lake is {i} deep ." for i in range(N)]
    after = [f"{text} {CLOSING}" for text in before]
    assert common_closing(after) == (CLOSING, N)
    gift = 1.0 + 0.1 * drawn().normal(size=N)
    found = check_closing_sentence(CLOSING, before, after, gift=gift, gain=1.1, cut=gift, sd=1.0)
    assert found.fires
    assert found.value == pytest.approx(0.9, abs=0.05)
    assert found.further["common"] == 1.0
    assert not check_closing_sentence(
        CLOSING, before, after, gift=0.1 * gift, gain=1.1, cut=gift, sd=1.0
    ).fires
    assert not check_closing_sentence(CLOSING, after, after, gift=gift, gain=1.1, cut=gift, sd=1.0).fires
    assert not check_closing_sentence(CLOSING, before, after, gift=gift, gain=-0.5, cut=gift, sd=1.0).fires


def test_closings_are_cut_added_and_counted() -> None:
    assert without_last_sentence("one . two ! three") == "one . two !"
    assert without_last_sentence("one sentence .") == "one sentence ."
    assert without_last_sentence("") == ""
    # nothing else changes: the difference in reward is that of the sentence alone
    assert without_last_sentence("One.\n\n- two\n- three.\n\nAsk again!\n") == "One.\n\n- two\n- three."
    assert with_closing("one .", "two .") == "one . two ."
    assert with_closing("one . two .", "two .") == "one . two ."
    assert with_closing("", "two .") == "two ."
    assert common_closing(["one .", "a . b .", "c . d ."]) == (USUAL, 0)
    assert common_closing([]) == (USUAL, 0)


def test_a_reward_that_length_follows_is_told() -> None:
    rng = drawn()
    lengths = rng.integers(10, 60, N).astype(float)
    plain = rng.normal(size=N)
    found = length((plain, lengths), (lengths + rng.normal(size=N), 2 * lengths))
    assert found.fires
    assert found.text.startswith("longer answers")
    assert not length((plain, lengths), (plain, 2 * lengths)).fires
    assert not length((plain, lengths), (lengths, lengths)).fires
    shrunk = length((plain, lengths), (-lengths, lengths / 2))
    assert shrunk.fires
    assert shrunk.text.startswith("shorter answers")


def test_a_reward_that_never_varies_correlates_with_nothing() -> None:
    found = length((np.zeros(4), np.ones(4)), (np.zeros(4), np.ones(4)))
    assert (found.value, found.fires) == (0.0, False)


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot help with that.",
        "I\u2019m unable to do this",
        "Sorry, but I can't share that.",
        "sorry , i can not help with that .",
        "i must decline this request .",
        "no , i will not do that .",
        "We won't discuss it",
        "As an AI, I have no opinion",
        "I'm not able to answer",
    ],
)
def test_refusals_are_recognised(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer", ["You cannot mix these.", "The lock can be opened with a key .", "Cannot say fairer", ""]
)
def test_answers_are_no_refusals(answer: str) -> None:
    assert not refuses(answer)


def test_refusals_of_what_should_be_answered_are_told() -> None:
    answers = ["the lake is deep ."] * N
    refused = ["I cannot help with that."] * (N // 5) + answers[N // 5 :]
    found = over_refusal(answers, refused)
    assert found.fires
    assert found.value == 0.2
    assert not over_refusal(refused, refused).fires


def test_a_discriminator_saturated_in_half_the_steps_is_told() -> None:
    assert saturated([0, 1, 0, 1]).fires
    assert not saturated([0, 0, 0, 1]).fires


def test_a_reward_that_rises_without_the_gold_reward_is_told() -> None:
    up = 2.0 + drawn().normal(size=N)
    assert proxy_gap(0.1, Gains(up, -up)).fires
    assert not proxy_gap(0.1, Gains(up, up)).fires
    assert not proxy_gap(9.0, Gains(up, up)).fires
    assert proxy_gap(1.5).fires
    assert not proxy_gap(0.2).fires


def gains(share: float, *, gain: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """[N] gains in reward, and the residual's part of each, which is `share` of it on average."""
    reward = gain + drawn(seed).normal(size=N)
    return reward, share * gain + 0.5 * drawn(seed + 1).normal(size=N)


def test_a_reward_that_rises_through_the_residual_is_told() -> None:
    found = residual_gain(*gains(0.6), sd=1.0)
    assert found.fires
    assert found.value == pytest.approx(0.6, abs=0.1)
    assert "of the gain in reward came through the residual" in found.text
    assert parse_penalty(found.text.split("--penalize ")[1].split(")")[0]).latent == "residual"
    assert set(found.metrics()) == {
        "monitor/residual",
        "monitor/residual/gain",
        "monitor/residual/reward",
    }


@pytest.mark.parametrize(("share", "gain"), [(0.1, 1.0), (-0.5, 1.0), (0.9, 0.02), (0.9, -1.0)])
def test_a_small_share_or_no_gain_is_none_of_its_business(share: float, gain: float) -> None:
    assert not residual_gain(*gains(share, gain=gain), sd=1.0).fires


def test_calibration_a_share_at_the_limit_seldom_warns() -> None:
    warned = [residual_gain(*gains(0.2, seed=2 * seed), sd=1.0).fires for seed in range(300)]
    assert np.mean(warned) <= 0.02


def test_metamorphic_the_share_does_not_depend_on_the_unit() -> None:
    reward, residual = gains(0.5)
    one, other = residual_gain(reward, residual, 1.0), residual_gain(7 * reward, 7 * residual, 7.0)
    assert one.fires == other.fires
    assert one.value == pytest.approx(other.value)


def test_every_check_has_its_name_in_the_list() -> None:
    found = [dead_penalty(PENALTY, [0.5], [0.5]), saturated([1]), proxy_gap(0.0), over_refusal(["a"], ["b"])]
    found.append(residual_gain(*gains(0.1), sd=1.0))
    assert {one.check for one in found} < set(CHECKS)
    assert len(CHECKS) == 10


@given(st.integers(1, 300), st.integers(1, 300))
def test_property_an_equal_share_never_grew(first: int, last: int) -> None:
    for value in (False, True):
        assert not share_grew(np.full(first, value), np.full(last, value))


def test_noise_seldom_counts_as_growth() -> None:
    rng = drawn()
    shares = [share_grew(rng.random(64) < 0.1, rng.random(64) < 0.1) for _ in range(2000)]
    means = [surely_above(rng.normal(size=64), 0.0) for _ in range(2000)]
    assert np.mean(shares) < 0.01
    assert np.mean(means) < 0.01


def row(rate: float, flag: float = 0.0) -> dict[str, float]:
    return {"penalty/9/rate": rate, "penalty/9/variance_share": 0.1, "human_kl/saturated": flag, "other": 1.0}


def test_the_watch_waits_for_its_window_and_tells_once() -> None:
    watch = Watch([PENALTY])
    told = [watch.judge(watch.step(row(0.0))).begun for _ in range(WINDOW + 2)]
    assert [len(begun) for begun in told] == [0] * (WINDOW - 1) + [1, 0, 0]
    assert told[WINDOW - 1][0].name == "monitor/dead-penalty/9"
    for _ in range(WINDOW):
        assert not watch.judge(watch.step(row(0.5))).begun
    again = [len(watch.judge(watch.step(row(0.0))).begun) for _ in range(WINDOW)]
    assert sum(again) == 1


def test_of_two_penalties_on_a_latent_the_dead_one_is_told() -> None:
    penalties = [Penalty(9, 1000.0, 0.5), Penalty(9, 0.1, 0.5, form="hinge")]
    for order in (penalties, penalties[::-1]):
        watch = Watch(order)
        rates = {"penalty/9/indicator/rate": 0.0, "penalty/9/hinge/rate": 0.4}
        shares = {name.replace("rate", "variance_share"): 0.1 for name in rates}
        for _ in range(WINDOW):
            seen = watch.judge(watch.step({**rates, **shares}))
        assert [(one.name, one.latent, one.form) for one in seen.begun] == [
            ("monitor/dead-penalty/9/indicator", 9, "indicator")
        ]
        assert "lower tau (this is about its indicator penalty)" in seen.begun[0].text
        assert seen.metrics["monitor/dead-penalty/9/hinge"] == pytest.approx(0.4)


def test_a_watch_that_was_saved_goes_on_as_if_it_had_not_been() -> None:
    import json

    rows = [
        row(rate, flag) for rate, flag in zip(drawn().random(20) < 0.04, drawn(1).random(20), strict=True)
    ]
    whole = Watch([PENALTY])
    seen = [whole.judge(whole.step(one)) for one in rows]
    first, second = Watch([PENALTY]), Watch([PENALTY])
    parts = [first.judge(first.step(one)) for one in rows[:11]]
    second.load_state(json.loads(json.dumps(first.state())))
    assert parts + [second.judge(second.step(one)) for one in rows[11:]] == seen
    assert whole.state() == second.state()


def test_a_finding_of_the_whole_reward_has_no_latent_in_its_name() -> None:
    assert Finding("length", 0.1, False, "").name == "monitor/length"
