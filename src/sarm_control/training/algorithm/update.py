"""The PPO update: epochs over minibatches, gradients accumulated over micro-batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sarm_control.errors import ConfigError, TrainingError
from sarm_control.training.algorithm.experience import Experience
from sarm_control.training.algorithm.losses import policy_loss, value_loss
from sarm_control.training.algorithm.minibatches import MicroBatch, epoch_order
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.distributed.processes import ALONE, Processes
from sarm_control.training.policy.policy import Policy
from sarm_control.training.policy.sharding import clip_gradients, parted_like, whole_tensor

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class _Sums:
    """Sums over all tokens of all updates of a step."""

    tokens: int = 0
    policy: float = 0.0
    value: float = 0.0
    clipped: float = 0.0
    approx_kl: float = 0.0
    updates: int = 0
    policy_norm: float = 0.0
    value_norm: float = 0.0
    ratio_first: float | None = None

    @classmethod
    def together(cls, parts: "Sequence[_Sums]") -> "_Sums":
        """The sums over all processes; tokens, updates and norms are the same in each."""
        names = ("policy", "value", "clipped", "approx_kl")
        totals = {name: sum(getattr(part, name) for part in parts) for name in names}
        # a process with an empty slice of the first minibatch has none
        ratio = max((part.ratio_first for part in parts if part.ratio_first is not None), default=None)
        return replace(parts[0], **totals, ratio_first=ratio)

    def metrics(self, *, critic: bool) -> dict[str, float]:
        of_policy = {
            "policy/loss": self.policy / self.tokens,
            "policy/approx_kl": self.approx_kl / self.tokens,
            "policy/clip_fraction": self.clipped / self.tokens,
            "policy/grad_norm": self.policy_norm / self.updates,
            "policy/ratio_first": self.ratio_first or 0.0,
        }
        of_value = {
            "value/loss": self.value / self.tokens,
            "value/grad_norm": self.value_norm / self.updates,
        }
        return {**of_policy, **(of_value if critic else {})}


class Updater:
    """AdamW over the trained weights of the policy and of its critic.

    Args:
        policy: its weights are trained.
        settings: learning rates, clip ranges, epochs.
        processes: share the micro-batches.

    Raises:
        ConfigError: the policy lacks the critic that the settings name.
    """

    def __init__(self, policy: Policy, settings: TrainingConfig, processes: Processes = ALONE) -> None:
        if settings.value != "head" and not policy.critic.body():
            raise ConfigError(
                f"training.value is {settings.value}, but the policy's values stand on its own states",
                hint="give it a critic first: sarm_control.training.policy.critic_model.attach_critic",
            )
        self.policy = policy
        self.settings = settings
        self.processes = processes
        groups = [
            {"params": list(policy.trainable().values()), "lr": settings.learning_rate},
            {"params": list(policy.critic_weights().values()), "lr": settings.value_learning_rate},
        ]
        # The kernels that update many weights at once refuse a mixture of sharded and whole weights.
        foreach = None if policy.sharding is None else False
        # eps 1e-5, as is usual in PPO: the second moments of the first steps are tiny
        self.optimizer = torch.optim.AdamW(groups, eps=1e-5, weight_decay=0.0, foreach=foreach)

    def update(
        self, experience: Experience, plan: Sequence[Sequence[MicroBatch]], step: int
    ) -> dict[str, float]:
        """All epochs of one step (from 1) over `plan` (minibatches of micro-batches); returns its metrics.

        Raises:
            TrainingError: a gradient is NaN or infinite.
        """
        settings, sums = self.settings, _Sums()
        self._set_learning_rates(step)
        for epoch in range(settings.epochs):
            for i in epoch_order(len(plan), seed=settings.seed, step=step, epoch=epoch):
                self._minibatch(experience, plan[i], sums, step)
        return _Sums.together(self.processes.gather(sums)).metrics(critic=settings.has_critic)

    def kept_rows(self, plan: Sequence[Sequence[MicroBatch]], step: int) -> MicroBatch | None:
        """The micro-batch that the update begins with; its pass can be kept from the log-probabilities.

        One alone, since `training.micro_batch` is what fits into memory at once. None under sharding, where
        passes without gradients read whole layers that the backward pass would not find.
        """
        settings = self.settings
        first = epoch_order(len(plan), seed=settings.seed, step=step, epoch=0)[0]
        own = self.processes.rank_slice(plan[first])
        return own[0] if own and self.policy.sharding is None else None

    def state_tensors(self) -> dict[str, Tensor]:
        """AdamW's moments, named after the weights."""
        state = self.optimizer.state
        return {
            f"{moment}/{name}": whole_tensor(state[weight][moment])
            for name, weight in self._named()
            for moment in _MOMENTS
            # AdamW makes moments at its first update: a checkpoint of step 0 has none
            if weight in state
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state_tensors` returned."""
        for name, weight in self._named():
            if f"step/{name}" in tensors:
                # cloned: AdamW changes its moments in place, and the checkpoint's tensors may be used again
                stored = {moment: tensors[f"{moment}/{name}"].clone() for moment in _MOMENTS}
                moments = {moment: parted_like(stored[moment], weight) for moment in _MOMENTS[1:]}
                # the count of updates is one number, whole in every process
                self.optimizer.state[weight] = {"step": stored["step"], **moments}

    def _minibatch(
        self, experience: Experience, micro_batches: Sequence[MicroBatch], sums: _Sums, step: int
    ) -> None:
        """One optimizer update; the loss is the mean over all tokens of the minibatch."""
        lengths = experience.rollout.lengths
        # of all processes, not of this one's slice: the summed gradient is then that of the mean
        tokens = sum(lengths[row] for rows in micro_batches for row in rows)
        self.optimizer.zero_grad(set_to_none=True)
        for rows in self.processes.rank_slice(micro_batches):
            # divided by the tokens of the whole minibatch, so that its split changes nothing but rounding
            (self._loss(experience, rows, sums) / tokens).backward()
        if self.policy.sharding is not None and self.processes.lacks(len(micro_batches)):
            # The others do one more pass. Gathering its layers waits for all, so this one does an empty pass.
            (self._loss(experience, micro_batches[0], _Sums()) * 0).backward()
        self.processes.all_reduce_gradients([weight for _, weight in self._named()])
        # after the reduction: all processes clip the same gradient by the same norm and keep equal weights
        sums.policy_norm += self._clip(self.policy.trainable().values(), step)
        if self.settings.has_critic:
            sums.value_norm += self._clip(self.policy.critic_weights().values(), step)
        sums.updates += 1
        sums.tokens += tokens
        self.optimizer.step()

    def _loss(self, experience: Experience, rows: MicroBatch, sums: _Sums) -> Tensor:
        policy, settings = self.policy, self.settings
        kept = experience.kept.take(rows) if experience.kept else None
        stats = kept or policy.answer_stats(experience.token_batch(policy, rows), settings.temperature)
        assert stats.values is not None
        old, advantages, values, returns = (
            experience.tokens(rows, table, policy)
            for table in (experience.logprobs, experience.advantages, experience.values, experience.returns)
        )
        ours = policy_loss(stats.logprobs, old, advantages, settings.clip)
        # a check of the arithmetic: before any update the policy is the one that sampled
        # (a kept pass is compared with itself, which tells nothing)
        if sums.updates == 0 and sums.ratio_first is None and not kept:
            sums.ratio_first = float((stats.logprobs.detach() - old).exp().sub(1).abs().max())
        sums.policy += float(ours.loss.detach())
        sums.clipped += float(ours.clipped)
        sums.approx_kl += float(ours.approx_kl)
        if not settings.has_critic:
            return ours.loss
        value = value_loss(stats.values, values, returns, settings.value_clip)
        sums.value += float(value.detach())
        return ours.loss + settings.value_coef * value

    def _clip(self, weights: Any, step: int) -> float:
        """Clips the policy's or the critic's gradients: apart, so that neither norm shrinks the other."""
        limit = self.settings.max_grad_norm
        if self.policy.sharding is None:
            norm = float(nn.utils.clip_grad_norm_(weights, limit))
        else:
            norm = clip_gradients(list(weights), limit, self.processes)
        # NaN is the one number that differs from itself
        if norm != norm or norm == float("inf"):
            raise TrainingError(
                f"the gradient of step {step} is {norm}",
                hint="lower training.learning_rate, or use policy.dtype float32",
            )
        return norm

    def _set_learning_rates(self, step: int) -> None:
        settings = self.settings
        rise = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
        rates = settings.learning_rate, settings.value_learning_rate
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            # set anew in every step from the step's number, so no scheduler state has to be saved
            group["lr"] = rate * rise

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [*self.policy.trainable().items(), *self.policy.critic_weights().items()]
