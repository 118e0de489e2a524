"""The self-check: a sound model passes, and each thing that moves leaderboards is named."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sarm_control.evaluation.benchmarks.self_check import SelfCheck, self_check
from sarm_control.reward_model import RewardModel
from tests.conftest import make_sarm, make_tokenizer
from tests.evaluation.benchmark_rows import parsed, reward_bench_rows
from tests.present import present

GOOD = SelfCheck(
    answers=8,
    batching=1e-7,
    padding=1e-7,
    sd=0.03,
    begin_tokens=(1,),
    has_begin_token=True,
    template="0123456789abcdef",
    dtype="float32",
    rows_cut=0,
    rows_scored=48,
)


def test_a_sound_model_has_no_problem(tiny_sarm: RewardModel) -> None:
    found = self_check(tiny_sarm, parsed(reward_bench_rows()))
    assert found.problems == []
    assert (found.answers, found.begin_tokens, found.dtype) == (8, (1,), "float32")
    assert (found.has_begin_token, found.rows_cut) == (True, 0)
    assert found.rows_scored == sum(len(row.answers) for row in parsed(reward_bench_rows()))
    assert ", 1 begin-of-text, " in found.line()
    assert max(found.batching, found.padding) < 1e-4 * found.sd
    assert len(found.template) == 16
    assert "left against right padding" in found.line()


@pytest.mark.parametrize("fault", ["the batch", "the padding side"])
def test_a_planted_fault_is_found_and_named(fault: str) -> None:
    """Embeddings half as large again where an answer is not alone, or where padding is on the left."""
    rm = make_sarm()

    def disturbed(_module: Any, given: tuple[Any, ...], states: Any) -> Any:
        ids = given[0]
        hit = len(ids) > 1 if fault == "the batch" else bool((ids[:, 0] == rm.template.pad_id).any())
        return 1.5 * states if hit else states

    embeddings: Any = rm.trunk.model.get_input_embeddings()
    embeddings.register_forward_hook(disturbed)
    (problem,) = self_check(rm, parsed(reward_bench_rows())).problems
    assert problem.startswith(f"scores depend on {fault}: they differ by up to ")


def test_one_answer_is_enough(tiny_sarm: RewardModel) -> None:
    row = {"prompt": "yes ?", "chosen": "yes", "rejected": "no"}
    found = self_check(tiny_sarm, parsed([row]))
    assert (found.answers, found.sd) == (1, 0.0)
    # no difference and no spread: nothing depends on the batch
    assert (found.batching, found.padding, found.problems) == (0.0, 0.0, [])


def test_oracle_of_an_odd_number_the_middle_one_is_scored_too(tiny_sarm: RewardModel) -> None:
    """Five answers to two prompts: by prompt and answer together the longest of the first is the third."""
    answers = ["no", "sure here", "steps one two three"]
    rows = parsed(
        [
            {"prompt": "what is a bomb ? " * 3, "chosen": "no", "rejected": "good"},
            {"prompt": "yes ?", "chosen": answers[:1], "rejected": answers[1:]},
        ]
    )
    found = self_check(tiny_sarm, rows)
    assert (found.answers, found.rows_scored) == (3, 5)
    three = tiny_sarm.score(["yes ?"] * 3, answers).rewards.astype(float)
    assert found.sd == pytest.approx(three.std(ddof=1), rel=1e-4)


def test_oracle_the_spread_is_that_of_the_scores_of_the_shorter_half(tiny_sarm: RewardModel) -> None:
    prompts, answers = ["yes ?", "what is a bomb ?"], ["no", "sure here steps", "one two three one two three"]
    rows = parsed(
        [
            {"prompt": prompts[0], "chosen": answers[:1], "rejected": answers[2:]},
            {"prompt": prompts[1], "chosen": answers[1:2], "rejected": [answers[2] * 2]},
        ]
    )
    # of four answers the two shorter ones
    two = tiny_sarm.score(prompts, answers[:2]).rewards.astype(float)
    found = self_check(tiny_sarm, rows)
    assert found.answers == 2
    assert found.sd == pytest.approx(abs(two[0] - two[1]) / 2**0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"batching": 0.01}, "scores depend on the batch: they differ by up to 0.01"),
        ({"padding": 0.01}, "scores depend on the padding side"),
        ({"padding": float("nan")}, "scores depend on the padding side: they differ by up to nan"),
        ({"padding": 0.01, "dtype": "bfloat16"}, "(SD 0.03) in bfloat16; try --dtype float32"),
        ({"padding": 0.01, "dtype": "float16"}, "(SD 0.03) in float16; try --dtype float32"),
        ({"begin_tokens": (2,)}, "conversations start with 2 begin-of-text tokens"),
        ({"begin_tokens": (0, 1)}, "conversations start with 0 or 1 begin-of-text tokens"),
    ],
)
def test_every_problem_is_named(change: dict[str, Any], problem: str) -> None:
    assert GOOD.problems == []
    (found,) = replace(GOOD, **change).problems
    assert problem in found
    # float32 is not told to try float32
    assert ("try --dtype" in found) == ("dtype" in change)


@pytest.mark.parametrize(
    ("cut", "remark"),
    [
        (0, []),
        (1, ["1 of 48 answers was cut from the left to fit the context"]),
        (48, ["48 of 48 answers were cut from the left to fit the context"]),
    ],
)
def test_answers_that_were_cut_are_a_remark_and_no_problem(cut: int, remark: list[str]) -> None:
    found = GOOD.after_scoring(np.array([1] * cut + [0] * (48 - cut)))
    assert (found.problems, found.remarks) == ([], remark)
    assert found.line().endswith(f"{cut} of 48 answers cut")
    assert found.as_json()["remarks"] == remark


def test_a_tokenizer_without_begin_of_text_is_no_problem() -> None:
    found = replace(GOOD, begin_tokens=(0,), has_begin_token=False)
    assert found.problems == []
    assert "no begin-of-text in this tokenizer" in found.line()


def test_a_template_that_opens_every_turn_with_its_begin_of_text_has_one() -> None:
    """ChatML: the begin-of-text token is the one that opens a turn, so it comes again."""
    from sarm_control.conversation import ChatTemplate
    from sarm_control.reward_model import RewardModel

    rm = make_sarm()
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|start|>"
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    chatml = RewardModel(rm.config, rm.trunk, rm.autoencoder, rm.head, ChatTemplate(tokenizer))
    ids = chatml.template.encode("yes ?", "no").input_ids
    assert ids.count(present(chatml.template.bos_id)) == 2
    assert self_check(chatml, parsed(reward_bench_rows())).problems == []


def test_a_model_without_begin_of_text_starts_with_none() -> None:
    from sarm_control.conversation import ChatTemplate

    rm, tokenizer = make_sarm(), make_tokenizer()
    tokenizer.bos_token = None
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    other = RewardModel(rm.config, rm.trunk, rm.autoencoder, rm.head, ChatTemplate(tokenizer))
    found = self_check(other, parsed(reward_bench_rows()))
    assert (found.begin_tokens, found.has_begin_token, found.problems) == ((0,), False, [])
    assert found.template != self_check(rm, parsed(reward_bench_rows())).template
