"""Linear heads by the names they are stored under, where each is read, and what is no linear head.

Whoever trains a reward model writes a class for it; what such code does at the head stands here in words of
ours, so that none of it is run.

Where each entry was taken from: `score` from transformers 5.23 and the model cards of Skywork and GRM, the
other authors' use of it second-hand; `v_head` from Athene's code; the rules of `regression_head` (Eurus) and
`score_head` (beaver) from their code. The templates of these two, and that beaver's ends in the end of text,
were not checked against it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sarm_control.errors import ModelError
from sarm_control.reward_model.files.checkpoint import TensorEntry

_INST = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}"
    "{% else %}{{ '[INST] ' + message['content'] + ' [/INST] ' }}{% endif %}{% endfor %}"
)
_BEAVER = (
    "{{ 'BEGINNING OF CONVERSATION: ' }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'ASSISTANT:' + message['content'] + eos_token }}"
    "{% else %}{{ 'USER: ' + message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class KnownHead:
    """A linear head that authors store under one name.

    Args:
        name: what its tensors are called, before `.weight` and `.bias`.
        pooling: the rule its authors read by, see `sarm_control.reward_model.trunk.pooling`.
        append: the token that its authors put behind the chat template's text, by its name in a tokenizer.
        template: a chat template for tokenizers that have none.
        in_transformers: whether a class of transformers holds it, which the read-out is compared with.
    """

    name: str
    pooling: str = "last_token"
    append: str | None = None
    template: str | None = None
    in_transformers: bool = False

    @property
    def weight(self) -> str:
        """The tensor of its weights [outputs, D]."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """The tensor of its biases [outputs], which may be missing."""
        return f"{self.name}.bias"


KNOWN_HEADS = (
    KnownHead("score", in_transformers=True),
    KnownHead("v_head", pooling="token:128003", append="cls_token"),
    KnownHead("regression_head", template=_INST),
    KnownHead("score_head", template=_BEAVER),
)
HEADS = tuple(head.weight for head in KNOWN_HEADS)
"""The tensors of their weights."""

_NOT_LINEAR = (
    (
        re.compile(r"gating\."),
        "a gate chooses the weights of its head anew for each prompt, and one head for all prompts is wanted",
    ),
    (
        re.compile(r"(score|v_head|regression_head|score_head|reward_head|classifier)\.(\d+|\w+\.\d+)\."),
        "its head is a network of several layers, and only a linear one can be split into parts that add up",
    ),
    (
        re.compile(r"v_head\.(summary|fc|mlp|dense)"),
        "its value head is no single linear layer of a declared position",
    ),
    (
        re.compile(r"(regression_layer|quantile|weights_layer)"),
        "its head gives attributes or quantiles, which something else makes a reward of",
    ),
)
_CODE_OF_ITS_OWN = {
    "internlm2": "its trunk is InternLM2's own code, which transformers does not have",
}


def known_head(index: Mapping[str, TensorEntry], raw: Mapping[str, Any], name: str) -> KnownHead | None:
    """The linear head among a checkpoint's tensors; None where it has no head at all.

    Args:
        index: from `read_index`.
        raw: the dict in `config.json`.
        name: what to call the model in errors.

    Raises:
        ModelError: a head that is not linear, or a trunk that transformers does not have, and why.
    """
    kind = str(raw.get("model_type"))
    if kind in _CODE_OF_ITS_OWN:
        raise _refused(name, _CODE_OF_ITS_OWN[kind])
    for pattern, why in _NOT_LINEAR:
        # from the beginning of a name: layers of a trunk may have such words inside theirs
        if any(pattern.match(tensor) for tensor in index):
            raise _refused(name, why)
    if raw.get("do_normalize"):
        raise _refused(name, "its rewards are normalised by running statistics (do_normalize)")
    found = [head for head in KNOWN_HEADS if head.weight in index]
    if len(found) > 1:
        raise _refused(name, f"it has two heads, {found[0].weight} and {found[1].weight}")
    return found[0] if found else None


def head_in(index: Mapping[str, TensorEntry], raw: Mapping[str, Any], name: str) -> KnownHead:
    """The head of a classifier.

    Raises:
        ModelError: there is none that is linear.
    """
    known = known_head(index, raw, name)
    if known is None:
        raise no_head(name, "config.json has no sarm_param either")
    return known


def no_head(name: str, also: str) -> ModelError:
    """The error about a checkpoint that gives no reward."""
    return ModelError(
        f"{name} is no reward model: it has no linear head ({', '.join(HEADS)}), as a base model or a "
        f"generative judge has none, and {also}. A head made up at random would score at random",
        hint="give a reward model, or build a SARM from it with: sarm build --base "
        f"{name} --layer N --latents L --k K --text texts.jsonl --pairs pairs.jsonl -o DIR",
    )


def _refused(name: str, why: str) -> ModelError:
    return ModelError(
        f"{name} cannot be loaded as a reward model: {why}",
        hint="docs/reward-models.md lists what loads; a linear head is r = w . x + c of the last state",
    )
