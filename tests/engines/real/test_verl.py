"""verl 0.9's own reward loop against `sarm serve`, by every way it can ask (contract).

The plugin is found by verl's loader of entry points, the configuration composed by its Hydra files, the
sample a real `DataProto`.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.engines.real.conftest import Case, Client, served

pytestmark = pytest.mark.engines
MANAGER = ["reward.reward_manager.name=sarm"]
IMPORTED = [
    "reward.reward_manager.source=importlib",
    "reward.reward_manager.name=SarmRewardManager",
    "reward.reward_manager.module.path=pkg://sarm_control.engines.verl_manager",
]
FUNCTION = [
    "reward.custom_reward_function.path=pkg://sarm_control.engines.verl",
    "reward.custom_reward_function.name=compute_score",
]
BESIDE = {"human_kl/version", "truncated", "ended"}


def asked(tokenizer_folder: str, cases: list[Case], *overrides: str, **more: Any) -> dict[str, Any]:
    rows = [{**case._asdict(), **more.pop("row", {})} for case in cases]
    return {"tokenizer": tokenizer_folder, "overrides": list(overrides), "cases": rows, **more}


@pytest.mark.parametrize("manager", [MANAGER, IMPORTED], ids=["entry point", "importlib"])
def test_the_manager(
    manager: list[str],
    client: Client,
    server: str,
    tokenizer_folder: str,
    cases: list[Case],
    expected: list[dict[str, float]],
) -> None:
    overrides = [*manager, f"+reward.reward_kwargs.sarm.url={server}"]
    found, _ = client("verl", asked(tokenizer_folder, cases, *overrides))
    for one, terms, case in zip(found, expected, cases, strict=True):
        assert one["reward_score"] == pytest.approx(terms["reward/total"], abs=1e-6)
        extra = one["reward_extra_info"]
        assert set(extra) == {*terms, *BESIDE}  # the same of every sample: verl makes columns of them
        assert {name: extra[name] for name in terms} == pytest.approx(terms, abs=1e-6)
        assert extra["ended"] == float(case.ended)


def test_the_function_takes_every_answer_for_ended(
    client: Client, server: str, tokenizer_folder: str, cases: list[Case], expected: list[dict[str, float]]
) -> None:
    """verl decodes answers without special tokens for it, so their end cannot be seen."""
    overrides = [*FUNCTION, f"+reward.custom_reward_function.reward_kwargs.url={server}"]
    found, _ = client("verl", asked(tokenizer_folder, cases, *overrides))
    for one, terms, case in zip(found, expected, cases, strict=True):
        amount = 0.0 if case.ended else terms["reward/missing_end"]
        assert one["reward_score"] == pytest.approx(terms["reward/total"] - amount, abs=1e-6)
        assert one["reward_extra_info"]["score"] == one["reward_score"]


@pytest.mark.parametrize("form", ["vllm", "sglang"])
def test_as_a_discriminative_model(
    form: str,
    client: Client,
    server: str,
    tokenizer_folder: str,
    cases: list[Case],
    expected: list[dict[str, float]],
) -> None:
    """`/classify` and `/v1/embeddings`; verl puts every answer into the chat template, so all end."""
    overrides = [
        "reward.reward_model.enable=True",
        f"reward.reward_model.model_path={tokenizer_folder}",
        f"reward.reward_model.rollout.name={form}",
    ]
    found, _ = client(
        "verl", asked(tokenizer_folder, cases, *overrides, router=server.removeprefix("http://"))
    )
    for one, terms in zip(found, expected, strict=True):
        wanted = terms["reward/total"] - terms["reward/missing_end"]
        assert one == {"reward_score": pytest.approx(wanted, abs=1e-6)}


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("token", r"ConfigError: .*/v1/score does not accept the token \(401\)"),
        ("nobody", r"TrainingError: no reward from http://127\.0\.0\.1:9/v1/score in \d+ s"),
        ("long", r"DataError: .*/v1/score refuses the request: 413"),
        ("prompt", r"DataError: no prompt in"),
        ("key", r"ConfigError: unknown key 'adress'"),
    ],
)
def test_trouble_is_an_error_that_says_what(
    trouble: str,
    said: str,
    client: Client,
    guarded: tuple[str, Path],
    tokenizer_folder: str,
    cases: list[Case],
) -> None:
    url, token = guarded
    settings = [*MANAGER, "+reward.reward_kwargs.sarm.patience=1"]
    settings.append(f"+reward.reward_kwargs.sarm.url={'http://127.0.0.1:9' if trouble == 'nobody' else url}")
    if trouble in ("long", "prompt"):
        settings.append(f"+reward.reward_kwargs.sarm.token_file={token}")
    if trouble == "key":
        settings.append("+reward.reward_kwargs.sarm.adress=x")
    row: dict[str, Any] = {"without_prompt": trouble == "prompt"}
    if trouble == "long":
        row["answer_ids"] = cases[0].answer_ids[:1] * 600_000
    request = asked(tokenizer_folder, cases[:1], *settings, row=row)
    if trouble == "key":
        with pytest.raises(AssertionError, match=said):
            client("verl", request)
        return
    ((found,), _) = client("verl", request)
    assert set(found) == {"error"}
    assert re.search(said, found["error"])


def test_a_busy_server_costs_time_and_nothing_else(
    client: Client,
    controls: Path,
    tokenizer_folder: str,
    cases: list[Case],
    expected: list[dict[str, float]],
) -> None:
    """The queue holds one answer; 96 come at once, and all but a few are told 429 at first."""
    with served("--controls", str(controls), "--queue", "1", "--batch-answers", "1") as url:
        overrides = [*MANAGER, f"+reward.reward_kwargs.sarm.url={url}"]
        found, _ = client("verl", asked(tokenizer_folder, cases * 8, *overrides))
    for one, terms in zip(found, expected * 8, strict=True):
        assert one.get("reward_score") == pytest.approx(terms["reward/total"], abs=1e-6), one
