"""The reward model: from text to rewards and the latents that make them up.

It is a trunk, a pooling rule, a dictionary and a head. A SARM's dictionary is its autoencoder, and its
rewards are the latents' alone. A reward model with a linear head of its own needs no dictionary: its rewards
are its own, and a dictionary that is attached to its state says what they are made of.

Shapes: `N` answers, `B` answers of one batch, `D` hidden size, `L` latents, `K` kept latents.
"""

import contextlib
import copy
import datetime
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sarm_control.console import ProgressFactory, no_progress, say
from sarm_control.conversation import ChatTemplate, Encoded, configured_ends, load_tokenizer
from sarm_control.data import Prompt
from sarm_control.errors import ConfigError, ModelError
from sarm_control.lazy import of_later_room
from sarm_control.reward_model.attached import (
    AttachedAutoencoder,
    attached_fingerprint,
    read_attached,
    save_attached,
)
from sarm_control.reward_model.autoencoder import Autoencoder
from sarm_control.reward_model.classifier.gate import GateReport, check_read_out
from sarm_control.reward_model.classifier.loading import Asked, Classifier, load_classifier
from sarm_control.reward_model.description import head_of
from sarm_control.reward_model.files.checkpoint import (
    find_folder,
    read_index,
)
from sarm_control.reward_model.files.classifier_config import (
    ClassifierConfig,
    is_attached,
    read_classifier_config,
)
from sarm_control.reward_model.files.config import SarmConfig, is_sarm
from sarm_control.reward_model.files.finite import OnNonfinite, check_scored
from sarm_control.reward_model.files.model_fingerprint import model_fingerprint
from sarm_control.reward_model.files.saving import save_classifier, save_sarm
from sarm_control.reward_model.head import HeadEdit, LinearHead, no_latents
from sarm_control.reward_model.prompt_answers import prompt_answer_rows
from sarm_control.reward_model.ready_made import ReadyMadeAutoencoder, state_width, trunk_for, varying_latents
from sarm_control.reward_model.sarm_tensors import checked_sarm, read_autoencoder
from sarm_control.reward_model.scored import Kind, Scored
from sarm_control.reward_model.sparse import FloatArray, SparseLatents
from sarm_control.reward_model.trunk.batching import (
    PaddingSide,
    check_embeddings,
    fixed_lengths,
    length_sorted_batches,
    pad_batch,
    scoring_batch_tokens,
)
from sarm_control.reward_model.trunk.out_of_memory import compute_halving
from sarm_control.reward_model.trunk.placement import dtype_of
from sarm_control.reward_model.trunk.pooling import Pooling
from sarm_control.reward_model.trunk.shared_prompts import can_share, rows_of_one_prompt, states_behind
from sarm_control.reward_model.trunk.torch_backend import has_tiles, usable_device
from sarm_control.reward_model.trunk.trunk import (
    Trunk,
    context_of,
    load_trunk,
)

_HALF = (torch.bfloat16, torch.float16)


