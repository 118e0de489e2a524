"""The reward after every token of an answer, from one forward pass.

A reward model is trained at the last position alone: what its head says of earlier ones was never trained,
and is no reward of an answer that ends there. It shows where the reward of the whole text builds up.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarm_control.data import Prompt

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

LABEL = "only the last position was trained; earlier ones show where the reward builds up"


class TokenReward(NamedTuple):
    """What the head says after one token.

    Args:
        token: its text.
        reward: reward units.
        trained: whether it is the position that a reward is read at.
    """

    token: str
    reward: float
    trained: bool


def token_rewards(rm: "RewardModel", prompt: Prompt, answer: str) -> tuple[TokenReward, ...]:
    """The reward after each token of the answer and of what closes it; the trained one is its reward.

    Args:
        rm: the reward model.
        prompt: text or messages.
        answer: the answer.

    Raises:
        ModelError: a conversation that the template refuses.
    """
    import torch

    from sarm_control.reward_model import pad_batch

    encoded = rm.template.encode(prompt, answer)
    with torch.inference_mode():
        batch = pad_batch([encoded.input_ids], rm.template.pad_id, side="right", device=rm.device)
        # one row has no padding, so nothing is masked
        states = rm.trunk(batch.input_ids, None)[0]
        if rm.trunk.final_norm is not None:
            states = rm.trunk.final_norm(states.float())
        states = states.float().cpu()
        place = int(rm.pooling.positions(batch)[0])
        # an attached dictionary explains a reward, and does not make it: the head of the model itself
        # does
        if rm.head.own is not None:
            rewards = np.asarray(rm.head.own.rewards(states.numpy()), dtype=np.float64)
        else:
            rewards = rm.score_states(states).sums(rm.head.weight)
    ids = encoded.input_ids
    texts = rm.template.tokenizer.convert_ids_to_tokens(ids)
    # what stands behind the position that is read has no part in the reward
    return tuple(
        TokenReward(_text(rm, ids[t], texts[t]), float(rewards[t]), t == place)
        for t in range(encoded.prompt_length, place + 1)
    )


def _text(rm: "RewardModel", token: int, raw: str) -> str:
    """The token as text; its name in the vocabulary where it is no text of its own."""
    return str(rm.template.tokenizer.decode([token])) or raw
