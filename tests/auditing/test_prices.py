"""Partial and causal prices against planted ones (oracle), and where nothing is there (property)."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from sarm_control.auditing.attributes.attribute import Attribute, Unit
from sarm_control.auditing.attributes.text_edits import TextEdit
from sarm_control.auditing.best_of_n import kl_bound, pressure
from sarm_control.auditing.causal_prices import (
    ScoredContrast,
    causal_prices,
    corrected,
    median_interval,
    price_from,
)
from sarm_control.auditing.finding import AttributeFinding
from sarm_control.auditing.partial_prices import PartialPrice, partial_prices
from sarm_control.auditing.table import AttributeTable, attribute_table, within_prompts
from sarm_control.data import Row
from sarm_control.embedded import LAB
from sarm_control.errors import DataError
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel

UNREAD: Any = None  # scores, where they play no part


def table_of(
    values: NDArray[Any], rewards: NDArray[Any], prompt: NDArray[np.int64], *, units: list[Unit] | None = None
) -> AttributeTable:
    """A table of made-up numbers; texts play no part."""
    every: list[Unit] = ["answer"] * values.shape[1]
    return AttributeTable(
        tuple(Attribute(f"a{i}", f"a{i}", lambda *_: 0.0, unit) for i, unit in enumerate(units or every)),
        values.astype(float),
        rewards.astype(float),
        prompt,
        np.full(len(rewards), "candidate"),
        tuple(f"p{i}" for i in range(prompt.max() + 1)),
        tuple("" for _ in rewards),
    )


def drawn(
    seed: int, *, prompts: int = 200, each: int = 4, price: tuple[float, float, float] = (0.8, 0.0, -0.5)
) -> AttributeTable:
    """Answers whose reward has planted prices, correlated errors, and an intercept for each prompt."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(prompts), each)
    values = (rng.random((len(prompt), 3)) < (0.3, 0.5, 0.4)).astype(float)
    values[:, 1] = np.where(
        rng.random(len(prompt)) < 0.6, values[:, 0], values[:, 1]
    )  # comes along with the first
    noise = rng.normal(size=len(prompt)) * (
        0.5 + values[:, 0]
    )  # larger where the attribute is: no equal variances
    rewards = 3.0 * rng.normal(size=prompts)[prompt] + values @ np.array(price) + noise
    return table_of(values, rewards, prompt)


def test_planted_prices_are_found_beside_each_other() -> None:
    table = drawn(0, prompts=2000)
    first, second, third = partial_prices(table)
    for one, truth in ((first, 0.8), (second, 0.0), (third, -0.5)):
        assert one.sd == pytest.approx(truth / table.reward_sd, abs=0.03)
        assert one.low < truth / table.reward_sd < one.high
    assert first.q < 1e-6
    assert third.q < 1e-6
    assert second.q > 0.01


def test_intervals_cover_and_false_alarms_are_rare() -> None:
    """300 data sets with unequal variances and correlated attributes: a null price is covered 95 in 100."""
    found = [partial_prices(drawn(seed, prompts=60))[1] for seed in range(300)]
    covered = np.mean([one.low <= 0.0 <= one.high for one in found])
    assert binom.cdf(covered * 300, 300, 0.95) > 0.001, covered
    assert np.mean([one.p < 0.05 for one in found]) < 0.10


@pytest.mark.long
def test_estimates_errors_and_p_are_those_of_statsmodels() -> None:
    """Least squares with an intercept for every prompt and errors clustered by prompt (oracle)."""
    import statsmodels.api as sm

    for seed, prompts, each in ((0, 200, 4), (1, 40, 2), (2, 60, 3)):
        table = drawn(seed, prompts=prompts, each=each)
        y = within_prompts(table.rewards / table.reward_sd, table.prompt)
        x = within_prompts(table.values, table.prompt)
        fit = sm.OLS(y, x, hasconst=True).fit(
            cov_type="cluster", cov_kwds={"groups": table.prompt, "use_correction": True}, use_t=True
        )
        for i, one in enumerate(partial_prices(table)):
            assert one.sd == pytest.approx(fit.params[i], rel=1e-9)
            assert (one.low, one.high) == pytest.approx(tuple(fit.conf_int(0.05)[i]), rel=1e-9)
            assert one.p == pytest.approx(fit.pvalues[i], rel=1e-6, abs=1e-12)