class RewardModel:
    """`reward = sum_i w_i z_i + constant + residual`, read at one token of a conversation.

    Of a SARM constant and residual are 0. A reward model with a linear head over its own state has no
    latents until a dictionary is attached: its reward is constant and residual alone. Use
    `RewardModel.from_pretrained`; the constructor is for code that builds one.

    Args:
        config: source layer, latents, k.
        trunk: the decoder layers, and the final norm where the head reads the state behind it.
        autoencoder: in float32, on the trunk's last device; None without a dictionary.
        head: the head weights, and the reward model's own head.
        template: the tokenizer's chat template.
        model_fingerprint: identifies the stored trunk and autoencoder; None for what was built in memory.
        pooling: the token whose state is read; default the last end-of-turn.
        head_name: what the tensors of its own head are called, before `.weight`.
    """

    def __init__(
        self,
        config: SarmConfig | ClassifierConfig,
        trunk: Trunk,
        autoencoder: Autoencoder | None,
        head: LinearHead,
        template: ChatTemplate,
        model_fingerprint: str | None = None,
        *,
        pooling: Pooling | None = None,
        head_name: str = "score",
    ) -> None:
        self.config = config
        self.trunk = trunk
        self.dictionary = None if autoencoder is None else autoencoder.requires_grad_(False).eval()
        self.head = head
        self.template = template
        self.model_fingerprint = model_fingerprint
        self.pooling = pooling or Pooling("end_of_turn", template.end_of_turn_id)
        self.head_name = head_name
        self.gate: GateReport | None = None
        self.source: dict[str, Any] = {}
        """Where it was loaded from, and how; empty for what was built in memory."""
        self._base_fingerprints: tuple[str, str | None] = (head.fingerprint, model_fingerprint)

    @classmethod
    def from_pretrained(
        cls,
        id_or_folder: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        max_length: int | None = None,
        template_date: datetime.date | str | None = None,
        pooling: str | None = None,
        output: int | str | None = None,
    ) -> "RewardModel":
        """Loads a SARM, or a sequence classifier with a linear head, or a dictionary attached to one.

        Nothing of the checkpoint is run or unpickled. A classifier is compared with transformers' own class
        before its first reward, see `sarm_control.reward_model.classifier.gate`.

        Args:
            id_or_folder: a folder, a hub id (downloaded once), or "lab", the SARM inside the package.
            device: "cpu", "cuda", "cuda:1", ... or "auto" to spread a large trunk over
                the GPUs; the default is a GPU when there is one.
            dtype: the trunk's dtype ("float32", "bfloat16", ...); the default is the
                checkpoint's. Autoencoder and head are float32 always.
            revision: of a hub id.
            local_files_only: never use the network.
            max_length: tokens of a conversation; the default is the trunk's context.
            template_date: the day that a chat template which writes today's date is told: a date, "today"
                or "2026-01-31". The default is the day the SARM was built with, where its config.json
                says so, else the day the template itself falls back on, or 26 July 2024, so that a
                score does not change overnight.
            pooling: the token a classifier is read at, where it is not the one kept with it or that of its
                authors: `last_token`, `end_of_turn`, `last_not_pad` or `token:ID`.
            output: which output of a classifier is the reward, from 0, or `difference` of two.

        Raises:
            ModelError: the folder does not exist, is no such model, holds a pickle, or has tensors missing,
                extra or of another shape; or it is not clear which token a classifier is read at.
            ConfigError: there is no such device, output or pooling rule, or `template_date` is no date.
        """
        name, device = str(id_or_folder), usable_device(device)
        folder = find_folder(id_or_folder, revision=revision, local_files_only=local_files_only)
        asked = Asked(device, dtype, max_length, template_date, pooling, output)
        # absolute: the folder of a dictionary attached to it points here, and may be read from anywhere
        where = str(Path(name).resolve()) if Path(name).is_dir() else name
        source = {"model": where, "revision": revision, "output": output}
        if is_attached(folder):
            return cls._attached(folder, name, asked, local_files_only=local_files_only)
        if is_sarm(folder, name):
            if pooling is not None or output is not None:
                raise ConfigError(
                    f"{name} is a SARM, which has one output and is read at the end of turn",
                    hint="leave pooling and output out",
                )
            found = cls._sarm(folder, name, asked)
            found.source = source
            return found
        classifier = read_classifier_config(folder, name)
        loaded = load_classifier(folder, name, classifier, read_index(folder, name), asked)
        return cls._classifier(loaded, name, source)

    @classmethod
    def _sarm(cls, folder: Path, name: str, asked: Asked) -> "RewardModel":
        config, index, cut, of_trunk = checked_sarm(folder, name)
        trunk = load_trunk(
            folder, cut, name=name, dtype=dtype_of(asked.dtype), device=asked.device, index=of_trunk
        )
        autoencoder = read_autoencoder(index, config, trunk.hidden_size, name)
        head = head_of(index, name)
        template = ChatTemplate(
            load_tokenizer(str(folder), local_files_only=True),
            max_length=asked.max_length or context_of(cut),
            date=config.template_date if asked.template_date is None else asked.template_date,
            ends=configured_ends(config.trunk),
        )
        own = model_fingerprint(index, config)
        return cls(config, trunk, autoencoder.to(_last_device(trunk)), head, template, own)

    @classmethod
    def _classifier(cls, found: Classifier, name: str, source: Mapping[str, Any]) -> "RewardModel":
        """The model of these parts, after a look at what it reads."""
        config = replace(found.config, pooling=str(found.pooling))
        model = cls(
            config,
            found.trunk,
            None,
            found.head,
            found.template,
            found.fingerprint,
            pooling=found.pooling,
            head_name=found.known.name,
        )
        assert found.head.own is not None
        model.gate = check_read_out(
            name,
            found.trunk,
            found.head.own,
            found.template,
            found.pooling,
            lambda rows, side: model._pooled_states(rows, None, side, no_progress).numpy(),
            published=found.known.in_transformers,
            asked_for=found.asked_for,
        )
        model.source = {**source, "pooling": str(found.pooling)}
        say(model.gate.line())
        return model

    @classmethod
    def _attached(cls, folder: Path, name: str, asked: Asked, *, local_files_only: bool) -> "RewardModel":
        """The reward model that a dictionary's folder points to, with the dictionary."""
        if asked.pooling is not None or asked.output is not None:
            raise ConfigError(
                f"{name}: the dictionary is of one output, read at one token",
                hint="leave pooling and output out, or attach another dictionary",
            )
        found = read_attached(folder, name)
        base = cls.from_pretrained(
            found.source["model"],
            revision=found.source.get("revision"),
            local_files_only=local_files_only,
            **{**asked._asdict(), "pooling": found.source["pooling"], "output": found.source["output"]},
        )
        found.check(base.fingerprint, base.model_fingerprint, name)
        attached = base.attach(found.autoencoder)
        return attached if found.edited is None else attached.with_head(found.edited)

    @property
    def kind(self) -> Kind:
        """A SARM, a classifier, or one with a dictionary attached."""
        if self.head.own is None:
            return "sarm"
        return "classifier" if self.dictionary is None else "attached"

    def __repr__(self) -> str:
        """What it is: kind, base, latents, type, pooling and head, in one line."""
        stored = next(self.trunk.parameters()).dtype
        base = self.source.get("model", "built in memory")
        latents = f"{self.config.latents} latents" if self.config.latents else "no latents"
        kept = f", k={self.config.k}" if self.config.latents and self.config.use_topk else ""
        read = f"read at {self.pooling}, {str(stored).removeprefix('torch.')} on {self.device}"
        return f"RewardModel({self.kind}, {base}, {latents}{kept}, {read}, head {self.fingerprint})"

    @property
    def autoencoder(self) -> Autoencoder:
        """The dictionary.

        Raises:
            ModelError: there is none.
        """
        if self.dictionary is None:
            raise no_latents("nothing can be encoded")
        return self.dictionary

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Trunk, and dictionary where there is one."""
        return (self.trunk,) if self.dictionary is None else (self.trunk, self.dictionary)

    def attach(self, autoencoder: AttachedAutoencoder) -> "RewardModel":
        """This reward model with a dictionary of its state; its rewards stay what they are, to the bit.

        Args:
            autoencoder: of the state `x` that its own head reads.

        Raises:
            ModelError: a SARM, a model that has one, or a dictionary of another width.
        """
        own = self.head.own
        if own is None or self.dictionary is not None:
            raise ModelError("this reward model has a dictionary already")
        weight, constant = autoencoder.latent_weights(own)
        other = copy.copy(self)
        other.trunk = trunk_for(autoencoder, self.trunk)
        other.dictionary = autoencoder.requires_grad_(False).eval().to(_last_device(self.trunk))
        other.head = LinearHead(weight, constant=constant, own=own)
        other.config = replace(
            self._classifier_config(), latents=len(weight), k=autoencoder.k, use_topk=autoencoder.use_topk
        )
        other.model_fingerprint = attached_fingerprint(self.model_fingerprint, autoencoder)
        # a saved dictionary is checked by these when it is loaded: another model may lie there by then
        other._base_fingerprints = (self.fingerprint, self.model_fingerprint)
        return other

    @property
    def device(self) -> torch.device:
        """Where the trunk takes its token ids."""
        return self.trunk.device

    @property
    def fingerprint(self) -> str:
        """Identifies the head; latent numbers mean nothing under another one."""
        return self.head.fingerprint

    def with_head(self, weight: FloatArray) -> "RewardModel":
        """The same trunk and autoencoder under other head weights [L]; nothing is copied."""
        if weight.shape != self.head.weight.shape:
            raise ModelError(
                f"the head has {self.head.weight.shape[0]} weights, {weight.shape[0]} were given"
            )
        other = copy.copy(self)
        other.head = self.head.with_weight(np.asarray(weight, dtype=np.float32))
        return other

    def with_autoencoder(self, autoencoder: Autoencoder) -> "RewardModel":
        """The same trunk and head behind another dictionary in memory; nothing is copied."""
        other = copy.copy(self)
        other.dictionary = autoencoder.requires_grad_(False).eval()
        other.model_fingerprint = None  # another dictionary, another model
        return other

    @contextlib.contextmanager
    def edited(self, edits: Iterable[HeadEdit]) -> Iterator["RewardModel"]:
        """Head edits for the length of a `with` block: this very model pays by the edited head.

        Whoever holds the model sees the edits, and the fingerprint is that of the edited head. Blocks
        may be nested; the head of before is back at the end, also after an error.

        Args:
            edits: scalings of latents (or `set=0`), at most one for a latent: for `w_i z_i`, scaling
                z_i and scaling w_i are the same.

        Raises:
            ConfigError: an edit that is not a scaling, such as a cap.
            ModelError: a latent that the model does not have, or two edits of one latent.
        """
        factors: dict[int, float] = {}
        for edit in edits:
            if edit.latent in factors:
                raise ModelError(f"latent {edit.latent} has two edits", hint="combine them in one edit")
            factors[edit.latent] = edit.head_factor()
        before = self.head
        self.head = before.scaled(factors)
        try:
            yield self
        finally:
            self.head = before

    def score(
        self,
        prompts: Prompt | Sequence[Prompt],
        responses: str | Sequence[str],
        *,
        ended: Sequence[bool] | None = None,
        batch_tokens: int | None = None,
        padding_side: PaddingSide = "right",
        keep_states: bool = False,
        on_nonfinite: OnNonfinite = "raise",
        prefix_reuse: bool = False,
        progress: ProgressFactory = no_progress,
    ) -> Scored:
        """Rewards and latents of N (prompt, answer) rows, in the order given.

        Args:
            prompts: one prompt (a string or a list of messages) or N of them.
            responses: one answer or N of them; an empty string is legal.
            ended: [N] false where an answer hit its length limit; default all true.
            batch_tokens: padded tokens of one forward pass; does not change results (of a trunk in half
                precision on a GPU by its rounding, see docs/scoring.md).
            padding_side: does not change results either, beyond the trunk's rounding; for self-checks.
            keep_states: also return the trunk states [N, D].
            on_nonfinite: "keep" returns rewards and latents that are NaN or infinite as they are.
            prefix_reuse: compute a prompt once for consecutive rows that share it, where it is at least half
                of each; float32 alone. Rewards may differ in their last bits, see docs/scoring.md.
            progress: see `sarm_control.console.progress`.

        Where the memory runs out on a batch, it is computed in two halves, and one line on stderr says so.

        Raises:
            ModelError: N prompts for M answers, a conversation the template refuses, or halves that the
                memory does not hold either.
            NonFiniteError: a reward or latent is NaN or infinite; it names the rows and the cause.
        """
        rows = prompt_answer_rows(prompts, responses)
        flags = [True] * len(rows) if ended is None else list(ended)
        if len(flags) != len(rows):
            raise ModelError(f"{len(flags)} ended flags were given for {len(rows)} answers")
        encoded = self.template.encode_rendered(
            [
                self.template.render(prompt, response, ended=flag)
                for (prompt, response), flag in zip(rows, flags, strict=True)
            ]
        )
        return self.score_encoded(
            encoded,
            batch_tokens=batch_tokens,
            padding_side=padding_side,
            keep_states=keep_states,
            on_nonfinite=on_nonfinite,
            prefix_reuse=prefix_reuse,
            progress=progress,
        )

    def score_encoded(
        self,
        encoded: Sequence[Encoded],
        *,
        batch_tokens: int | None = None,
        padding_side: PaddingSide = "right",
        keep_states: bool = False,
        on_nonfinite: OnNonfinite = "raise",
        prefix_reuse: bool = False,
        progress: ProgressFactory = no_progress,
    ) -> Scored:
        """As `score`, for N conversations that `template` made token ids of."""
        states = self._pooled_states(encoded, batch_tokens, padding_side, progress, prefix_reuse=prefix_reuse)
        latents = self.score_states(states)
        kept = states.numpy() if keep_states else None
        own = (
            None
            if self.head.own is None
            # of two halves (`BothSides`) the first is the state that the head reads
            else self.head.own.rewards(states.numpy()[:, : self.trunk.hidden_size])
        )
        scored = Scored.of(latents, self.head, encoded, kept, self.model_fingerprint, own)
        if on_nonfinite == "raise":
            check_scored(scored, states, next(self.trunk.parameters()).dtype)
        return scored

    @torch.inference_mode()
    def score_states(self, states: Tensor, *, chunk: int = 256) -> SparseLatents:
        """Latents of N trunk states [N, D] taken at the end of turn.

        In chunks, so that at most [chunk, L] pre-activations exist at once.
        """
        if self.dictionary is None:
            none = np.zeros((len(states), 0))
            return SparseLatents.of_equal_rows(none.astype(np.int32), none.astype(np.float32), 0)
        if isinstance(self.dictionary, ReadyMadeAutoencoder):
            return varying_latents(self.dictionary, states, chunk)
        parts = []
        for part in states.split(chunk):
            kept = self.autoencoder.encode(part.to(self.autoencoder.pre_bias.device))
            indices, values = kept.indices.int().cpu().numpy(), kept.values.float().cpu().numpy()
            parts.append(SparseLatents.of_equal_rows(indices, values, self.config.latents))
        return SparseLatents.concatenate(parts)

    def bench(
        self,
        prompt: Prompt,
        answers: str | Sequence[str],
        *,
        edits: Iterable[Any] = (),
        names: Mapping[int, str] | str | Path | None = None,
    ) -> Any:
        """A widget for notebooks: answers as bars that sum to their rewards, and sliders that edit latents.

        Args:
            prompt: a string or a list of messages.
            answers: one, or up to 16.
            edits: to begin with: `Edit`s, or their spelling such as "12:max=2".
            names: of latents, or a file of `sarm label`.

        Returns:
            The widget; its `edits`, `rewards` and `save(path)` follow what is done in it.

        Raises:
            SarmError: anywidget (extra `explore`) is missing, or what is given cannot be used.
        """
        return of_later_room("explorer", "open_bench")(self, prompt, answers, edits, names)

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes config, safetensors and tokenizer; loading it again gives the same bits.

        Of an attached dictionary the folder is small: it points to the reward model.

        Raises:
            OutputError: the folder exists already or cannot be written.
            ModelError: an attached dictionary whose reward model was built in memory.
        """
        if self.dictionary is not None and self.head.own is not None:
            return save_attached(
                Path(folder),
                self.autoencoder,
                source=self.source,
                fingerprints=self._base_fingerprints,
                edited=None if self.head.unedited is None else self.head.weight,
                overwrite=overwrite,
            )
        tokenizer = self.template.tokenizer
        if self.head.own is not None:
            return save_classifier(
                Path(folder),
                config=self._classifier_config(),
                trunk=self.trunk,
                head=self.head.own,
                head_name=self.head_name,
                tokenizer=tokenizer,
                overwrite=overwrite,
            )
        if not isinstance(self.config, SarmConfig):
            raise TypeError("a SARM without its configuration")
        return save_sarm(
            Path(folder),
            config=self.config,
            trunk=self.trunk,
            autoencoder=self.autoencoder,
            head=self.head,
            tokenizer=tokenizer,
            overwrite=overwrite,
        )

    def _classifier_config(self) -> ClassifierConfig:
        if not isinstance(self.config, ClassifierConfig):
            raise TypeError("a reward model with a head of its own without its configuration")
        return self.config

    def _has_fixed_lengths(self) -> bool:
        """Whether rows are padded each to a length of its own, so that half precision rounds them alike."""
        return self.device.type == "cpu" and next(self.trunk.parameters()).dtype in _HALF

    @torch.inference_mode()
    def _pooled_states(
        self,
        encoded: Sequence[Encoded],
        batch_tokens: int | None,
        side: PaddingSide,
        progress: ProgressFactory,
        *,
        prefix_reuse: bool = False,
    ) -> Tensor:
        budget = batch_tokens or scoring_batch_tokens(self.device.type)
        embeddings: Any = self.trunk.model.get_input_embeddings()
        known = int(embeddings.weight.shape[0])
        check_embeddings(encoded, known)
        # padding is masked: any token will do where the tokenizer's own has no embedding
        pad = self.template.pad_id if self.template.pad_id < known else self.template.end_of_turn_id
        pooled = torch.empty((len(encoded), state_width(self.trunk)), dtype=torch.float32)
        with progress("Scoring", len(encoded)) as advance:
            padded, fixed = [len(row.input_ids) for row in encoded], self._has_fixed_lengths()
            if fixed:
                # tile units take sums in an order that depends on the number of rows, too
                budget = 1 if has_tiles() else budget
                padded = fixed_lengths(padded, context_of(self.trunk.model.config) or sys.maxsize)

            def compute(rows: list[int], *, behind_prompt: bool = False) -> None:
                ids = [encoded[row].input_ids for row in rows]
                batch = pad_batch(ids, pad, side=side, device=self.device, length=padded[rows[0]])
                places = self.pooling.positions(batch)
                prompt = encoded[rows[0]].prompt_length
                if behind_prompt and bool((places >= prompt).all()):
                    states = states_behind(self.trunk, batch, prompt, places)
                else:
                    mask = None if side == "right" else batch.attention_mask  # no token looks to its right
                    states = self.trunk.states_at(batch.input_ids, mask, places)
                pooled[rows] = states.float().cpu()
                advance(len(rows))

            # first rows behind a shared prompt, then all others; each writes to its own place in `pooled`
            share = prefix_reuse and side == "right" and can_share(self.trunk)
            together = rows_of_one_prompt(encoded, budget) if share else []
            compute_halving(together, padded, partial(compute, behind_prompt=True))
            done = {row for rows in together for row in rows}
            rest = [row for row in range(len(encoded)) if row not in done]
            batches = length_sorted_batches([padded[row] for row in rest], budget, equal=fixed)
            compute_halving([[rest[row] for row in rows] for rows in batches], padded, compute)
        return pooled


def _last_device(trunk: Trunk) -> torch.device:
    return next(trunk.layers[-1].parameters()).device
