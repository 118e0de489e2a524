"""How often `estimate_kl` says that a log ratio is not linear: where it is not, and where it is.

Used by `benchmarks/density_ratio.py --not-linear`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from kl_laws import Law, five, further
from scipy.stats import beta

from sarm_control import HumanBuffer, estimate_kl
from sarm_control.control.density_ratio.model_check.linearity import Linearity, Rows, check_linear

ROWS = 1024
CHECKED_SEEDS = 40


class Tilted:
    """Correlated sparse latents, tilted by their indicators: 24 that share four causes.

    The policy's law is the humans' times `exp(weights . 1(z > 0))`, drawn by rejection.
    """

    name, width, causes = "correlated latents, tilted", 24, 4

    def __init__(self, size: float, seed: int) -> None:
        rng = np.random.default_rng([seed, 9])
        loads = rng.normal(size=(self.width, self.causes))
        length = np.sqrt((loads**2).sum(axis=1) + 1)
        self.loads, self.own = loads / length[:, None], 1 / length
        self.threshold = rng.uniform(0.2, 1.5, self.width)
        self.weights = size * rng.normal(size=self.width)

    def draw(self, n: int, policy: bool, rng: np.random.Generator) -> np.ndarray:
        """[n, width] rows."""
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < n:
            cause, own = rng.normal(size=(n, self.causes)), rng.normal(size=(n, self.width))
            z = np.maximum(cause @ self.loads.T + own * self.own - self.threshold, 0)
            if policy:
                most = np.maximum(self.weights, 0).sum()
                z = z[rng.random(n) < np.exp((z > 0) @ self.weights - most)]
            parts.append(z.astype(np.float32))
        return np.concatenate(parts)[:n]


def check(law: object, rows: int, seed: int) -> Linearity:
    """The check alone on one draw."""
    rng = np.random.default_rng([seed, 7])
    policy, human = law.draw(rows, True, rng), law.draw(rows, False, rng)  # type: ignore[attr-defined]
    buffer = HumanBuffer(tuple(range(policy.shape[1])), human, "benchmark")
    sides = (Rows.distinct(z, buffer.features(z)) for z in (policy, human))
    return check_linear(*sides, seed=seed)


def share(answers: Sequence[bool]) -> dict[str, object]:
    """How many of them, and the exact 95 % interval of the share (Clopper and Pearson, 1934)."""
    n, k = len(answers), int(sum(answers))
    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return {"count": k, "of": n, "low": round(low, 4), "high": round(high, 4)}


def where_it_is_not(seeds: int) -> list[dict[str, object]]:
    """One row a law: power of the check at two sizes, and what `estimate_kl` then says."""
    to_find, rows = {law.name for law in five()}, []
    for law in (*five(), *further()):
        rows.append(_not_linear(law, seeds, found=law.name in to_find))
        print(rows[-1], flush=True)
    return rows


def _not_linear(law: Law, seeds: int, *, found: bool) -> dict[str, object]:
    power = {
        str(rows): share([check(law, rows, seed).fits is False for seed in range(CHECKED_SEEDS)])
        for rows in (ROWS, 256)
    }
    told, linear = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 3])
        one = estimate_kl(law.draw(ROWS, True, rng), law.draw(ROWS, False, rng))
        told.append(one)
        linear.append(float(one.log_ratio.mean()))
    values = np.array([one.value for one in told])
    wider = np.array([one.wider for one in told if one.wider is not None])
    at_1024 = power[str(ROWS)]
    return {
        "law": law.name,
        "kl": float(law.kl),
        "found, by rows a side": power,
        "linear log ratio, mean": float(np.mean(linear)),
        "at least, mean": float(values.mean()),
        "at least, largest": float(values.max()),
        "above the truth": int((values > law.kl).sum()),
        "wider, mean": float(wider.mean()) if len(wider) else None,
        "wider, SD": float(wider.std(ddof=1)) if len(wider) > 1 else None,
        "flagged": int(sum(one.model_fits is False for one in told)),
        "of": seeds,
        "met": bool(at_1024["count"] >= 0.9 * at_1024["of"]) if found else None,  # type: ignore[operator]
    }


def where_it_is(
    families: Sequence[Callable[[float, int], object]], divergences: Sequence[float]
) -> list[dict[str, Any]]:
    """One row a family, divergence and size: false alarms of the check, and how often it cannot tell."""
    sizes: dict[Callable[[float, int], object], Sequence[float]] = {Tilted: (0.2, 0.4)}
    rows = []
    for family in (*families, Tilted):
        for kl in sizes.get(family, divergences):
            for count in (ROWS, 300):
                started = time.process_time()
                found = [check(family(kl, seed), count, seed) for seed in range(CHECKED_SEEDS)]
                rows.append(
                    {
                        "family": family.name,  # type: ignore[attr-defined]
                        "tilt" if family is Tilted else "kl": kl,
                        "rows a side": count,
                        "false alarms": share([one.fits is False for one in found]),
                        "p at most .05": share([one.p <= 0.05 for one in found]),
                        "not known": int(sum(one.fits is None for one in found)),
                        "rows in doubt": float(np.mean([one.in_doubt for one in found])),
                        "processor seconds": (time.process_time() - started) / CHECKED_SEEDS,
                    }
                )
                print(rows[-1], flush=True)
    return rows
