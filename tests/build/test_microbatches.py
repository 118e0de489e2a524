"""Micro-batches: an oracle for the losses, a property of the grouping."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.build.head.comparisons import PreferenceRow
from sarm_control.build.states.microbatches import EncodedRows
from sarm_control.build.states.texts import Conversation
from sarm_control.conversation import ChatTemplate
from tests.conftest import make_tokenizer

TEMPLATE = ChatTemplate(make_tokenizer(), max_length=256)
CPU = torch.device("cpu")


def rows_of(shapes: list[tuple[int, int, int]]) -> tuple[list[Conversation], list[PreferenceRow]]:
    """Rows of (chosen, rejected, words): every answer its own, of one word to `words`."""
    answers: list[Conversation] = []
    rows = []
    for number, (chosen, rejected, words) in enumerate(shapes):
        first = len(answers)
        count = chosen + rejected
        answers += [Conversation("what is bread ?", "yes " * (1 + j % words), number) for j in range(count)]
        at = range(first, len(answers))
        rows.append(PreferenceRow(number, tuple(at[:chosen]), tuple(at[chosen:]), annotator=number % 3))
    return answers, rows


def test_oracle_each_row_has_the_loss_of_its_own_pairs() -> None:
    answers, rows = rows_of([(1, 1, 2), (2, 3, 5), (1, 4, 1), (3, 1, 9)])
    (batch,) = EncodedRows(TEMPLATE, answers, rows, CPU).micro_batches(range(4), 10_000)
    rewards = torch.randn(len(batch.tokens.input_ids), generator=torch.Generator().manual_seed(0))
    found = dict(zip(batch.rows, batch.losses(rewards).tolist(), strict=True))
    first = 0
    for j in batch.rows:
        row = rows[j]
        cut, end = first + len(row.chosen), first + len(row.chosen) + len(row.rejected)
        chosen, rejected = rewards[first:cut].tolist(), rewards[cut:end].tolist()
        pairs = [math.log1p(math.exp(r - c)) for c in chosen for r in rejected]
        assert found[j] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
        assert batch.annotators[first:end].tolist() == [row.annotator] * (end - first)
        first = end


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 12)), min_size=1, max_size=9
    ),
    batch_tokens=st.integers(1, 400),
)
def test_property_every_row_is_whole_in_one_batch_and_only_single_rows_exceed_the_budget(
    shapes: list[tuple[int, int, int]], batch_tokens: int
) -> None:
    answers, rows = rows_of(shapes)
    batches = list(
        EncodedRows(TEMPLATE, answers, rows, CPU).micro_batches(reversed(range(len(rows))), batch_tokens)
    )
    assert sorted(j for batch in batches for j in batch.rows) == list(range(len(rows)))
    for batch in batches:
        assert batch.tokens.input_ids.numel() <= batch_tokens or len(batch.rows) == 1
        given_ids = [
            TEMPLATE.encode(answers[j].prompt, answers[j].response).input_ids
            for row in (rows[number] for number in batch.rows)
            for j in (*row.chosen, *row.rejected)
        ]
        padded = zip(batch.tokens.input_ids, batch.tokens.attention_mask, strict=True)
        assert [ids[mask == 1].tolist() for ids, mask in padded] == given_ids
