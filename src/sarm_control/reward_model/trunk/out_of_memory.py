"""Batches that are computed in halves where the memory ran out."""

import gc
from collections.abc import Callable, Iterable, Sequence

import torch

from sarm_control.console import say
from sarm_control.errors import ModelError

# Torch has no class of its own for it on a processor. It says "can't allocate memory: you tried to allocate"
# on Linux, and "not enough memory: you tried to allocate" on Windows.
_ON_A_PROCESSOR = "you tried to allocate"


def compute_halving(
    batches: Iterable[list[int]], lengths: Sequence[int], compute: Callable[[list[int]], None]
) -> None:
    """Computes batches of rows. When the memory runs out, this one and all that follow go in two halves.

    Once: memory that does not hold the halves either is an error, and no third try is made of it.

    Args:
        batches: row numbers.
        lengths: padded tokens of each row, to say how large a batch was.
        compute: one batch; it is called again with rows of a batch that failed.

    Raises:
        ModelError: the halves do not fit either, or there is one row.
    """
    halved = False
    for rows in batches:
        if not halved:
            if _fits(compute, rows):
                continue
            if len(rows) == 1:
                raise _too_little(rows, lengths)
            halved = True
            say(
                f"the memory ran out on {_size(rows, lengths)}: batches go on in halves "
                f"(--batch-tokens {_half(rows, lengths)} begins with them)"
            )
        middle = -(-len(rows) // 2)
        for half in (rows[:middle], rows[middle:]):
            if half and not _fits(compute, half):
                raise _too_little(half, lengths)


def _fits(compute: Callable[[list[int]], None], rows: list[int]) -> bool:
    """Whether the memory was enough; what the failed try held is given back when this returns."""
    try:
        compute(rows)
    except (RuntimeError, MemoryError) as error:
        if not _ran_out(error):
            raise
    else:
        return True
    # Frames that the error went through may hold each other in a circle, and activations with them.
    gc.collect()
    if torch.cuda.is_initialized():
        # blocks cut for the whole batch would not serve its halves
        torch.cuda.empty_cache()
    return False


def _ran_out(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _ON_A_PROCESSOR in str(error)


def _half(rows: list[int], lengths: Sequence[int]) -> int:
    return -(-len(rows) // 2) * max(lengths[row] for row in rows)


def _size(rows: list[int], lengths: Sequence[int]) -> str:
    answers = "1 answer" if len(rows) == 1 else f"{len(rows)} answers"
    return f"{answers} of {max(lengths[row] for row in rows)} tokens"


def _too_little(rows: list[int], lengths: Sequence[int]) -> ModelError:
    hint = (
        f"give --batch-tokens {_half(rows, lengths)} or less, or a machine with more memory"
        if len(rows) > 1
        else "load the trunk in half precision (--dtype bfloat16), or take a machine with more memory"
    )
    return ModelError(f"the memory is not enough for {_size(rows, lengths)}", hint=hint)
