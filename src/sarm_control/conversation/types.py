"""The type of an encoded conversation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoded:
    """Token ids of one (prompt, answer), ready for the trunk.

    Args:
        input_ids: at most one begin-of-text first, the end-of-turn of the answer last, or whatever the
            template writes after it.
        prompt_length: number of tokens before the answer; the answer is `input_ids[prompt_length:-closing]`.
        truncated: number of tokens dropped from the left, 0 when the conversation fitted.
        ended: false when the answer had no end-of-turn of its own and one was appended.
        closing: tokens behind the answer.
    """

    input_ids: list[int]
    prompt_length: int
    truncated: int
    ended: bool
    closing: int = 1

    @property
    def answer_length(self) -> int:
        """The number of tokens of the answer without what comes after it."""
        return len(self.input_ids) - self.prompt_length - self.closing