def test_a_reward_of_prompts_alone_has_no_partial_price() -> None:
    table = drawn(4)
    for one in partial_prices(replace(table, rewards=table.prompt.astype(float))):
        assert one.sd == pytest.approx(0.0, abs=1e-12)
        assert one.q > 0.05


def test_prices_do_not_depend_on_what_prompts_are_worth() -> None:
    table = drawn(1)
    moved = replace(
        table, rewards=table.rewards + np.random.default_rng(2).normal(size=200)[table.prompt] * 0.1
    )
    one, other = partial_prices(table), partial_prices(moved)
    for a, b in zip(one, other, strict=True):
        assert a.sd * table.reward_sd == pytest.approx(b.sd * moved.reward_sd, abs=1e-9)


def test_what_cannot_be_told_says_why() -> None:
    table = drawn(3)
    values = np.column_stack([table.values, table.values[:, 0], np.ones(800), np.arange(800) < 2])
    found = partial_prices(table_of(values, table.rewards, table.prompt))
    assert [one.why is None for one in found] == [False, True, True, False, False, False]
    assert "always comes with other attributes" in str(found[0].why)
    assert "always comes with" in str(found[3].why)
    assert "differs between no two answers" in str(found[4].why)
    assert "differs in 1 prompts; 10 or more are needed" in str(found[5].why)
    assert math.isnan(found[0].sd)


def test_data_without_two_answers_to_a_prompt_is_refused() -> None:
    table = table_of(np.ones((5, 1)), np.arange(5.0), np.arange(5))
    with pytest.raises(DataError, match="no prompt has two answers"):
        partial_prices(table)
    with pytest.raises(DataError, match="0 prompts have two or more answers; pressure needs 10"):
        pressure(table)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 20, 101])
def test_the_interval_of_a_median_covers_exactly_what_it_says(count: int) -> None:
    """Coverage between order statistics is a sum of binomial probabilities, whatever the distribution."""
    low, high = median_interval(np.arange(1.0, count + 1))
    if count < 6:
        assert (low, high) == (-math.inf, math.inf)
        return
    covered = sum(binom.pmf(k, count, 0.5) for k in range(int(low), int(high)))
    wider_is_needed = sum(binom.pmf(k, count, 0.5) for k in range(int(low) + 1, int(high) - 1))
    assert covered >= 0.95 > wider_is_needed


@pytest.fixture(scope="module")
def rm() -> RewardModel:
    return RewardModel.from_pretrained(LAB)


@pytest.mark.long
def test_where_nothing_is_paid_for_hardly_an_audit_has_a_headline() -> None:
    """500 audits of eleven attributes whose edits change rewards up and down alike, by skewed amounts too."""
    rng = np.random.default_rng(11)
    with_one = 0
    for _ in range(500):
        prices = []
        for number in range(11):
            prompts = int(rng.integers(20, 200))
            size = rng.gamma(0.5, 1.0, prompts) if number % 2 else np.abs(rng.normal(size=prompts))
            edit = TextEdit(f"a{number}", "made", lambda *_: None)
            made = ScoredContrast(edit, np.arange(prompts), (), UNREAD, UNREAD)
            prices.append(price_from(made, size * rng.choice([-1.0, 1.0], prompts)))
        found = [
            AttributeFinding(Attribute(one.attribute, "made", lambda *_: 0.0), {}, None, (one,))
            for one in corrected(prices)
        ]
        with_one += any(one.unwanted for one in found)
    assert binom.cdf(with_one, 500, 0.05) < 0.999, with_one


