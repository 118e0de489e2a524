"""What is looked at before a classifier's first reward is believed.

Accuracy on pairs cannot show that the wrong token is read. So two conversations are scored by transformers'
own class on the very weights that were loaded, and the positions it reads are compared with ours, its
numbers with ours, and a row alone with the same row padded on either side.

Shapes: `B` answers, `T` tokens, `D` hidden size.
"""

import contextlib
import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sarm_control.conversation import ChatTemplate, Encoded
from sarm_control.errors import ModelError
from sarm_control.reward_model.sparse import FloatArray
from sarm_control.reward_model.state_head import StateHead
from sarm_control.reward_model.trunk.batching import PaddingSide, pad_batch
from sarm_control.reward_model.trunk.pooling import RULES, Pooling
from sarm_control.reward_model.trunk.trunk import Trunk, quiet_transformers

CONVERSATIONS = (
    ("What is the capital of France?", "Paris."),
    (
        "Name three colours, and say which of them you like.",
        "Red, green and blue; I like green, for its calm.",
    ),
)
"""What is scored. Any two would do that differ in length."""

States = Callable[[Sequence[Encoded], PaddingSide], FloatArray]
"""Pooled states [B, D] of conversations, in one batch that is padded on this side."""


@dataclass(frozen=True)
class GateReport:
    """What was found, in reward units where it is a reward.

    Args:
        name: of the model.
        pooling: the rule that is used.
        token: the token that is read, as text, and its id.
        dtype: of the trunk.
        template: 16 hex digits of the SHA-256 of the chat template.
        published: the class of transformers that was compared with; None where it has none.
        difference: the largest difference from its rewards where both read the same token; None without.
        padding: the largest difference between a row alone and padded on either side.
        apart: the token that transformers' class reads, where it is another one and was asked for.
    """

    name: str
    pooling: str
    token: tuple[str, int]
    dtype: str
    template: str
    published: str | None
    difference: float | None
    padding: float
    apart: tuple[str, int] | None = None

    def line(self) -> str:
        """The report in one line."""
        if self.published is None:
            beside = "no class of transformers to compare with"
        elif self.apart is not None:
            beside = f"{self.published} reads {self.apart[0]!r} (id {self.apart[1]}) instead"
        else:
            beside = f"as {self.published} within {self.difference:.1g}"
        read = f"{self.token[0]!r} (id {self.token[1]})"
        return (
            f"{self.name}: reads {read} by the rule {self.pooling}, {beside}; {self.dtype}, "
            f"template {self.template}, alone against padded {self.padding:.1g}"
        )


class _Beside(nn.Module):
    """In the place of a class's head: gives rewards and positions, so that the class pools both."""

    def __init__(self, head: StateHead) -> None:
        super().__init__()
        self.weight = torch.from_numpy(head.weight)
        self.bias = head.bias

    def forward(self, states: Tensor) -> Tensor:
        """[B, T, D] to [B, T, 2]."""
        rewards = states.float() @ self.weight.to(states.device) + self.bias
        # the position rides along as a second output, so the class's own pooling code tells where it reads; a
        # float32 holds whole numbers up to 2^24
        places = torch.arange(states.shape[1], device=states.device).expand(rewards.shape)
        return torch.stack([rewards, places.float()], dim=-1)


class _InFloat32(nn.Module):
    """A float32 norm behind layers of another type."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] to the same."""
        normed: Tensor = self.norm(states.float())
        return normed


@dataclass(frozen=True)
class _Theirs:
    name: str
    places: list[int]
    tokens: list[int]
    rewards: NDArray[np.float64]


