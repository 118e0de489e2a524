"""Opens a bench in a notebook: checks what was given before anything is scored or drawn."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sarm_control.bounded_json import shown
from sarm_control.control import Edit, check_exists
from sarm_control.data import Prompt
from sarm_control.embedded import LAB
from sarm_control.errors import ConfigError
from sarm_control.explorer.sources import LatentName, names_in, planted_names
from sarm_control.extras import import_extra
from sarm_control.reward_model import RewardModel, no_latents

if TYPE_CHECKING:
    from sarm_control.explorer.widget import BenchWidget

MOST_ANSWERS = 16
_EXAMPLE = 'rm.bench("a prompt", ["one answer", "another"])'


def open_bench(
    rm: RewardModel,
    prompt: Prompt,
    answers: str | Sequence[str],
    edits: Iterable[Edit | str] = (),
    names: Mapping[int, str] | str | Path | None = None,
) -> "BenchWidget":
    """A bench for a notebook.

    Args:
        rm: a reward model with latents.
        prompt: a text, or a list of messages.
        answers: one text, or 1 to 16 of them.
        edits: to begin with, or their spelling.
        names: of latents, or a file of `sarm label`. Default: what is known of the lab's latents, else none.

    Raises:
        MissingExtraError: anywidget is not installed.
        ModelError: the model has no latents, or `names` are of another head.
        ConfigError: a prompt, answers, edits or names that cannot be used.
    """
    import_extra(
        "anywidget",
        "explore",
        needed="a bench in a notebook needs anywidget",
        otherwise=", or open a bench in a browser: sarm explore",
    )
    from sarm_control.explorer.widget import BenchWidget

    if not len(rm.head.weight):
        raise no_latents("there is nothing to edit on a bench")
    texts = [answers] if isinstance(answers, str) else list(answers)
    _check_texts(prompt, texts)
    return BenchWidget(rm, prompt, texts, edits, _names(rm, names))


def _check_texts(prompt: Prompt, answers: Sequence[str]) -> None:
    if not 1 <= len(answers) <= MOST_ANSWERS:
        message = f"{len(answers)} answers were given, a bench takes 1 to {MOST_ANSWERS}"
        raise ConfigError(message, hint=_EXAMPLE)
    for place, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise ConfigError(f"answer {place} is {shown(answer)}, it must be a text", hint=_EXAMPLE)
    turns = [] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, Sequence) else [prompt]
    for turn in turns:
        if not isinstance(turn, Mapping) or not all(
            isinstance(turn.get(key), str) for key in ("role", "content")
        ):
            message = f"the prompt has {shown(turn)}, it must be a text or a list of messages"
            raise ConfigError(message, hint=_EXAMPLE)


def _names(rm: RewardModel, names: Mapping[int, str] | str | Path | None) -> Mapping[int, LatentName]:
    size = len(rm.head.weight)
    if names is None:
        return planted_names(rm.fingerprint) if rm.source.get("model") == LAB else {}
    if isinstance(names, str | Path):
        return names_in(Path(names), rm.fingerprint, size, rm.model_fingerprint)
    for latent in names:
        check_exists(latent, size)
    return {latent: LatentName(text) for latent, text in names.items()}
