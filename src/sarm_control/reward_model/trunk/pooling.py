"""Which token's state a reward model reads: a rule on token ids and the attention mask.

Shapes: `B` answers, `T` tokens.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sarm_control.errors import ConfigError, ModelError
from sarm_control.reward_model.trunk.batching import Padded

Rule = Literal["end_of_turn", "last_token", "last_not_pad", "token"]
RULES = "last_token, end_of_turn, last_not_pad or token:ID"
"""The rules as they are written, in words."""


@dataclass(frozen=True)
class Pooling:
    """The position a reward is read at, in the tokens that the attention mask lets pass.

    Args:
        rule: `end_of_turn` reads the last end-of-turn token; `last_token` the last token of all that the
            chat template writes; `last_not_pad` the last of these whose id is not the pad id, as
            transformers' classifiers do; `token` the last one of a given id.
        token: the id of the end-of-turn, of the padding or of the token that is looked for; None with
            `last_token`, and where the model it belongs to is not known yet.
    """

    rule: Rule
    token: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all that a template writes behind an answer is part of the text."""
        return self.rule != "end_of_turn"

    def __str__(self) -> str:
        """The spelling that `parse_pooling` reads."""
        return f"token:{self.token}" if self.rule == "token" else self.rule

    def positions(self, batch: Padded) -> Tensor:
        """[B] where each row is read.

        Raises:
            ModelError: a row has no such token.
        """
        wanted = batch.attention_mask == 1
        if self.rule == "last_not_pad" and self.token is not None:
            wanted = wanted & (batch.input_ids != self.token)
        elif self.rule in ("end_of_turn", "token"):
            wanted = wanted & (batch.input_ids == self.token)
        places = torch.arange(wanted.shape[1], device=wanted.device)
        # the largest place that qualifies, whichever side the padding is on; -1 where none does
        last = torch.where(wanted, places, -1).amax(dim=1)
        if bool((last < 0).any()):
            raise self._not_found(int((last < 0).nonzero()[0]))
        return last

    def _not_found(self, row: int) -> ModelError:
        names = {"end_of_turn": "end-of-turn token", "last_not_pad": "token that is not padding"}
        what = names.get(self.rule, "token" if self.rule == "token" else "token at all")
        number = f" (id {self.token})" if self.rule in ("end_of_turn", "token") else ""
        return ModelError(
            f"row {row} of the batch has no {what}{number}, whose state is to be read",
            hint=f"give another rule with --pooling: {RULES}",
        )


def parse_pooling(text: str) -> Pooling:
    """Reads a rule as it is written on command lines and in checkpoints.

    Raises:
        ConfigError: there is no such rule.
    """
    found = re.fullmatch(r"token:(\d{1,9})", text)
    if found is not None:
        return Pooling("token", int(found[1]))
    if text in ("end_of_turn", "last_token", "last_not_pad"):
        return Pooling(text)  # type: ignore[arg-type]
    raise ConfigError(f"{text!r} is no pooling rule", hint=f"write {RULES}")


def pool_states(states: Tensor, batch: Padded, end_of_turn_id: int) -> Tensor:
    """The state at the last unmasked end-of-turn token: [B, T, D] to [B, D].

    Raises:
        ModelError: a row has no unmasked end-of-turn token.
    """
    last = Pooling("end_of_turn", end_of_turn_id).positions(batch)
    return states[torch.arange(len(last), device=states.device), last.to(states.device)]