def check_read_out(
    name: str,
    trunk: Trunk,
    head: StateHead,
    template: ChatTemplate,
    pooling: Pooling,
    states: States,
    *,
    published: bool,
    asked_for: bool,
) -> GateReport:
    """Compares our read-out with transformers' own class, and a row alone with it padded.

    Args:
        name: what to call the model.
        trunk: with its final norm.
        head: its own.
        template: makes the conversations' token ids.
        pooling: the rule that is to be used.
        states: see `States`.
        published: whether transformers has a class with this head.
        asked_for: whether the rule was asked for; then another token than the class's is read without a word.

    Raises:
        ModelError: the class reads another token and nobody said which to read, its rewards are others, or
            ours depend on padding.
    """
    # ours first, alone and padded: a trunk that does not heed the mask makes every comparison meaningless
    encoded = [template.encode(prompt, answer) for prompt, answer in CONVERSATIONS]
    places = [_place(pooling, one) for one in encoded]
    # each in a batch of its own, where nothing is padded
    alone = np.stack([states([one], "right")[0] for one in encoded])
    ours = head.rewards(alone).astype(np.float64)
    kind = next(trunk.model.parameters()).dtype
    limits = _tolerance(alone, head, kind)
    sides: tuple[PaddingSide, ...] = ("left", "right")
    padded = [head.rewards(states(encoded, side)).astype(np.float64) for side in sides]
    padding = max(float(np.abs(one - ours).max()) for one in padded)
    if any((np.abs(one - ours) > limits).any() for one in padded):
        raise ModelError(
            f"{name}: the reward of a row moves by {padding:.2g} when it is padded, in {_named(kind)}",
            hint="try --dtype float32; else its attention does not heed the mask",
        )
    theirs = _of_transformers(trunk, head, _whole(template)) if published else None
    apart, difference = None, None
    if theirs is not None:
        # Positions, although the two texts may end differently: both begin with the same tokens, and places
        # count from the first. Where they differ rewards are not compared, being of other tokens.
        if theirs.places != places:
            row = next(j for j in range(len(places)) if theirs.places[j] != places[j])
            apart = _token(template, theirs.tokens[row])
            if not asked_for:
                ours_read = _token(template, encoded[row].input_ids[places[row]])
                raise _parted(name, theirs.name, apart, ours_read, pooling)
        else:
            difference = float(np.abs(theirs.rewards - ours).max())
            if (np.abs(theirs.rewards - ours) > limits).any():
                raise ModelError(
                    f"{name}: {theirs.name} of transformers gives {theirs.rewards[0]:.6g} where this gives "
                    f"{ours[0]:.6g}, at the same token",
                    hint="report it with the versions of torch and transformers; scores would not be its own",
                )
    return GateReport(
        name,
        str(pooling),
        _token(template, encoded[0].input_ids[places[0]]),
        _named(kind),
        hashlib.sha256(str(template.tokenizer.chat_template).encode()).hexdigest()[:16],
        None if theirs is None else theirs.name,
        difference,
        padding,
        apart,
    )


def _whole(template: ChatTemplate) -> list[Encoded]:
    """The conversations as authors score them: with all that the template writes behind an answer."""
    whole = ChatTemplate(template.tokenizer, max_length=template.max_length, date=template.date, whole=True)
    return [whole.encode(prompt, answer) for prompt, answer in CONVERSATIONS]


def _place(pooling: Pooling, encoded: Encoded) -> int:
    return int(pooling.positions(pad_batch([encoded.input_ids], 0))[0])


def _of_transformers(trunk: Trunk, head: StateHead, encoded: Sequence[Encoded]) -> _Theirs | None:
    """What transformers' own class reads, and its rewards; None where it has no class for such a trunk."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

    # a copy: two labels would stay in the trunk's configuration, and be saved with it
    config = copy.deepcopy(trunk.model.config)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return None
    # two outputs, for the reward and the position of `_Beside`
    config.num_labels = 2
    # on meta: only the class's forward is wanted, and it gets the trunk that is in memory
    with torch.device("meta"), quiet_transformers():
        model = AutoModelForSequenceClassification.from_config(config)
    prefix = model.base_model_prefix
    if not isinstance(getattr(model, prefix, None), nn.Module) or not hasattr(model, "score"):
        return None
    setattr(model, prefix, trunk.model)
    model.score = _Beside(head)
    found = []
    with _normed(trunk), torch.inference_mode():
        for one in encoded:
            ids = torch.tensor([one.input_ids], device=trunk.device)
            found.append(model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0])
    pooled = torch.stack([one.double().cpu() for one in found]).numpy()
    places = [int(place) for place in pooled[:, 1]]
    tokens = [one.input_ids[place] for one, place in zip(encoded, places, strict=True)]
    return _Theirs(type(model).__name__, places, tokens, pooled[:, 0])


@contextlib.contextmanager
def _normed(trunk: Trunk) -> Iterator[None]:
    """The trunk's model with its final norm back in its place."""
    model: Any = trunk.model
    before = getattr(model, trunk.norm_name)
    assert trunk.final_norm is not None
    setattr(model, trunk.norm_name, _InFloat32(trunk.final_norm))
    try:
        yield
    finally:
        setattr(model, trunk.norm_name, before)


def _tolerance(states: FloatArray, head: StateHead, kind: torch.dtype) -> NDArray[np.float64]:
    """[B] by how much rounding may move a reward: the terms of `w . x`, each off by some steps."""
    steps = 256 if kind == torch.float32 else 16
    # roundings of the terms are independent of each other, so it is their squares that add up
    terms = np.sqrt(np.square(states.astype(np.float64) * head.weight).sum(axis=1))
    return np.asarray(steps * torch.finfo(kind).eps * terms + 1e-6)


def _parted(
    name: str, theirs: str, read: tuple[str, int], ours: tuple[str, int], pooling: Pooling
) -> ModelError:
    return ModelError(
        f"{name}: {theirs} of transformers reads {read[0]!r} (id {read[1]}), the last token that is not the "
        f"pad token, and {pooling} reads {ours[0]!r} (id {ours[1]}). The published scores are those of "
        "transformers' class; a reward read at the other token is another reward",
        hint=f"--pooling last_not_pad (pooling= in Python) for the published one, else {RULES}; "
        "save_pretrained keeps it with the model, for sarm train",
    )


def _token(template: ChatTemplate, token: int) -> tuple[str, int]:
    return str(template.tokenizer.decode([token])), token


def _named(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
