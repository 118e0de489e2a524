"""A latent at every token of one conversation.

The reward reads the latents at one token alone. For people who want to see what in a text a latent responds
to, the autoencoder is run at the other tokens too, on request and for one conversation.

Shapes: `T` tokens, `D` hidden size, `L` latents.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sarm_control.data import Prompt
from sarm_control.reward_model import RewardModel, pad_batch

_CHUNK = 64


class TokenActivations(NamedTuple):
    """One conversation, token by token.

    Args:
        texts: [T] what each token adds to the text.
        values: [T] float32 z of the latent at each token; 0 where TopK did not keep it.
        read: the token whose latents make the reward.
        answer: the first token of the answer.
    """

    texts: tuple[str, ...]
    values: NDArray[np.float32]
    read: int
    answer: int


@torch.inference_mode()
def token_activations(rm: RewardModel, prompt: Prompt, answer: str, latent: int) -> TokenActivations:
    """A latent's value at every token of a conversation.

    Raises:
        ModelError: the chat template refuses the conversation, or the model has no dictionary.
    """
    (encoded,) = rm.template.encode_rendered([rm.template.render(prompt, answer)])
    batch = pad_batch([encoded.input_ids], rm.template.pad_id, side="right", device=rm.device)
    states = rm.trunk(batch.input_ids, None)[0]
    if rm.trunk.final_norm is not None:
        states = rm.trunk.final_norm(states.float())
    values = np.zeros(len(encoded.input_ids), dtype=np.float32)
    for start in range(0, len(values), _CHUNK):
        # in chunks: [T, L] pre-activations of a long answer would fill the memory
        kept = rm.autoencoder.encode(states[start : start + _CHUNK].to(rm.autoencoder.pre_bias.device))
        own = torch.where(kept.indices == latent, kept.values, 0.0).sum(dim=-1)
        values[start : start + len(own)] = own.float().cpu().numpy()
    read = int(rm.pooling.positions(batch)[0])
    first = max(0, read - encoded.answer_length)
    return TokenActivations(_texts(rm.template.tokenizer, encoded.input_ids), values, read, first)


def _texts(tokenizer: Any, ids: Any) -> tuple[str, ...]:
    """What each token adds to the decoded text: a token alone is often decoded without its space."""
    # a few tokens before are enough for spaces and split characters; decoding all of them again for each
    # token would take time with the square of the length
    texts, window = [], 8
    for place in range(len(ids)):
        start = max(0, place - window)
        whole = tokenizer.decode(ids[start : place + 1], skip_special_tokens=False)
        before = tokenizer.decode(ids[start:place], skip_special_tokens=False) if place > start else ""
        added = whole[len(before) :] if whole.startswith(before) else tokenizer.decode([ids[place]])
        texts.append(added)
    return tuple(texts)
