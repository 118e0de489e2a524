"""Records what TRL 1.12.0's PPO computes on a frozen batch, for tests/training/test_trl_losses.py.

    python -m venv trl-env && trl-env/bin/pip install trl==1.12.0
    trl-env/bin/python scripts/record_trl_losses.py tests/training/golden/trl_1_12_losses.json

TRL computes rewards, advantages and losses inside `PPOTrainer.train`. Those source lines are taken from the
installed file with `inspect` and executed as they are, with the batch in place of a rollout; the two cuts
are named below by their first and last line. `masked_mean`, `masked_whiten` and the rest are TRL's own.
"""

import argparse
import inspect
import json
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

REWARDS = ("response_idxs = torch.arange(", "advantages = torch.masked_fill(advantages, padding_mask, 0)")
MASKED = ("new_logprobs = torch.masked_fill(", "vpred = vpred_temp[")
LOSSES = ("vpred = torch.masked_fill(", "loss = pg_loss + args.vf_coef * vf_loss")
SETTINGS = {
    "kl_coef": 0.05,
    "gamma": 0.97,
    "lam": 0.9,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "kl_estimator": "k1",
    "whiten_rewards": False,
}
WIDTH = 6
LENGTHS = {"full": [6, 6, 6, 6], "ragged": [6, 2, 4, 1]}


def cut(source: str, first: str, last: str) -> str:
    """The lines from one that starts with `first` to one that starts with `last`, dedented."""
    lines = source.splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip().startswith(first)]
    ends = [i for i, line in enumerate(lines) if line.strip().startswith(last)]
    if len(starts) != 1 or len(ends) != 1:
        raise SystemExit(f"PPOTrainer.train has {len(starts)} lines {first!r} and {len(ends)} lines {last!r}")
    return textwrap.dedent("\n".join(lines[starts[0] : ends[0] + 1]))


def batch(lengths: list[int]) -> dict[str, Tensor]:
    """Random log-probabilities, values and scores of answers of these lengths, in float64."""
    generator = torch.Generator().manual_seed(12)
    shape = (len(lengths), WIDTH)

    def normal(scale: float, size: tuple[int, ...] = shape) -> Tensor:
        return (scale * torch.randn(size, generator=generator, dtype=torch.float64) * 1024).round() / 1024

    old = -normal(1.0).abs() - 0.1
    values = normal(0.5)
    return {
        "logprobs": old,
        "ref_logprobs": old + normal(0.3),
        "new_logprobs": old + normal(0.25),
        "values": values,
        "new_values": values + normal(0.3),
        "scores": normal(1.0, (len(lengths),)),
    }


def replay(lengths: list[int]) -> dict[str, Any]:
    """The frozen batch, and what TRL makes of it."""
    from trl.experimental.ppo import ppo_trainer

    source = inspect.getsource(ppo_trainer.PPOTrainer.train)
    given = batch(lengths)
    names: dict[str, Any] = {**vars(ppo_trainer), "args": SimpleNamespace(**SETTINGS)}
    names.update({name: given[name].clone() for name in ("logprobs", "ref_logprobs", "values", "scores")})
    names["responses"] = torch.zeros(len(lengths), WIDTH, dtype=torch.long)
    names["sequence_lengths"] = torch.tensor(lengths) - 1
    exec(cut(source, *REWARDS), names)

    def losses(rows: list[int]) -> dict[str, float]:
        inside = dict(names)
        inside["micro_batch_inds"] = rows
        inside["new_logprobs"] = given["new_logprobs"][rows]
        inside["vpred"] = given["new_values"][rows]
        for mb, table in (("advantage", "advantages"), ("logprobs", "logprobs"), ("return", "returns")):
            inside[f"mb_{mb}"] = names[table][rows]
        inside["mb_values"] = names["values"][rows]
        exec(cut(source, *MASKED).rsplit("\n", 1)[0], inside)
        exec(cut(source, *LOSSES), inside)
        found = {name: float(inside[name]) for name in ("pg_loss", "vf_loss", "loss")}
        found["clipped"] = float(
            ppo_trainer.masked_mean(
                (inside["pg_losses2"] > inside["pg_losses"]).double(), ~names["padding_mask"][rows]
            )
        )
        return found

    everything = list(range(len(lengths)))
    halves = [losses(everything[:2]), losses(everything[2:])]
    return {
        "lengths": lengths,
        "given": {name: tensor.tolist() for name, tensor in given.items()},
        "found": {
            **{name: names[name].tolist() for name in ("kl", "rewards", "returns", "advantages")},
            "score_at": names["actual_end"].tolist(),
            "whole": losses(everything),
            "mean_of_two_micro_batches": {
                name: sum(half[name] for half in halves) / 2 for name in ("pg_loss", "vf_loss", "loss")
            },
        },
    }


def main() -> None:
    """Writes the file."""
    import trl

    parser = argparse.ArgumentParser(description="record TRL's losses", allow_abbrev=False)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    record = {
        "source": f"trl {trl.__version__}, trl/experimental/ppo/ppo_trainer.py, PPOTrainer.train",
        "how": "source lines of train() executed on a frozen batch by scripts/record_trl_losses.py",
        "differences": {
            "whitening": "TRL divides by the unbiased SD; ours by the SD over all tokens",
            "score": "TRL puts the score one column after the last token where there is room; ours on it",
            "value after the end": "TRL keeps and fits the value of that column; ours is 0 and not fitted",
            "micro-batches": "TRL averages the means of micro-batches; ours divides by all tokens at once",
            "whitening on several processes": "TRL's is of one process; ours of all",
            "masks": "TRL finds the end by ids == pad; ours by lengths",
            "old log-probabilities": "TRL's come from generation; ours from the training pass",
            "approxkl": "TRL reports half the squared difference, padding included; ours k3 over tokens",
        },
        "settings": SETTINGS,
        **{name: replay(lengths) for name, lengths in LENGTHS.items()},
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{options.out}: {record['source']}")


if __name__ == "__main__":
    main()
