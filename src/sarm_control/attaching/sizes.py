"""Sizes for a dictionary of a reward model's state, where none are given: from its width and the answers.

The rules pass through a trial by hand: 5,000 states of width 576 (SmolLM2-135M) with 1,024 latents of
which 64 are kept. Their upper ends are those of the published SARM: 16 latents for each of the
width's numbers, k = 192.
"""

from dataclasses import dataclass

from sarm_control.errors import ConfigError

ANSWERS_PER_LATENT = 4
"""Answers that each latent should have to learn from; states at sentence ends help, but are another kind."""
LEAST_LATENTS = 24
_LATENTS_PER_WIDTH = 16
_LATENTS_PER_KEPT = 16
_LEAST_K, _MOST_K = 6, 192
_WIDTH_PER_KEPT = 9


@dataclass(frozen=True)
class DictionarySizes:
    """The sizes of a dictionary to train.

    Args:
        latents: L.
        k: latents kept for each state, in 1..L.
        chosen: what was chosen here and why, one phrase each; empty when both were given.
        warning: that the answers are few for the latents; None where they are not.
    """

    latents: int
    k: int
    chosen: tuple[str, ...] = ()
    warning: str | None = None


def choose_dictionary_sizes(
    width: int, answers: int, *, latents: int | None = None, k: int | None = None
) -> DictionarySizes:
    """Fills in the sizes that are None; those given are left as they are.

    Args:
        width: D, of the states.
        answers: different answers whose states the dictionary is trained on.
        latents: as given.
        k: as given.

    Raises:
        ConfigError: more latents are to be kept than there are.
    """
    chosen = []
    if latents is None:
        latents, why = _latents(width, answers, k)
        chosen.append(f"{latents} latents ({why})")
    if k is None:
        most = max(1, min(_MOST_K, width // _WIDTH_PER_KEPT, latents))
        k = min(most, max(_LEAST_K, latents // _LATENTS_PER_KEPT))
        chosen.append(f"k = {k} (of {latents} latents and a width of {width})")
    if not 1 <= k <= latents:
        raise ConfigError(f"k is {k}, it must be in 1..{latents} (the latents)")
    return DictionarySizes(latents, k, tuple(chosen), _warning(answers, latents))


def _latents(width: int, answers: int, k: int | None) -> tuple[int, str]:
    most, least = _LATENTS_PER_WIDTH * width, max(LEAST_LATENTS, k or 1)
    of_answers = answers // ANSWERS_PER_LATENT
    # a power of two: twice the answers make a difference, some more do not
    found = 1 << of_answers.bit_length() - 1 if of_answers else 0
    if found > most:
        return most, f"{_LATENTS_PER_WIDTH} times the width of {width}"
    if found < least:
        return least, "the least that is of use" if least == LEAST_LATENTS else "as many as --k"
    return found, f"{answers} answers, at least {ANSWERS_PER_LATENT} for each"


def _warning(answers: int, latents: int) -> str | None:
    if answers >= ANSWERS_PER_LATENT * latents:
        return None
    return (
        f"{answers} answers are few for {latents} latents: {ANSWERS_PER_LATENT} for each would be "
        f"{ANSWERS_PER_LATENT * latents}; more of the reward may stay in the residual"
    )
