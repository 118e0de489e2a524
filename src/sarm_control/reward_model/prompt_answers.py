"""Which prompt goes with which answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from sarm_control.data import Prompt
from sarm_control.errors import ModelError


def prompt_answer_rows(
    prompts: Prompt | Sequence[Prompt], responses: str | Sequence[str]
) -> list[tuple[Prompt, str]]:
    """[N] rows: one answer goes with one prompt (a string or a list of messages), N answers with N prompts.

    Raises:
        ModelError: N prompts for M answers.
    """
    if isinstance(responses, str):
        one: Any = prompts[0] if _is_batch_of_one(prompts) else prompts
        return [(one, responses)]
    if isinstance(prompts, str) or len(prompts) != len(responses):
        count = 1 if isinstance(prompts, str) else len(prompts)
        raise ModelError(f"{count} prompts were given for {len(responses)} answers")
    many: Any = prompts
    return list(zip(many, responses, strict=True))


def _is_batch_of_one(prompts: Any) -> bool:
    return not isinstance(prompts, str) and len(prompts) == 1 and not isinstance(prompts[0], Mapping)
