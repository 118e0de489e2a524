"""Words, examples and names of latents: formulas by hand, planted words, matched answers, halves."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from scipy.sparse import csr_array

from sarm_control.data.rows import Row
from sarm_control.discovery.labels.autointerp import name_latent
from sarm_control.discovery.labels.distinctive_words import PRIOR, Word, n_grams, separating_words
from sarm_control.discovery.labels.examples import AnswerCorpus, LabelExample, LabelExamples
from sarm_control.discovery.labels.labels import Label, label_from, labels_text
from sarm_control.latents.rows import ScoredRows
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import from_scipy
from tests.present import present


def test_oracle_n_grams_of_a_sentence() -> None:
    assert list(n_grams("I can't, no")) == ["i", "i can't", "can't", "can't , no", "no"]


def test_oracle_log_odds_by_hand() -> None:
    active, inactive = ["sorry"] * 30 + ["sure"] * 10, ["sorry"] * 5 + ["sure"] * 35
    (word,) = separating_words(active, inactive)
    # 35 of all 80 mentions are "sorry"; 40 mentions on each side
    prior = PRIOR * 35 / 80
    odds = [math.log((y + prior) / (40 + PRIOR - y - prior)) for y in (30, 5)]
    expected = (odds[0] - odds[1]) / math.sqrt(1 / (30 + prior) + 1 / (5 + prior))
    assert (word.text, word.active, word.inactive) == ("sorry", 0.75, 0.125)
    assert word.z == pytest.approx(expected)


def test_planted_words_come_first_and_words_of_both_sides_do_not_come() -> None:
    generator = np.random.default_rng(0)
    common = [f"word{n}" for n in range(60)]

    def answer(extra: str) -> str:
        return " ".join([*generator.choice(common, 12), extra, *generator.choice(common, 5)])

    active = [answer("i must decline" if generator.random() < 0.8 else "") for _ in range(120)]
    inactive = [answer("i must decline" if generator.random() < 0.1 else "") for _ in range(120)]
    words = separating_words(active, inactive)
    assert words[0].text == "i must decline"
    assert words[0].active == pytest.approx(0.8, abs=0.1)
    assert not any(" decline" in f" {one.text}" for one in words[1:])
    assert len(words) <= 4


def test_calibration_answers_of_one_kind_have_hardly_any_words() -> None:
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice([f"w{n}" for n in range(80)], 15)) for _ in range(400)]
    found = separating_words(texts[:200], texts[200:], top=100)
    assert len(found) <= 0.025 * 80 * 3


def test_a_word_that_stands_often_in_one_answer_counts_once() -> None:
    assert separating_words(["yes " * 50, "no", "no"], ["no", "no", "no"]) == ()


def corpus(
    z: Sequence[float], prompts: list[str] | None = None, lengths: list[int] | None = None
) -> AnswerCorpus:
    count = len(z)
    prompts = prompts or [f"prompt {n}" for n in range(count)]
    rows = [Row(Path("a.jsonl"), n, {}, "answer", prompts[n], response=f"answer {n}") for n in range(count)]
    latents = from_scipy(csr_array(np.array(z, dtype=float)[:, None]))
    sizes = np.array(lengths or [5] * count, dtype=np.int64)
    scored = Scored(
        latents.dot(np.ones(1, np.float32)), latents, np.ones(1, np.float32), np.zeros(count, np.int64),
        np.ones(count, bool), sizes, "head-1",
    )  # fmt: skip
    return AnswerCorpus(ScoredRows(rows, scored))


def test_an_answer_in_which_the_latent_survived_topk_is_active_whatever_its_sign() -> None:
    """As in discovery: -1 and a stored 0 are active, what is not stored is not."""
    found = corpus([2, -1, 0, 0]).examples(0)
    assert ([one.z for one in found.active], found.rate) == ([2.0, -1.0], 0.5)
    entries = (np.array([2.0, 0.0]), np.array([0, 0]), np.array([0, 1, 2, 2]))
    stored = from_scipy(csr_array(entries, shape=(3, 1)))
    np.testing.assert_array_equal(stored.active([0])[:, 0], [True, True, False])


def test_an_active_answer_is_matched_to_its_own_prompt_before_any_other_and_then_by_length() -> None:
    found = corpus(
        [3, 0, 0, 2, 0, 0], prompts=["p", "q", "p", "r", "q", "q"], lengths=[5, 5, 90, 40, 38, 6]
    ).examples(0)
    assert [(one.answer, one.z) for one in found.active] == [("answer 0", 3.0), ("answer 3", 2.0)]
    # the same prompt although its length is far off, then the nearest length
    assert [one.answer for one in found.matched] == ["answer 2", "answer 4"]
    assert found.rate == pytest.approx(2 / 6)


def test_no_answer_is_matched_twice_and_the_rest_go_without() -> None:
    found = corpus([1, 2, 3, 0, 0]).examples(0)
    assert len(found.active) == 3
    assert len({one.answer for one in found.matched}) == len(found.matched) == 2


def test_repeated_answers_are_read_once() -> None:
    rows = [Row(Path("a.jsonl"), n, {}, "answer", "p", response="same") for n in range(3)]
    data = corpus([1, 1, 1], prompts=["p"] * 3)
    latents = from_scipy(csr_array(np.ones((3, 1))))
    scored = Scored(
        np.ones(3, np.float32), latents, np.ones(1, np.float32), np.zeros(3, np.int64), np.ones(3, bool),
        np.ones(3, np.int64), "head-1",
    )  # fmt: skip
    assert len(AnswerCorpus(ScoredRows(rows, scored))) == 1
    assert len(data) == 3


def test_a_label_shows_the_highest_answers_and_random_others() -> None:
    found = corpus([0.1 * n for n in range(1, 31)] + [0.0] * 30).examples(0)
    label = label_from(found, 7, "paid-for-bad", shown=4)
    assert [one.answer for one in label.top] == [f"answer {n}" for n in (29, 28, 27, 26)]
    assert len(label.random) == 4
    assert not {one.answer for one in label.top} & {one.answer for one in label.random}
    assert label == label_from(found, 7, "paid-for-bad", shown=4)


LABEL = Label(7, "paid-for-bad", 0.5, (), (), ())


def examples(count: int = 60) -> LabelExamples:
    active = [LabelExample(f"prompt {n}", f"sorry {n} i must decline", 1.0) for n in range(count)]
    matched = [
        LabelExample(f"prompt {n}", f"sure {n} {'i must' if n % 2 else ''}", 0.0) for n in range(count)
    ]
    return LabelExamples(0.5, tuple(active), tuple(matched))


def test_a_name_is_tested_on_prompts_it_was_not_given_for_against_hard_negatives() -> None:
    asked = []

    def oracle(question: str) -> str:
        asked.append(question)
        if question.startswith("Feature:"):
            return "Yes." if "sorry" in question.split("Answer:")[1] else "no"
        return '"declines politely"\nbecause of the word'

    name = present(name_latent(examples(), [Word("i must", 3.0, 1.0, 0.5)], oracle))
    assert name[:2] == ("declines politely", 1.0)
    # 11 of 12 on each side, the added ones included
    half = 1.96 * math.sqrt(2 * (11 / 12) * (1 / 12) / 12) / 2
    assert name.low == pytest.approx(11 / 12 - half)
    assert name.high == 1.0
    assert (name.active, name.matched, name.unread) == (10, 10, 0)
    first, *tests = asked
    assert all(question.startswith("Feature: declines politely") for question in tests)
    tested = [question.split("Answer:\n")[1].split("\n")[0] for question in tests]
    assert not any(text in first for text in tested)
    assert all("i must" in text for text in tested)


def test_a_model_that_always_agrees_or_babbles_scores_chance_or_less() -> None:
    always = present(name_latent(examples(), [], lambda _: "yes"))
    assert always.balanced_accuracy == 0.5
    assert always.low < 0.5 < always.high
    said = labels_text([replace(LABEL, name=always)], asked=True)
    assert "yes (no better than chance: balanced accuracy 0.50 [" in said
    babble = present(name_latent(examples(), [], lambda _: "the the"))
    assert (babble.balanced_accuracy, babble.unread) == (0.0, 20)


def test_too_few_answers_get_no_name_and_ask_nobody() -> None:
    def nobody(question: str) -> NoReturn:
        raise AssertionError(question)

    assert name_latent(examples(2), [], nobody) is None
    assert "none: too few answers" in labels_text([LABEL], asked=True)
    assert "name" not in labels_text([LABEL])
