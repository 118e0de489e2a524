"""The log density ratio by a small multilayer perceptron, for ratios that are not linear."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarm_control.control.density_ratio.logistic import Array
from sarm_control.control.density_ratio.separation import calibration_slope
from sarm_control.seeds import derive_seed, numpy_generator

if TYPE_CHECKING:
    import torch

_HELD_OUT_SHARE = 0.2
_LEAST_HELD_OUT = 2


@dataclass(frozen=True, eq=False)
class NetworkRatio:
    """A network's logit, multiplied by the calibration slope of held-out rows."""

    network: "torch.nn.Sequential"
    slope: float

    def at(self, features: Array) -> Array:
        """[N] log ratio in nats."""
        import torch

        with torch.no_grad():
            logit = self.network(torch.from_numpy(np.asarray(features, np.float32)))[:, 0]
        return np.asarray(self.slope * logit.double().numpy())


@dataclass(frozen=True)
class Perceptron:
    """One hidden layer, trained by AdamW on balanced samples until a held-out fifth gets no better.

    Each sample's loss is averaged over its own rows, so unequal sizes need no correction.

    Args:
        hidden: tanh units.
        rate: learning rate.
        decay: AdamW's weight decay.
        epochs: at most so many passes; training stops after `patience` passes without a lower held-out loss.
        patience: passes.
        seed: of the initial weights and of the rows held out.
    """

    hidden: int = 64
    rate: float = 3e-3
    decay: float = 0.1
    epochs: int = 200
    patience: int = 10
    seed: int = 0

    def fit(self, policy: Array, human: Array, *, start: object = None) -> NetworkRatio:
        """The ratio of policy [P, F] to human [H, F]; `start` is not used."""
        del start
        kept, held = zip(*(self._split(rows) for rows in (policy, human)), strict=True)
        network = self._trained(kept[0], kept[1], held[0], held[1])
        raw = NetworkRatio(network, 1.0)
        return NetworkRatio(network, calibration_slope(raw.at(held[0]), raw.at(held[1])))

    def _split(self, rows: Array) -> tuple[Array, Array]:
        order = numpy_generator(self.seed, "perceptron held-out rows").permutation(len(rows))
        held = max(_LEAST_HELD_OUT, int(_HELD_OUT_SHARE * len(rows)))
        return rows[order[held:]], rows[order[:held]]

    def _trained(
        self, policy: Array, human: Array, policy_held: Array, human_held: Array
    ) -> "torch.nn.Sequential":
        import torch

        rows = [
            torch.from_numpy(part.astype(np.float32)) for part in (policy, human, policy_held, human_held)
        ]
        network = _network(policy.shape[1], self.hidden, derive_seed(self.seed, "perceptron weights"))
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.rate, weight_decay=self.decay)
        best, since, kept = float("inf"), 0, network.state_dict()
        for _ in range(self.epochs):
            optimizer.zero_grad()
            _loss(network, rows[0], rows[1]).backward()
            optimizer.step()
            with torch.no_grad():
                now = float(_loss(network, rows[2], rows[3]))
            since = 0 if now < best else since + 1
            if now < best:
                # cloned: the state dict shares memory with weights that go on training
                best, kept = now, {name: value.clone() for name, value in network.state_dict().items()}
            if since >= self.patience:
                break
        network.load_state_dict(kept)
        return network


def _network(width: int, hidden: int, seed: int) -> "torch.nn.Sequential":
    import torch

    # the caller's global random state stays as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(width, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)
        )


def _loss(network: "torch.nn.Sequential", policy: "torch.Tensor", human: "torch.Tensor") -> "torch.Tensor":
    import torch

    loss = torch.nn.functional.softplus
    return 0.5 * (loss(-network(policy)).mean() + loss(network(human)).mean())
