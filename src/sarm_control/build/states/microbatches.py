"""Preference rows padded together, and the Bradley-Terry loss of each.

Shapes: `R` rows of a micro-batch, `B` their answers, `T` tokens, `C` comparisons.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sarm_control.build.head.comparisons import PreferenceRow
from sarm_control.build.states.texts import Conversation
from sarm_control.conversation import ChatTemplate
from sarm_control.reward_model import Padded, pad_batch


class MicroBatch(NamedTuple):
    """Whole rows that go through the trunk at once.

    Args:
        rows: R positions among all rows.
        tokens: [B, T], the rows' answers one row after the other.
        annotators: [B] int64, the annotator of the row that an answer belongs to.
        chosen: [C] int64, positions among the B answers.
        rejected: [C] int64.
        row: [C] int64, positions among the R rows.
        share: [C], `1 / n` for a row of n comparisons.
    """

    rows: list[int]
    tokens: Padded
    annotators: Tensor
    chosen: Tensor
    rejected: Tensor
    row: Tensor
    share: Tensor

    def losses(self, rewards: Tensor) -> Tensor:
        """[R] mean of `log(1 + exp(r_rejected - r_chosen))` over each row's pairs, from rewards [B]."""
        # softplus(-margin) is -log sigmoid(margin) without overflow; the share makes a mean of a row's pairs
        each = nn.functional.softplus(rewards[self.rejected] - rewards[self.chosen]) * self.share
        return each.new_zeros(len(self.rows)).index_add(0, self.row, each)


class EncodedRows:
    """Preference rows whose answers are encoded as token ids.

    Args:
        template: encodes each answer, once.
        answers: the answers that rows refer to; others are not encoded.
        rows: the preferences.
        device: of the micro-batches.
    """

    def __init__(
        self,
        template: ChatTemplate,
        answers: Sequence[Conversation],
        rows: Sequence[PreferenceRow],
        device: torch.device,
    ) -> None:
        used = {answer for row in rows for answer in (*row.chosen, *row.rejected)}
        self._ids = {j: template.encode(answers[j].prompt, answers[j].response).input_ids for j in used}
        self._longest = [max(len(self._ids[j]) for j in (*row.chosen, *row.rejected)) for row in rows]
        self._rows = rows
        self._pad_id = template.pad_id
        self._device = device

    def micro_batches(self, step: Iterable[int], batch_tokens: int) -> Iterator[MicroBatch]:
        """The rows of a step, longest first, in micro-batches of whole rows.

        Args:
            step: positions among all rows.
            batch_tokens: answers times longest answer of a micro-batch; a larger row is a micro-batch of its
                own.
        """
        return map(self._padded, self._grouped(step, batch_tokens))

    def _grouped(self, step: Iterable[int], batch_tokens: int) -> list[list[int]]:
        groups: list[list[int]] = []
        held = 0
        # longest first: a group's first row then bounds its padded length
        for j in sorted(step, key=lambda row: (-self._longest[row], row)):
            size = len(self._rows[j].chosen) + len(self._rows[j].rejected)
            if groups and (held + size) * self._longest[groups[-1][0]] <= batch_tokens:
                groups[-1].append(j)
                held += size
            else:
                groups.append([j])
                held = size
        return groups

    def _padded(self, group: list[int]) -> MicroBatch:
        ids: list[list[int]] = []
        annotators: list[int] = []
        comparisons: list[tuple[int, int, int]] = []
        share: list[float] = []
        for number, row in enumerate(self._rows[j] for j in group):
            texts, cut = (*row.chosen, *row.rejected), len(ids) + len(row.chosen)
            pairs = [(c, r, number) for c in range(len(ids), cut) for r in range(cut, len(ids) + len(texts))]
            comparisons += pairs
            share += [1.0 / len(pairs)] * len(pairs)
            annotators += [row.annotator] * len(texts)
            ids += [self._ids[j] for j in texts]
        tokens = pad_batch(ids, self._pad_id, device=self._device)
        chosen, rejected, of = torch.tensor(comparisons, device=self._device).unbind(dim=1)
        who = torch.tensor(annotators, device=self._device)
        return MicroBatch(group, tokens, who, chosen, rejected, of, torch.tensor(share, device=self._device))