def finding(*changes: float, partial: float | None = None) -> AttributeFinding:
    """Of edits that change 30 prompts by about so much each."""
    rng = np.random.default_rng(13)
    prices = []
    for number, change in enumerate(changes):
        made = ScoredContrast(
            TextEdit("a", f"edit {number}", lambda *_: None), np.arange(30), (), UNREAD, UNREAD
        )
        prices.append(price_from(made, change + 0.05 * rng.normal(size=30)))
    told = (
        None if partial is None else PartialPrice("a", partial, partial - 0.1, partial + 0.1, 1e-9, 1e-9, 90)
    )
    return AttributeFinding(Attribute("a", "made", lambda *_: 0.0), {}, told, corrected(prices))


def test_only_changed_texts_say_that_style_is_paid_for() -> None:
    """A partial price holds whatever comes along: right answers are longer than broken ones."""
    alone = finding(partial=0.5)
    assert alone.sure
    assert not alone.unwanted
    assert alone.associated
    changed = finding(0.5, partial=0.5)
    assert changed.unwanted
    assert not changed.associated
    for none in (finding(0.0, partial=0.5), finding(partial=0.05), finding(partial=-0.5)):
        assert not none.unwanted
        assert not none.associated


def test_edits_that_contradict_each_other_give_no_price() -> None:
    """The first of them would be the headline by its order alone."""
    assert finding(0.5, 0.3, 0.0).unwanted
    torn = finding(0.5, -0.3)
    assert torn.contradicted
    assert not torn.sure
    assert not torn.unwanted


def test_the_sign_test_and_the_interval_of_the_median_agree() -> None:
    rng = np.random.default_rng(12)
    for _ in range(300):
        change = rng.normal(0.2, 1.0, int(rng.integers(6, 60)))
        made = ScoredContrast(
            TextEdit("a", "made", lambda *_: None), np.arange(len(change)), (), UNREAD, UNREAD
        )
        price = price_from(made, change)
        assert (price.low > 0 or price.high < 0) == (price.p <= 0.05)


def row(prompt: str, *answers: str) -> Row:
    from pathlib import Path

    return Row(Path("made.jsonl"), 1, {}, "candidates", prompt, candidates=answers)


def test_a_causal_price_is_the_change_of_the_reward_when_the_text_is_changed(rm: RewardModel) -> None:
    rows = [
        row(f"what is the size of the {thing} ?", f"the {thing} is big .", f"it is a {thing} . thank you .")
        for thing in ("garden", "house", "river", "table", "lamp", "boat", "tower")
    ]
    data = ScoredRows(rows, score_rows(rm, rows))
    praise = Attribute("praise", "praise", lambda _, answer: float("love" in answer))
    table = attribute_table(data, [praise])
    phrase = "i love how you think ."
    add = TextEdit("praise", "put before", lambda _, answer: (answer, f"{phrase} {answer}"))
    (price,) = causal_prices(rm, data, table, edits=[add])
    with_it = rm.score(
        [one.prompt for one in rows for _ in one.answers],
        [f"{phrase} {text}" for one in rows for text in one.answers],
    )
    change = (with_it.rewards.astype(float) - data.scored.rewards) / table.reward_sd
    means = change.reshape(7, 2).mean(axis=1)
    assert price.sd == pytest.approx(np.median(means), abs=1e-5)
    assert (price.n, price.answers) == (7, 14)
    assert price.rises == np.mean(means > 0)
    assert price.low == pytest.approx(means.min(), abs=1e-5)
    assert price.high == pytest.approx(means.max(), abs=1e-5)

    parts = {one.latent: one.sd for one in price.carriers}
    assert 1 <= len(parts) <= 5
    before, after = data.scored.latents.to_scipy().toarray(), with_it.latents.to_scipy().toarray()
    exact = ((after - before) * rm.head.weight).astype(float).mean(axis=0) / table.reward_sd
    assert exact.sum() == pytest.approx(change.mean(), abs=1e-5)
    assert list(parts) == np.argsort(-np.abs(exact), kind="stable")[: len(parts)].tolist()
    assert list(parts.values()) == pytest.approx(exact[list(parts)], abs=1e-6)

    cut_rows = [row(str(one.prompt), *(f"{phrase} {text}" for text in one.answers)) for one in rows]
    cut_data = ScoredRows(cut_rows, score_rows(rm, cut_rows))
    cut = TextEdit("praise", "cut off", lambda _, answer: (answer.removeprefix(f"{phrase} "), answer))
    (back,) = causal_prices(rm, cut_data, attribute_table(cut_data, [praise]), edits=[cut])
    sd = float(cut_data.scored.rewards.astype(float).std(ddof=1))
    assert back.sd * sd == pytest.approx(
        price.sd * table.reward_sd, abs=1e-5
    )  # taken away costs what added gives


