"""The words a conversation is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoded:
    """Token ids of one (prompt, answer), ready for the trunk.

    Args:
        input_ids: at most one begin-of-text first, the end-of-turn of the answer last, or whatever the
            template writes behind it.
        prompt_length: tokens before the answer; the answer is `input_ids[prompt_length:-closing]`.
        truncated: tokens dropped from the left, 0 when the conversation fitted.
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
        """Tokens of the answer without what stands behind it."""
        return len(self.input_ids) - self.prompt_length - self.closing
