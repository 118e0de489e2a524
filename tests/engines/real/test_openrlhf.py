"""OpenRLHF 0.11's own executor against `sarm serve`: it is understood, and gets what is right (contract)."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines.real.conftest import Case, Client

pytestmark = pytest.mark.engines
BESIDE = {"human_kl/version", "truncated", "ended"}


@pytest.fixture(scope="session")
def file_form(pythons: Callable[[str], Path]) -> str:
    """The path that the documented command prints in OpenRLHF's environment."""
    command = [str(pythons("openrlhf")), "-m", "sarm_control.engines.openrlhf"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def asked(url: str, tokenizer_folder: str, cases: list[Case]) -> dict[str, Any]:
    return {"remote_url": url, "tokenizer": tokenizer_folder, "cases": [case._asdict() for case in cases]}


def assert_right(found: list[dict[str, Any]], expected: list[dict[str, float]], cases: list[Case]) -> None:
    for one, terms, case in zip(found, expected, cases, strict=True):
        assert one["reward"] == one["scores"] == pytest.approx(terms["reward/total"], abs=1e-6)
        assert set(one["extra_logs"]) == {*terms, *BESIDE}
        for name, value in terms.items():
            assert one["extra_logs"][name] == pytest.approx(value, abs=1e-6)
        assert one["extra_logs"]["ended"] == float(case.ended)


def test_by_url(
    client: Client, server: str, tokenizer_folder: str, cases: list[Case], expected: list[dict[str, float]]
) -> None:
    found, _ = client("openrlhf", asked(f"{server}/get_reward", tokenizer_folder, cases))
    assert_right(found, expected, cases)


def test_by_file(
    client: Client,
    server: str,
    file_form: str,
    tokenizer_folder: str,
    cases: list[Case],
    expected: list[dict[str, float]],
) -> None:
    found, _ = client("openrlhf", asked(file_form, tokenizer_folder, cases), SARM_REWARD_URL=server)
    assert_right(found, expected, cases)


def test_with_a_token_in_the_url_and_in_a_file(
    client: Client,
    guarded: tuple[str, Path],
    file_form: str,
    tokenizer_folder: str,
    cases: list[Case],
    expected: list[dict[str, float]],
) -> None:
    url, token = guarded
    with_token = url.replace("http://", f"http://engine:{token.read_text().strip()}@")
    found, _ = client("openrlhf", asked(f"{with_token}/get_reward", tokenizer_folder, cases))
    assert_right(found, expected, cases)
    settings = {"SARM_REWARD_URL": url, "SARM_REWARD_TOKEN_FILE": str(token)}
    found, _ = client("openrlhf", asked(file_form, tokenizer_folder, cases), **settings)
    assert_right(found, expected, cases)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("token", "does not accept the token (401)"),
        ("nobody", "no reward from http://127.0.0.1:9/get_reward"),
        ("long", "refuses the request: 413"),
    ],
)
def test_trouble_gives_no_reward_and_the_file_form_says_why(
    trouble: str,
    said: str,
    client: Client,
    guarded: tuple[str, Path],
    file_form: str,
    tokenizer_folder: str,
    cases: list[Case],
) -> None:
    """OpenRLHF keeps the sample without a reward; it is never a wrong number."""
    url, token = guarded
    settings = {"SARM_REWARD_URL": url, "SARM_REWARD_PATIENCE": "1"}
    if trouble == "nobody":
        settings["SARM_REWARD_URL"] = "http://127.0.0.1:9"
    if trouble == "long":
        settings["SARM_REWARD_TOKEN_FILE"] = str(token)
        cases = [cases[0]._replace(answer_ids=cases[0].answer_ids[:1] * 600_000)]
    found, log = client("openrlhf", asked(file_form, tokenizer_folder, cases[:1]), **settings)
    assert found == [{"reward": None, "scores": None, "extra_logs": {}}]
    assert said in log


def test_by_url_nobody_there_gives_no_reward(
    client: Client, tokenizer_folder: str, cases: list[Case]
) -> None:
    found, log = client("openrlhf", asked("http://127.0.0.1:9/get_reward", tokenizer_folder, cases[:1]))
    assert found == [{"reward": None, "scores": None, "extra_logs": {}}]
    assert "Failed to fetch reward from remote RM" in log
