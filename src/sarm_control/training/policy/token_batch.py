"""Prompts and answers as tensors for a policy or a critic, and the results for each answer token.

Shapes: `B` rows, `T` tokens of the longest row, `M` answer tokens of all rows, concatenated.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TokenBatch(NamedTuple):
    """Prompts and their answers as one padded batch, on one device.

    Rows are padded on the right under a causal mask, so padding cannot reach a token.

    Args:
        input_ids: [B, T] the prompt and the answer without its last token, padded on the right: the last
            token predicts nothing.
        rows: [M] the row of each answer token.
        positions: [M] the column whose state predicts that token.
        targets: [M] the token.
    """

    input_ids: Tensor
    rows: Tensor
    positions: Tensor
    targets: Tensor


class TokenStats(NamedTuple):
    """What a policy computes for each of M answer tokens.

    Args:
        logprobs: [M] float32 log-probability at the sampling temperature.
        values: [M] float32 value of the state the token was chosen in; None for the reference.
        entropy: [M] float32 nats, without gradient; None unless asked for.
    """

    logprobs: Tensor
    values: Tensor | None
    entropy: Tensor | None


def token_batch(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], device: torch.device
) -> TokenBatch:
    """Token ids of rows as one right-padded batch; every answer has at least one token."""
    ids = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, ids))
    # any token will do: no other token looks at padding on the right, and its own states are not read
    padded = [row + [0] * (width - len(row)) for row in ids]
    rows = [row for row, answer in enumerate(answers) for _ in answer]
    positions = [
        # the state at a token predicts the next one: the last of the prompt predicts the first of the answer
        len(prompt) - 1 + t
        for prompt, answer in zip(prompts, answers, strict=True)
        for t in range(len(answer))
    ]
    targets = [token for answer in answers for token in answer]
    return TokenBatch(*(torch.tensor(x, device=device) for x in (padded, rows, positions, targets)))
