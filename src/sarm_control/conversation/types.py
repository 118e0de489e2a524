"""The type of an encoded conversation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoded:
    """Token ids of one (prompt, answer), ready for the trunk.

    Args:
        input_ids: at most one begin-of-text first, the end-of-turn of the answer last.
        prompt_length: number of tokens before the answer; the answer is `input_ids[prompt_length:-1]`.
        truncated: number of tokens dropped from the left, 0 when the conversation fitted.
        ended: false when the answer had no end-of-turn of its own and one was appended.
    """

    input_ids: list[int]
    prompt_length: int
    truncated: int
    ended: bool

    @property
    def answer_length(self) -> int:
        """The number of tokens of the answer without its end-of-turn."""
        return len(self.input_ids) - self.prompt_length - 1
