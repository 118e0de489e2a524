"""Attributes of single answers as targets: their values, the units that tests flip, planted latents found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sarm_control.data.rows import Row
from sarm_control.discovery.discovery import DiscoverySettings, ScoredRows, discover
from sarm_control.discovery.pairs.targets import Target, group_by_target, parse_target, target_values
from sarm_control.discovery.permutation.label_tests import label_test
from sarm_control.errors import ConfigError, DataError
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import from_scipy
from sarm_control.statistics.multiplicity import benjamini_hochberg

REFUSAL, LONG = 4, 9
HEAD = np.linspace(-0.02, 0.03, 40, dtype=np.float32)


def answer(number: int, text: str, prompt: str | None = None, **raw: Any) -> Row:
    return Row(Path("a.jsonl"), number, raw, "answer", prompt or f"prompt {number}", response=text)


def candidates(number: int, *texts: str, **raw: Any) -> Row:
    return Row(Path("c.jsonl"), number, raw, "candidates", f"prompt {number}", candidates=texts)


def scored(rows: Sequence[Row], latents: NDArray[np.float64] | None = None) -> Scored:
    from scipy.sparse import csr_array

    texts = [text for row in rows for text in row.answers]
    dense = np.ones((len(texts), len(HEAD))) if latents is None else latents
    batch = from_scipy(csr_array(dense))
    lengths = np.array([len(text.split()) for text in texts], dtype=np.int64)
    flags = np.zeros(len(texts), np.int64), np.ones(len(texts), bool)
    return Scored(batch.dot(HEAD), batch, HEAD, *flags, lengths, "head-1")


def world(count: int, *, each: int = 1, seed: int = 0) -> ScoredRows:
    """Answers of which a third refuse; latent 4 fires on these, latent 9 grows with length."""
    generator = np.random.default_rng(seed)
    texts = [
        ("sorry no " if generator.random() < 0.3 else "sure ") + "word " * generator.integers(1, 30) + str(n)
        for n in range(count * each)
    ]
    latents = np.where(
        generator.random((len(texts), 40)) < 0.3, generator.exponential(1.0, (len(texts), 40)), 0
    )
    for n, text in enumerate(texts):
        latents[n, REFUSAL] = (1 + generator.random()) if text.startswith("sorry") else 0
        latents[n, LONG] = 0.1 * len(text.split()) + 0.2 * generator.random()
    groups = [texts[p * each : (p + 1) * each] for p in range(count)]
    rows = [answer(p, *own) if each == 1 else candidates(p, *own) for p, own in enumerate(groups)]
    return ScoredRows(rows, scored(rows, latents))


@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize(
    ("target", "latent"), [("regex:^sorry", REFUSAL), ("length", LONG), ("regex:(?i)^SORRY", REFUSAL)]
)
def test_the_latent_of_an_attribute_is_found_with_one_answer_a_prompt_and_with_several(
    target: str, latent: int, each: int
) -> None:
    found = discover(world(240, each=each), settings=DiscoverySettings(target=parse_target(target), sets=20))
    strongest = max(found.table.rows(), key=lambda row: abs(row["d_z"]))
    assert strongest["latent"] == latent
    assert strongest["q"] < 0.005
    assert strongest["auroc"] > 0.8
    called = [one.latent for items in found.lists.values() for one in items]
    assert latent in called
    assert len(called) <= 3


def test_metamorphic_less_of_it_turns_every_effect_round() -> None:
    data = world(120, each=3)
    more, less = (
        discover(data, settings=DiscoverySettings(target=parse_target("regex:^sorry", less=less), sets=20))
        for less in (False, True)
    )
    np.testing.assert_allclose(less.table["effect"], -more.table["effect"])
    assert [one.latent for one in less.lists["harms"]] == [one.latent for one in more.lists["promotes"]]


def test_a_prompt_is_split_at_the_middle_of_its_own_values() -> None:
    rows = [
        candidates(0, "a", "a b c", "a b", "a b c d e", "b"),
        candidates(1, "x", "y"),
        candidates(2, "x", "x y"),
    ]
    pairs = group_by_target(rows, scored(rows), Target("length"))
    assert pairs.keys == ("prompt 0", "prompt 2")
    # lengths 1, 3, 2, 5, 1: the middle is 3, and the answer of 3 is on neither side
    assert pairs.chosen.texts == ("a b c d e", "x y")
    assert pairs.rejected.texts == ("a", "a b", "b", "x")
    np.testing.assert_array_equal(pairs.chosen.numbers, [3, 8])


def test_single_answers_are_drawn_together_so_that_no_prompt_is_in_two_units() -> None:
    data = world(201)
    for target in (Target("length"), Target("regex", "^sorry")):
        pairs = group_by_target(data.rows, data.scored, target)
        prompts = [name for key in pairs.keys for name in key.split("\x1f")]
        assert len(prompts) == len(set(prompts)) == 2 * len(pairs)
        values = target_values(data.rows, data.scored, target)
        assert (values[pairs.chosen.numbers] > values[pairs.rejected.numbers]).all()
    refusals = int(values.sum())
    assert len(pairs) == min(refusals, 201 - refusals)


def unrelated(seed: int, pairs: int = 60) -> tuple[list[Row], Scored]:
    """Prompts of one answer with the attribute, of eight without; no latent has to do with it.

    Half of the latents fire in all of a prompt's answers or in none, half in any answer by itself.
    """
    generator = np.random.default_rng(seed)
    rows = [
        candidates(p, *(f"{p} {j}" for j in range(8 if p % 2 else 1)), kind=p % 2 == 0)
        for p in range(2 * pairs)
    ]
    sizes = [len(row.answers) for row in rows]
    of_prompt = np.repeat(generator.random((len(rows), 20)), sizes, axis=0) < 0.2
    of_answer = generator.random((sum(sizes), 20)) < 0.08
    return rows, scored(rows, np.concatenate([of_prompt, of_answer], axis=1).astype(float))


@pytest.mark.long
def test_calibration_an_attribute_of_prompts_with_unequal_numbers_of_answers_calls_no_latent() -> None:
    """Units of two prompts: flips of unequal means call latents in many data sets, redraws of answers too."""
    found = 0
    for seed in range(100):
        rows, scores = unrelated(seed)
        pairs = group_by_target(rows, scores, parse_target("column:kind"), seed=seed)
        assert len(pairs.chosen.texts) == len(pairs.rejected.texts) == len(pairs) == 60
        p = label_test(pairs.latents, np.arange(40), draws=2000, seed=seed)
        found += bool((benjamini_hochberg(p) <= 0.05).any())
    assert found <= stats.binom.isf(0.0005, 100, 0.05)


def test_the_answers_of_a_unit_do_not_depend_on_the_order_of_rows_and_answers() -> None:
    rows, scores = unrelated(0, pairs=5)
    turned = [candidates(int(row.prompt_key.split()[-1]), *row.answers[::-1], **row.raw) for row in rows]
    target = parse_target("column:kind")
    there = group_by_target(rows, scores, target)
    back = group_by_target(turned[::-1], scored(turned[::-1]), target)
    assert set(there.rejected.texts) == set(back.rejected.texts)
    other = group_by_target(rows, scores, target, seed=1)
    assert set(there.rejected.texts) != set(other.rejected.texts)


def test_the_units_do_not_depend_on_the_order_of_the_rows() -> None:
    rows, scores = world(60)
    order = np.random.default_rng(1).permutation(60)
    target = Target("regex", "^sorry")
    there = group_by_target(rows, scores, target)
    shuffled = group_by_target([rows[n] for n in order], scores.take(order), target)
    assert set(there.keys) == set(shuffled.keys)


def test_an_answer_that_several_rows_list_counts_once() -> None:
    rows = [candidates(0, "a", "b c", "a"), candidates(0, "b c", "d")]
    pairs = group_by_target(rows, scored(rows), Target("length"))
    assert (pairs.chosen.texts, pairs.rejected.texts) == (("b c",), ("a", "d"))


def test_columns_hold_one_value_for_the_row_or_one_for_each_answer() -> None:
    rows = [candidates(0, "a", "b", stars=[3, 1.5]), answer(1, "c", stars=2), answer(2, "d", stars=True)]
    np.testing.assert_array_equal(
        target_values(rows, scored(rows), parse_target("column:stars")), [3, 1.5, 2, 1]
    )
    less = target_values(rows, scored(rows), parse_target("column:stars", less=True))
    np.testing.assert_array_equal(less, [-3, -1.5, -2, -1])
    named = [answer(0, "a", style="formal"), answer(1, "b", style=True), answer(2, "c")]
    for value, expected in (("formal", [1, 0, 0]), ("true", [0, 1, 0])):
        target = parse_target(f"column:style={value}")
        np.testing.assert_array_equal(target_values(named, scored(named), target), expected)


def test_prompts_of_the_selection_are_dropped_from_a_confirmation_whose_units_are_two_prompts() -> None:
    first, second = world(80), world(200, seed=1)
    found = discover(first, second, DiscoverySettings(target=Target("length"), min_prompts=5, sets=20))
    assert found.shared == 80
    seen = {name for key in found.parts.selection.keys for name in key.split("\x1f")}
    later = {name for key in found.parts.confirmation.keys for name in key.split("\x1f")}
    assert len(later) > 100
    assert not seen & later


@pytest.mark.parametrize("text", ["size", "column", "column:", "regex:", "", "length:3"])
def test_a_target_nobody_can_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no attribute"):
        parse_target(text)


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--target regex:\(: missing \)"):
        parse_target("regex:(")
    rows = [answer(3, "a", stars="many")]
    with pytest.raises(DataError, match=r"a\.jsonl:3: stars is 'many', wants a number") as raised:
        target_values(rows, scored(rows), parse_target("column:stars"))
    assert "column:stars=VALUE" in str(raised.value.hint)
    rows = [candidates(4, "a", "b", stars=[1])]
    with pytest.raises(DataError, match=r"c\.jsonl:4: stars has 1 values for 2 answers"):
        target_values(rows, scored(rows), parse_target("column:stars"))
    rows = [answer(0, "a"), answer(1, "b")]
    with pytest.raises(DataError, match="no two answers differ in the target: answers with /x/ over others"):
        group_by_target(rows, scored(rows), parse_target("regex:x"))
