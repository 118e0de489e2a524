"""Sizes for a SARM, where none are given: from the base model and the number of answers.

The rules pass through what was measured: SmolLM2-135M (30 layers of width 576) with 5,581 answers was best
served by layer 15, 512 latents and k = 64; the lab's SARM has layer 2 of 3 and k = 6 of 24 latents. Their
upper ends are those of the published SARM: 65,536 latents on width 4,096, k = 192.
"""

from dataclasses import dataclass

from sarm_control.errors import ConfigError

ANSWERS_PER_LATENT = 10
"""Answers that each latent should have to learn from."""
LEAST_LATENTS = 24
_LATENTS_PER_WIDTH = 16
_LATENTS_PER_KEPT = 8
_LEAST_K, _MOST_K = 6, 192
_WIDTH_PER_KEPT = 9


@dataclass(frozen=True)
class Sizes:
    """The sizes of a SARM to build.

    Args:
        layer: decoder layers of the trunk.
        latents: L.
        k: latents kept for each answer, in 1..L.
        chosen: what was chosen here and why, one phrase each; empty when everything was given.
        warning: that the answers are few for the latents; None where they are not.
    """

    layer: int
    latents: int
    k: int
    chosen: tuple[str, ...] = ()
    warning: str | None = None


def choose_sizes(
    layers: int,
    width: int,
    answers: int,
    *,
    layer: int | None = None,
    latents: int | None = None,
    k: int | None = None,
) -> Sizes:
    """Fills in the sizes that are None; those given are left as they are.

    Args:
        layers: decoder layers of the base model.
        width: its hidden size.
        answers: different answers that there are to build from.
        layer: as given.
        latents: as given.
        k: as given.

    Raises:
        ConfigError: more latents are to be kept than there are.
    """
    chosen = []
    if layer is None:
        layer = (layers + 1) // 2
        chosen.append(f"layer {layer} (half of {layers})")
    if latents is None:
        latents, why = _latents(width, answers, k)
        chosen.append(f"{latents} latents ({why})")
    if k is None:
        k = _kept(latents, width)
        chosen.append(f"k = {k} (of {latents} latents and a width of {width})")
    if not 1 <= k <= latents:
        raise ConfigError(f"k is {k}, it must be in 1..{latents} (the latents)")
    return Sizes(layer, latents, k, tuple(chosen), _warning(answers, latents))


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


def _kept(latents: int, width: int) -> int:
    most = max(1, min(_MOST_K, width // _WIDTH_PER_KEPT, latents))
    return min(most, max(_LEAST_K, latents // _LATENTS_PER_KEPT))


def _warning(answers: int, latents: int) -> str | None:
    if answers >= ANSWERS_PER_LATENT * latents:
        return None
    return (
        f"{answers} answers are few for {latents} latents: {ANSWERS_PER_LATENT} for each would be "
        f"{ANSWERS_PER_LATENT * latents}; many latents may never fire, and the head may say little"
    )
