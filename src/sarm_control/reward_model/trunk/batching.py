"""Padded batches of conversations, and the state at the end of turn.

Shapes: `B` answers, `T` tokens, `D` hidden size.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sarm_control.conversation import Encoded
from sarm_control.errors import ModelError

PaddingSide: TypeAlias = Literal["left", "right"]


BATCH_TOKENS_CPU = 8_192
BATCH_TOKENS_GPU = 65_536


def scoring_batch_tokens(device: str) -> int:
    """Padded tokens of one forward pass where nobody says how many: by the type of device, such as "cpu"."""
    return BATCH_TOKENS_CPU if device == "cpu" else BATCH_TOKENS_GPU


class Padded(NamedTuple):
    """`input_ids` [B, T] int64 and `attention_mask` [B, T] int64 (1 = token)."""

    input_ids: Tensor
    attention_mask: Tensor


FIXED_LENGTH = 32
"""What the length of a row is rounded up to where products are in half precision; see `fixed_lengths`."""


def fixed_lengths(lengths: Sequence[int], most: int) -> list[int]:
    """The padded length of each row by itself, whatever rows are computed beside it.

    In half precision a processor's kernels take their sums in an order that depends on the padded length,
    and round what they sum: a state of a row would depend on the longest row of its batch. Rows of one
    padded length make a batch instead, and the number of rows then moves nothing.

    Args:
        lengths: of each row.
        most: positions the trunk has; a padded length goes beyond them only where the row itself does.
    """
    return [max(length, min(-(-length // FIXED_LENGTH) * FIXED_LENGTH, most)) for length in lengths]


def length_sorted_batches(
    lengths: Sequence[int], batch_tokens: int, *, equal: bool = False
) -> list[list[int]]:
    """Groups row numbers so that rows times the longest row stays within `batch_tokens`.

    The longest rows come first: a batch too large for the memory fails at once,
    not after an hour. A row longer than the budget is a batch of its own.

    Args:
        lengths: of each row.
        batch_tokens: the budget.
        equal: only rows of one length make a batch.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        # rows come longest first, so a batch's first row is its longest
        longest = lengths[batches[-1][0]] if batches else 0
        fits = batches and (len(batches[-1]) + 1) * longest <= batch_tokens
        if fits and not (equal and lengths[row] != longest):
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def check_embeddings(rows: Sequence[Encoded], known: int) -> None:
    """Refuses tokens that have no embedding: the tokenizer is another model's, or damaged.

    Args:
        rows: conversations as token ids.
        known: embeddings of the trunk.

    Raises:
        ModelError: naming the row, from 0, and the token.
    """
    for number, row in enumerate(rows):
        if max(row.input_ids, default=0) >= known:
            raise ModelError(
                f"row {number} has token {max(row.input_ids)}, the model has embeddings for 0..{known - 1}",
                hint="its tokenizer is damaged or another model's: download the checkpoint again",
            )


def pad_batch(
    rows: Sequence[Sequence[int]],
    pad_id: int,
    *,
    side: PaddingSide = "right",
    device: torch.device | None = None,
    length: int = 0,
) -> Padded:
    """Pads token ids to one length, or to `length`; the mask comes from the lengths, never from the ids."""
    lengths = [len(row) for row in rows]
    longest = max(length, *lengths)
    padding = [pad_id] * longest
    if side == "right":
        ids = [[*row, *padding[len(row) :]] for row in rows]
    else:
        ids = [[*padding[len(row) :], *row] for row in rows]
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    mask = mask if side == "right" else mask.flip(1)
    return Padded(torch.tensor(ids, dtype=torch.long).to(device), mask.to(device))