def test_no_answer_to_change_is_no_price(rm: RewardModel) -> None:
    rows = [row("what is it ?", "a .", "b .")]
    data = ScoredRows(rows, score_rows(rm, rows))
    never = TextEdit("praise", "never", lambda *_: None)
    (price,) = causal_prices(rm, data, attribute_table(data, []), edits=[never])
    assert price.n == price.answers == 0
    assert math.isnan(price.sd)


def test_a_user_function_that_fails_names_the_row(rm: RewardModel) -> None:
    rows = [row("what is it ?", "a .")]
    data = ScoredRows(rows, score_rows(rm, rows))
    bad = Attribute("bad", "bad", lambda *_: 1 / 0)
    with pytest.raises(DataError, match=r"made\.jsonl:1: the attribute bad failed: ZeroDivisionError"):
        attribute_table(data, [bad])
    negative = Attribute("low", "low", lambda *_: -1.0)
    with pytest.raises(DataError, match=r"made\.jsonl:1: the attribute low gave -1\.0"):
        attribute_table(data, [negative])


def test_pressure_is_what_enumerating_every_set_gives() -> None:
    """Every set of n of m answers, one by one; ties share the win."""
    rng = np.random.default_rng(5)
    prompt = np.repeat(np.arange(12), 5)
    rewards = rng.integers(0, 4, 60).astype(float)  # many ties
    values = (rng.random((60, 2)) < 0.5).astype(float)
    found = pressure(table_of(values, rewards, prompt), n=[2, 3, 5])
    assert found.n == (1, 2, 3, 5)
    for at, n in enumerate(found.n):
        expected = []
        for p in range(12):
            own_reward, own = rewards[prompt == p], values[prompt == p]
            wins = []
            for some in itertools.combinations(range(5), n):
                best = [i for i in some if own_reward[i] == max(own_reward[j] for j in some)]
                wins.append(own[best].mean(axis=0))
            expected.append(np.mean(wins, axis=0))
        for i in range(2):
            assert found.curves[f"a{i}"][at].mean == pytest.approx(np.mean(expected, axis=0)[i], abs=1e-12)


def test_what_is_rewarded_rises_with_pressure_and_what_is_not_stays() -> None:
    rng = np.random.default_rng(6)
    prompt = np.repeat(np.arange(150), 8)
    values = (rng.random((1200, 2)) < 0.4).astype(float)
    rewards = values[:, 0] + rng.normal(size=1200)
    found = pressure(table_of(values, rewards, prompt))
    assert found.n == (1, 2, 4, 8)
    assert found.kl == tuple(kl_bound(n) for n in found.n)
    assert found.kl[0] == 0.0
    paid, free = found.rises
    assert paid.q < 1e-3
    assert paid.change.low > 0.15
    assert free.p > 0.01
    assert free.change.low < 0 < free.change.high
    assert [one.mean for one in found.reward] == sorted(one.mean for one in found.reward)


def test_a_size_that_too_few_prompts_have_is_refused() -> None:
    prompt = np.repeat(np.arange(20), 4)
    table = table_of(np.zeros((80, 1)), np.arange(80.0), prompt)
    with pytest.raises(DataError, match="0 prompts have 8 answers; 10 are needed"):
        pressure(table, n=[8])
