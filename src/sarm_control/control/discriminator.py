"""The discriminator of the human-KL term: scores first, learns afterwards.

Shapes: `B` answers of a batch, `D` chosen latents, `M` answers in the replay window.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.density_ratio import Array, LogRatio, balanced_accuracy, fit_log_ratio
from sarm_control.control.human_kl import HumanKL
from sarm_control.errors import TrainingError
from sarm_control.latents.human import HumanBuffer, check_finite
from sarm_control.sarm.scored import Scored
from sarm_control.seeds import numpy_generator

SATURATED_ACCURACY = 0.97
"""Above this the samples are nearly told apart and the KL estimate is a lower bound."""
_HELD_OUT_SHARE = 0.1
_HELD_OUT_MOST = 256


class Divergence(NamedTuple):
    """How far a batch lies from the human buffer.

    Args:
        log_ratio: [B] nats, clipped; exactly 0 while nothing has been learnt.
        info: `human_kl/` metrics: `kl` (mean log ratio, nats), `fitted`, `accuracy` (balanced, on this batch
            and on human rows kept out of every fit), `logit_min`, `logit_max`, `clipped_share`,
            `saturated`, `unseen_share` (answers that fire a latent no human answer fires).
    """

    log_ratio: Array
    info: dict[str, float]


class Discriminator:
    """A logistic density ratio between the policy's recent answers and the human buffer.

    `score` never changes anything; `learn` adds a batch to the replay window and fits again on the
    whole window. Parameters used at a step thus come from the batches of earlier steps, and before
    the first `learn` the log ratio is exactly 0. A tenth of the human rows (at most 256, drawn
    from `seed`) is never fitted and serves the accuracy.
    """

    def __init__(self, config: HumanKL, human: HumanBuffer, seed: int) -> None:
        human.check_latents(config.latents)
        self.config = config
        self.human = human
        order = numpy_generator(seed, "human_kl held-out rows").permutation(len(human))
        held_out = max(1, min(_HELD_OUT_MOST, int(_HELD_OUT_SHARE * len(human))))
        features = human.features(human.values)
        self._held_out = features[np.sort(order[:held_out])]
        self._fitted_on = features[np.sort(order[held_out:])]
        self._window: list[NDArray[np.float32]] = []
        self._ratio: LogRatio | None = None

    def score(self, scored: Scored) -> Divergence:
        """The log ratio of every answer, from what was learnt before."""
        z = self._latents_of(scored)
        ratio = self._ratio
        if ratio is None:
            raw, accuracy = np.zeros(len(z)), 0.5
        else:
            raw = ratio.at(self.human.features(z))
            accuracy = balanced_accuracy(raw, ratio.at(self._held_out))
        log_ratio = np.clip(raw, -self.config.clip, self.config.clip)
        info = {
            "human_kl/kl": float(log_ratio.mean()),
            "human_kl/fitted": float(ratio is not None),
            "human_kl/accuracy": accuracy,
            "human_kl/logit_min": float(raw.min()),
            "human_kl/logit_max": float(raw.max()),
            "human_kl/clipped_share": float((np.abs(raw) > self.config.clip).mean()),
            "human_kl/saturated": float(accuracy > SATURATED_ACCURACY),
            "human_kl/unseen_share": float((z[:, self.human.rates == 0] > 0).any(axis=1).mean()),
        }
        return Divergence(log_ratio, info)

    def learn(self, scored: Scored) -> None:
        """Adds a batch to the replay window and fits again; call it after the batch was scored."""
        self._window = [*self._window, self._latents_of(scored)][-self.config.replay :]
        policy = self.human.features(np.concatenate(self._window))
        self._ratio = fit_log_ratio(policy, self._fitted_on, l2=self.config.l2, start=self._ratio)

    def _latents_of(self, scored: Scored) -> NDArray[np.float32]:
        self.human.check(scored.fingerprint)
        z = scored.latents.columns(self.human.latents)
        check_finite(z, "the batch")
        return z

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, as arrays; the buffer itself is named by its digest only."""
        empty = np.zeros((0, len(self.human.latents)), np.float32)
        ratio = self._ratio
        return {
            "human_kl.parameters": np.zeros(0) if ratio is None else np.append(ratio.weight, ratio.intercept),
            "human_kl.window": np.concatenate([empty, *self._window]),
            "human_kl.window_lengths": np.array([len(batch) for batch in self._window], dtype=np.int64),
            "human_kl.buffer": np.frombuffer(self.human.digest, dtype=np.uint8).copy(),
        }

    def load_state_dict(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes up what `state_dict` gave.

        Raises:
            TrainingError: the arrays are missing or belong to another human buffer.
        """
        try:
            parameters, window, lengths, digest = (arrays[name] for name in self.state_dict())
        except KeyError as error:
            raise TrainingError(f"the saved control state has no {error.args[0]}") from error
        if digest.tobytes() != self.human.digest:
            raise TrainingError(
                "the saved control state belongs to another human buffer",
                hint="resume with the demonstrations the run was started with",
            )
        self._window = np.split(window.astype(np.float32), np.cumsum(lengths)[:-1]) if len(lengths) else []
        self._ratio = LogRatio(parameters[:-1].copy(), float(parameters[-1])) if len(parameters) else None
