"""The callback that tells a TRL reward whether a call is training, and where checkpoints are."""

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from sarm_control.bounded_json import read_json_object
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.errors import TrainingError
from sarm_control.files import atomic_file

STATE_FILE = "sarm_control.safetensors"
"""The name of the file in every checkpoint folder of the trainer."""

_FORMAT = "sarm-control trl 1"


class SarmCallback(TrainerCallback):
    """Tells a reward when a training step calls it, and keeps what its controls learn.

    A call belongs to training between the begin and the end of an optimizer step, while the model is in
    training mode; all others (evaluation, prediction, calls of your own) change nothing.
    """

    def __init__(self, reward: ControlledReward) -> None:
        self.reward = reward
        self.attached = False
        self.end_tokens: frozenset[int] = frozenset()
        self._in_step = False
        self._model: Any = None
        self._loaded: Path | None = None

    @property
    def learning(self) -> bool:
        """Whether a call made now belongs to training."""
        # both, so that an evaluation within a step teaches nothing either
        return self._in_step and bool(self._model.training)

    def on_init_end(self, *_: Any, model: Any = None, processing_class: Any = None, **__: Any) -> None:
        """Called when the trainer is made: its model and tokenizer have the ids that end answers."""
        self.attached = True
        self.end_tokens = _end_tokens(model, processing_class)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Loads what was learnt until then, where training resumes from a checkpoint.

        Raises:
            TrainingError: see `load`; `output_dir` holds another checkpoint; the processes' rewards differ.
        """
        # a training that was interrupted within a step has left it on
        self._in_step = False
        if state.global_step and self._loaded is None:
            folder = _checkpoint(args, state)
            _check_resumed_from(folder, state)
            self.load(folder)
        self._loaded = None
        _warn_of_saves_within_a_batch(args)
        self._check_processes()

    def on_step_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        """Called before a step: rewards asked for from here on belong to training."""
        self._model = model
        self._in_step = True

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called after a step: evaluation comes between steps."""
        self._in_step = False

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Writes what was learnt into the checkpoint; the file is written as a whole or not at all.

        Raises:
            TrainingError: the trainer keeps its checkpoints in another folder, as a search for
                hyperparameters does.
        """
        if args.should_save:
            folder = _checkpoint(args, state)
            if not folder.is_dir():
                raise TrainingError(f"{folder}: the trainer saved no checkpoint there")
            self.save(folder)

    def save(self, folder: Path) -> None:
        """Writes `sarm_control.safetensors`."""
        from safetensors.numpy import save_file

        # with the digest of the controls: a state of the same shape under other
        # amounts would load without an error
        metadata = {"format": _FORMAT, "fingerprint": self.reward.model.fingerprint, "reward": self._digest()}
        with atomic_file(folder / STATE_FILE) as temporary:
            save_file(self.reward.state_dict(), temporary, metadata)

    def load(self, folder: Path) -> None:
        """Loads what `save` wrote.

        Raises:
            TrainingError: the controls learn, and the file is missing or unreadable; or it was written under
                another reward model, other controls, or another reference.
        """
        from safetensors import SafetensorError, safe_open

        file = folder / STATE_FILE
        # nothing was learnt that could be missing: such a checkpoint may be of before the callback
        # was there
        if not file.exists() and not self.reward.learns:
            return
        try:
            with safe_open(file, framework="numpy") as opened:
                metadata = opened.metadata() or {}
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{file}: what the controls learnt cannot be read ({error})",
                hint="call reward.load(checkpoint) before trainer.train() if it lies elsewhere",
            ) from error
        self._check_origin(file, metadata)
        self.reward.load_state_dict(arrays)
        self._loaded = folder

    def _check_origin(self, file: Path, metadata: dict[str, str]) -> None:
        if metadata.get("format") != _FORMAT:
            raise TrainingError(f"{file}: not written by {_FORMAT}")
        if metadata["fingerprint"] != self.reward.model.fingerprint:
            raise TrainingError(
                f"{file}: learnt on head {metadata['fingerprint']}, "
                f"this reward model has {self.reward.model.fingerprint}"
            )
        if metadata["reward"] != self._digest():
            raise TrainingError(
                f"{file}: learnt under other controls or another reference than this reward's",
                hint="resume with the ones that training started with: save a calibrated reference to a file",
            )

    def _digest(self) -> str:
        """A hash of everything that decides a reward beside the reward model and what is learnt."""
        rule = self.reward.rule
        amounts = [rule.missing_end, rule.mean, rule.scale, rule.par_sd, self.reward.standardize]
        parts = [rule.controls.to_dict(), *amounts]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _check_processes(self) -> None:
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return
        ours = {name: array.tobytes() for name, array in self.reward.state_dict().items()}
        # hashes are compared and not rewards: differences would show only in answers that a control touches
        mark = self._digest() + hashlib.sha256(repr(sorted(ours.items())).encode()).hexdigest()
        marks: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(marks, mark)
        if len(set(marks)) > 1:
            raise TrainingError(
                "the processes have different rewards: other controls, another reference or another state",
                hint="calibrate once, save the statistics and give every process the file",
            )


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _check_resumed_from(folder: Path, state: TrainerState) -> None:
    """Compares log histories, since the trainer does not say which checkpoint it resumed from."""
    file = folder / "trainer_state.json"
    if file.exists():
        # as text, since NaN differs from itself and logs of a training may hold one
        history = json.dumps(read_json_object(file, error=TrainingError).get("log_history"))
        if history != json.dumps(state.log_history):
            raise TrainingError(
                f"{folder}: training was resumed from another checkpoint than this",
                hint="call reward.load(checkpoint) with that checkpoint before trainer.train()",
            )


def _warn_of_saves_within_a_batch(args: Any) -> None:
    """Warns where a checkpoint falls between steps that share a batch; resuming, TRL samples a new one."""
    steps, iterations = getattr(args, "steps_per_generation", None), getattr(args, "num_iterations", 1)
    if args.save_strategy != "steps" or steps is None or args.save_steps < 1:
        return
    # passes over micro-batches that one batch of answers serves
    calls = steps * iterations
    if int(args.save_steps) * args.gradient_accumulation_steps % calls:
        every = calls // math.gcd(calls, args.gradient_accumulation_steps)
        warnings.warn(
            f"save_steps={args.save_steps} saves while a batch of answers is in use: resuming there "
            f"differs from uninterrupted training. Use a multiple of {every}.",
            stacklevel=2,
        )


def _end_tokens(model: Any, processing_class: Any) -> frozenset[int]:
    """The ids at which TRL stops an answer: those of the generation config and of the tokenizer."""
    # a processor of images and text holds its tokenizer
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = [listed] if isinstance(listed, int) else list(listed or [])
    return frozenset(i for i in [*ids, getattr(tokenizer, "eos_token_id", None)] if i is not None)
