"""Answers that hold their prompt once more: told apart from chance, and without it."""

from collections.abc import Sequence

from sarm_control.data.messages import Prompt

_WORDS = 3
"""A prompt of fewer words may begin an answer by chance: "hello" and "hello, how are you?"."""


def begins_with_prompt(prompt: Prompt, answers: Sequence[str]) -> bool:
    """Whether every answer begins with the prompt's text, that of its last turn where it has several."""
    text = _last_text(prompt).strip()
    return bool(text) and all(_begins(answer.lstrip(), text) for answer in answers)


def tells(prompt: Prompt, answers: Sequence[str]) -> bool:
    """Whether answers hardly begin with the prompt by chance: it is long, and something follows it."""
    follows = any(without_prompt(prompt, answer) for answer in answers)
    return follows and len(_last_text(prompt).split()) >= _WORDS


def without_prompt(prompt: Prompt, answer: str) -> str:
    """The rest of an answer that begins with the prompt, without the white space before it."""
    return answer.lstrip()[len(_last_text(prompt).strip()) :].lstrip()


def _begins(answer: str, text: str) -> bool:
    if not answer.startswith(text):
        return False
    # "cat" does not begin "category"
    return not (text[-1].isalnum() and answer[len(text) : len(text) + 1].isalnum())


def _last_text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
