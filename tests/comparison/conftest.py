"""A comparison of two made-up arms, built by the real evaluation code."""

import json
from typing import Any

import numpy as np
import pytest

from sarm_control.comparison.measures import Columns, PolicyAnswers, control_columns
from sarm_control.comparison.report_data import Arm, compare_policies
from sarm_control.control import Controls, Penalty
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents

PROMPTS, LATENTS = 40, 60
EVIL = "<script>alert('x')</script> & \"quotes\" <img src=http://evil.example>"


def made_up_answers(seed: int, *, push: float, kl: bool) -> PolicyAnswers:
    """Random latents; `push` makes latents 3 (paid) and 5 (charged) fire more often."""
    rng = np.random.default_rng(seed)
    count = PROMPTS * 2
    fires = rng.random((count, LATENTS)) < 0.15
    fires[:, 3] |= rng.random(count) < push
    fires[:, 5] |= rng.random(count) < push / 2
    values = np.where(fires, rng.exponential(1.0, (count, LATENTS)), 0.0).astype(np.float32)
    latents = SparseLatents.from_rows([(np.flatnonzero(row), row[row != 0]) for row in values], LATENTS)
    head = np.random.default_rng(0).normal(0, 0.02, LATENTS).astype(np.float32)
    head[[3, 5]] = 0.08, -0.03
    scored = Scored(
        rewards=latents.dot(head),
        latents=latents,
        head=head,
        truncated=np.zeros(count, np.int64),
        ended=rng.random(count) < 0.8,
        lengths=rng.integers(4, 48, count),
        fingerprint="0123456789abcdef",
    )
    log_ratio = rng.normal(2.0, 1.0, count)
    responses = tuple(f"{EVIL} answer {row} of seed {seed}" for row in range(count))
    return PolicyAnswers(
        responses=responses,
        prompts=np.repeat(np.arange(PROMPTS), 2),
        scored=scored,
        lengths=scored.lengths + 1,
        kl=log_ratio if kl else None,
        kl_k3=np.abs(log_ratio) if kl else None,
    )


def made_up_parts(answers: PolicyAnswers, alpha: float) -> Columns:
    """The parts of a reward with a penalty of `alpha` on latent 3, or with none."""
    controls = Controls(penalties=[Penalty(3, tau=1.0, alpha=alpha)] if alpha else [])
    return control_columns(controls.shape(answers.scored), controls)


def made_up_arm(name: str, base: PolicyAnswers, *, push: float, alpha: float, seed: int) -> Arm:
    """One arm with noisy training curves."""
    answers = made_up_answers(seed, push=push, kl=True)
    rng = np.random.default_rng(seed)
    steps = list(range(1, 41))
    curves = {
        "step": steps,
        "reward/model": [push * 0.1 * (1 - np.exp(-s / 15)) + rng.normal(0, 0.01) for s in steps],
        "reward/total": [push * 0.08 * (1 - np.exp(-s / 15)) + rng.normal(0, 0.01) for s in steps],
        "objective/kl": [0.05 * s + abs(rng.normal(0, 0.1)) for s in steps],
    }
    return Arm(
        name=name,
        role="controlled" if alpha else "no control",
        answers=answers,
        parts=made_up_parts(answers, alpha),
        base_parts=made_up_parts(base, alpha),
        controlled=(3,) if alpha else (),
        controls=("penalty on latent 3: indicator above 1, 0.05",) if alpha else (),
        steps=40,
        kl_coef=0.05,
        kl_price=0.05 * 0.04,
        curves=curves,
    )


@pytest.fixture(scope="session")
def report() -> dict[str, Any]:
    """`report.json` of two arms, after a trip through JSON."""
    base = made_up_answers(1, push=0.0, kl=False)
    arms = [
        made_up_arm("none", base, push=0.6, alpha=0.0, seed=2),
        made_up_arm("controls", base, push=0.1, alpha=0.05, seed=3),
    ]
    prompts = [f"Question {number}: {EVIL}" for number in range(PROMPTS)]
    found = compare_policies(base, arms, prompts, thresholds={3: 1.0}, seed=0)
    settings = {
        "prompts_file": "held_out.jsonl",
        "prompts": PROMPTS,
        "trained_on": 0,
        "answers": 2 * PROMPTS,
        "answers_per_prompt": 2,
        "seed": 0,
        "max_new_tokens": 48,
        "temperature": 1.0,
        "base_policy": "tiny-policy",
        "reward_model": "tiny-sarm",
        "head": "0123456789abcdef",
    }
    whole = {**found.report, "settings": settings, "manifest": {"versions": {"numpy": np.__version__}}}
    written: dict[str, Any] = json.loads(json.dumps(whole, allow_nan=False))
    return written
