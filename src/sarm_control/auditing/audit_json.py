"""An audit as a JSON object: what `audit.json` holds, and pages read."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sarm_control.auditing.best_of_n import Pressure
from sarm_control.auditing.causal_prices import Carrier, CausalPrice, WordingPrice
from sarm_control.auditing.mechanism.carrying import OwnLatent
from sarm_control.auditing.mechanism.token_rewards import LABEL, TokenReward
from sarm_control.auditing.partial_prices import PartialPrice

if TYPE_CHECKING:
    from sarm_control.auditing.finding import AttributeFinding
    from sarm_control.auditing.result import Audit, Example

Words = Mapping[int, str]


def audit_json(found: "Audit") -> dict[str, Any]:
    """The object; null where there is no number."""
    words = found.latent_words
    return {
        "answers": len(found.table.answers),
        "prompts": len(found.table.prompts),
        "reward_sd": found.table.reward_sd,
        "attributes": [_finding_json(one, words) for one in found.findings],
        "headlines": [one.attribute.name for one in found.headlines],
        "content": [one.attribute.name for one in found.content],
        "associated": [one.attribute.name for one in found.associations],
        "latent_words": {str(latent): text for latent, text in words.items()},
        "accuracy": None if found.accuracy is None else found.accuracy.as_json(),
        "pressure": None if found.pressure is None else _pressure_json(found.pressure),
        "examples": [_example_json(one) for one in found.examples],
        "missing": list(found.missing),
    }


def _example_json(one: "Example") -> dict[str, Any]:
    tokens = {
        name: [_token_json(each) for each in getattr(one, name)]
        for name in ("tokens_without", "tokens_having")
    }
    return {**one._asdict(), **tokens, "label": LABEL}


def _token_json(one: TokenReward) -> dict[str, Any]:
    return {"token": one.token, "reward": finite(one.reward), "trained": one.trained}


def finite(value: float) -> float | None:
    """The number, or None where it is none."""
    # JSON has no NaN, and pages read this file
    return float(value) if math.isfinite(value) else None


def _partial_json(one: PartialPrice) -> dict[str, Any]:
    numbers = {key: finite(getattr(one, key)) for key in ("sd", "low", "high", "p", "q")}
    return {**numbers, "n": one.n, "why": one.why}


def _causal_json(one: CausalPrice, words: Words) -> dict[str, Any]:
    numbers = {key: finite(getattr(one, key)) for key in ("sd", "low", "high", "rises", "p", "q")}
    latents = [_latent_json(part, words) for part in one.carriers]
    differ = {"p": finite(one.differ_p), "q": finite(one.differ_q)}
    return {
        "edit": one.edit,
        **numbers,
        "n": one.n,
        "sets": one.sets,
        "answers": one.answers,
        "latents": latents,
        "wordings": [_wording_json(each) for each in one.wordings],
        "wordings_differ": differ if one.wordings else None,
        "rest": None if one.rest is None else _wording_json(one.rest),
    }


def _wording_json(one: WordingPrice) -> dict[str, Any]:
    numbers = {key: finite(getattr(one, key)) for key in ("sd", "low", "high", "p", "q")}
    return {"text": one.text, "edit": one.edit, **numbers, "n": one.n}


def _latent_json(one: Carrier, words: Words) -> dict[str, Any]:
    return {"latent": one.latent, "sd": one.sd, "words": words.get(one.latent)}


def _own_json(one: OwnLatent) -> dict[str, Any]:
    return {
        "auroc": one.auroc.as_json(),
        "latents": list(one.latents),
        "exists": one.exists,
        "answers": one.having,
    }


def _finding_json(one: "AttributeFinding", words: Words) -> dict[str, Any]:
    causal, wording = one.best_causal, one.one_wording
    return {
        "name": one.attribute.name,
        "words": one.attribute.words,
        "unit": one.attribute.unit,
        "style": one.attribute.style,
        "rate": one.rates,
        "price": finite(one.price),
        "sure": one.sure,
        "disagree": one.disagree,
        "contradicted": one.contradicted,
        "one_wording": None if wording is None else _wording_json(wording),
        "partial": None if one.partial is None else _partial_json(one.partial),
        "causal": None if causal is None else _causal_json(causal, words),
        "latents": [] if causal is None else [_latent_json(part, words) for part in causal.carriers],
        "residual_share": one.residual,
        "own_latent": None if one.own_latent is None else _own_json(one.own_latent),
        "edits": [_causal_json(price, words) for price in one.causal],
    }


def _pressure_json(one: Pressure) -> dict[str, Any]:
    return {
        "n": list(one.n),
        "kl": list(one.kl),
        "reward": [value.as_json() for value in one.reward],
        "attributes": {name: [value.as_json() for value in curve] for name, curve in one.curves.items()},
        "rises": [
            {
                "name": rise.name,
                "at_one": rise.at_one,
                "at_most": rise.at_most,
                "change": rise.change.as_json(),
                "p": rise.p,
                "q": rise.q,
            }
            for rise in one.rises
        ],
        "prompts": one.prompts,
        "left_out": one.left_out,
    }
