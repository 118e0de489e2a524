"""Latents of scripts/real_attach.py's attached model, from the states that `sarm attach` kept.

`sarm latents` would pass every text through the trunk once more. Everything else is as it does it: the same
rows, the same scores of a state, the same folder.

Shapes: `D` hidden size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from real_text import CHAT, REFUSE, RESPOND, TEST, Places
from torch import Tensor

from sarm_control.latents import Job, LatentsWriter, ModelSpec, extract, plan, survey, template_check

if TYPE_CHECKING:
    from sarm_control.build import Conversation
    from sarm_control.reward_model import RewardModel

Tokens = tuple[int, ...]


def write_latents(places: Places, model: str, rows: Sequence[str], out: Path, *, shard_rows: int) -> None:
    """A folder of latents of benchmark files, as `sarm latents` writes it.

    Args:
        places: where the states, the rows and the model are.
        model: its folder's name.
        rows: names of the files.
        out: the folder; what is begun goes on.
        shard_rows: rows of a shard.
    """
    from sarm_control.reward_model import describe, read_template

    name = places.out(model)
    described = describe(name)
    data = survey(
        [places.work / "rows" / one for one in rows],
        want={"pair"},
        shard_rows=shard_rows,
        check=template_check(read_template(name)),
    )
    spec = WithStates(name, model, states_of=places)
    job = plan(data, spec, described, shard_rows=shard_rows, chosen=None, states=True)
    writer = _opened(job, out, described.head.weight)
    extract(job, writer, writer.missing())
    writer.finish()


def _opened(job: Job, out: Path, head: Any) -> LatentsWriter:
    writer = job.writer(out)
    if out.exists():
        for problem in writer.resume(head):
            print(f"{problem}; made again")
    else:
        writer.start(head)
    return writer


@dataclass(frozen=True)
class WithStates(ModelSpec):
    """A reward model that reads the states of texts that were kept; others pass its trunk.

    Args:
        states_of: where they are kept.
    """

    states_of: Places = field(kw_only=True)

    def load(self) -> "RewardModel":
        """The reward model; says how many states are kept."""
        from sarm_control.reward_model import RewardModel

        found = RewardModel.from_pretrained(self.name, device="cpu")
        kept = kept_states(self.states_of)
        print(f"{len(kept)} states are kept", flush=True)
        found._pooled_states = reading(found, kept)  # type: ignore[method-assign]
        return found


def reading(model: "RewardModel", kept: Mapping[Tokens, Tensor]) -> Any:
    """`model._pooled_states` that looks first among kept states [D], by the tokens of a conversation."""
    computed = model._pooled_states

    def pooled(encoded: Sequence[Any], *more: Any, **options: Any) -> Tensor:
        ids = [tuple(row.input_ids) for row in encoded]
        new = [j for j, one in enumerate(ids) if one not in kept]
        passed = (
            dict(zip(new, computed([encoded[j] for j in new], *more, **options), strict=True)) if new else {}
        )
        if new:
            print(f"{len(new)} of {len(ids)} states are computed", flush=True)
        return torch.stack([passed[j] if j in passed else kept[one] for j, one in enumerate(ids)])

    return pooled


def kept_states(places: Places) -> dict[Tokens, Tensor]:
    """Every state [D] that `sarm attach` kept, by the tokens of its conversation."""
    from sarm_control.attaching import collect_pooled_states
    from sarm_control.reward_model import RewardModel

    bare = RewardModel.from_pretrained(places.out("rm"), device="cpu")
    found: dict[Tokens, Tensor] = {}
    for answers, others in corpora(places):
        read = collect_pooled_states(bare, answers, others=others, cache=places.work / "states")
        encoded = [bare.template.encode(one.prompt, one.response) for one in answers]
        found |= {tuple(one.input_ids): state for one, state in zip(encoded, read.pooled, strict=True)}
    return found


def corpora(places: Places) -> Iterator[tuple[Sequence["Conversation"], bool]]:
    """The answers as `sarm attach` reads them, and whether states inside of them were kept too."""
    from sarm_control.attaching import AttachConfig
    from sarm_control.build import ConversationCorpus, gather, read_pairs, read_texts

    rows, config = places.work / "rows", AttachConfig()
    pairs = read_pairs([rows / name for name in (CHAT, REFUSE, RESPOND)])
    texts = read_texts([places.work / "broken_pairs.jsonl"])
    material = gather(texts, pairs, holdout=config.holdout, seed=config.seed)
    yield material.corpus.answers, True
    test = read_pairs([rows / TEST])
    shared, fresh = material.corpus.shared_with(test), ConversationCorpus()
    for row in test:
        if row.prompt_key not in shared:
            fresh.add(row)
    yield fresh.answers, False
