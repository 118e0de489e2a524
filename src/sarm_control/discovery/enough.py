"""Whether there are enough prompts to find anything: data that could not be tested is no null result.

Shapes: `P` prompts.
"""

import math

import numpy as np

from sarm_control.discovery.pairs.margins import PairLatents, active_prompts
from sarm_control.discovery.pairs.prompt_pairs import PromptSplit
from sarm_control.errors import DataError

_FEWER = "or test latents active in fewer with --min-prompts"


def check_arrangements(parts: PromptSplit, *, alpha: float, halved: bool) -> None:
    """Refuses prompts whose labels can be redrawn in too few ways for any p-value to be small.

    Args:
        parts: selection and confirmation; their latents are not looked at.
        alpha: false discovery rate of both steps.
        halved: both parts are halves of the same pairs.

    Raises:
        DataError: the smallest p-value that the prompts of a part allow is above `alpha`. The message says
            about how many prompts would do.
    """
    for name, done, part in (
        ("selection", "selected", parts.selection.latents),
        ("confirmation", "confirmed", parts.confirmation.latents),
    ):
        bits = _bits(part)
        shared = name == "confirmation" and parts.shared
        dropped = f" ({parts.shared} that the selection has too were dropped)" if shared else ""
        # the smallest two-sided p is 2^(1 - bits)
        wanted = math.ceil(1 + math.log2(1 / alpha))
        if bits < wanted:
            raise DataError(
                f"nothing could be {done}: with {part.prompts} {name} prompts{dropped} no p-value is below "
                f"{min(1.0, 2 ** (1 - bits)):.2g}, and alpha is {alpha:g}",
                hint=f"about {_wanted(max(wanted, math.ceil(part.prompts * wanted / max(bits, 1))), halved)}",
            )


def check_enough(parts: PromptSplit, *, alpha: float, min_prompts: int, halved: bool) -> None:
    """Refuses prompts on which no latent could be called, whatever it does.

    Args:
        parts: selection and confirmation.
        alpha: see `check_arrangements`.
        min_prompts: latents active in fewer selection prompts are not tested.
        halved: see `check_arrangements`.

    Raises:
        DataError: see `check_arrangements`; or no latent is active in enough selection prompts.
    """
    check_arrangements(parts, alpha=alpha, halved=halved)
    active = active_prompts(parts.selection.latents)
    most = int(active.max(initial=0))
    if most < min_prompts:
        prompts = parts.selection.latents.prompts
        known = f"about {_wanted(math.ceil(prompts * min_prompts / most), halved)}, {_FEWER}" if most else ""
        raise DataError(
            f"nothing could be tested: no latent is active in {min_prompts} of the {prompts} selection "
            f"prompts (the most active one in {most})",
            hint=known or "no latent fires in these answers: is it the right model?",
        )


def _bits(pairs: PairLatents) -> float:
    """Base-2 logarithm of the number of ways to redraw the labels.

    A prompt with equally many chosen and rejected answers has two ways, because its sides are swapped whole.
    """
    sides = [np.bincount(of, minlength=pairs.prompts) for of in (pairs.chosen_prompt, pairs.rejected_prompt)]
    return sum(
        1.0 if good == bad else math.log2(math.comb(int(good + bad), int(good)))
        for good, bad in zip(*sides, strict=True)
    )


def _wanted(part: int, halved: bool) -> str:
    if halved:
        return f"{2 * part} prompts would do, half of them for each of selection and confirmation"
    return f"{part} prompts would do"
