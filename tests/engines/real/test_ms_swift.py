"""ms-swift 4.6's own scoring of rollouts, with the plugin of examples/, against `sarm serve` (contract)."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.engines.real.conftest import Case, Client
from tests.engines.real.environments import ROOT

pytestmark = pytest.mark.engines
PLUGIN = ROOT / "examples" / "ms_swift_plugin.py"


def request(cases: list[Case], **environment: str) -> dict[str, Any]:
    return {"cases": [case._asdict() for case in cases], "environment": environment}


def test_a_batch(client: Client, server: str, cases: list[Case], expected: list[dict[str, float]]) -> None:
    asked = {"plugin": str(PLUGIN), "requests": [request(cases, SARM_REWARD_URL=server)]}
    ((found,), _) = client("ms_swift", asked)
    assert found["names"] == ["SarmReward"]
    for (reward,), terms in zip(found["rewards"], expected, strict=True):
        assert reward == pytest.approx(terms["reward/total"], abs=1e-6)


def test_trouble_is_an_error_that_says_what(
    client: Client, guarded: tuple[str, Path], cases: list[Case]
) -> None:
    """It stops ms-swift's training; importing ms-swift takes long, so one process meets all of it."""
    url, token = guarded
    long = cases[0]._replace(response="water " * 300_000)
    requests = [
        request(cases[:1], SARM_REWARD_URL=url, SARM_REWARD_PATIENCE="1"),
        request(cases[:1], SARM_REWARD_URL="http://127.0.0.1:9"),
        request([long], SARM_REWARD_URL=url, SARM_REWARD_TOKEN_FILE=str(token)),
    ]
    found, _ = client("ms_swift", {"plugin": str(PLUGIN), "requests": requests})
    for one, said in zip(
        found,
        [
            r"ConfigError: .*/v1/score does not accept the token \(401\)",
            r"TrainingError: no reward from http://127\.0\.0\.1:9/v1/score in \d+ s",
            r"DataError: .*/v1/score refuses the request: 413",
        ],
        strict=True,
    ):
        assert set(one) == {"error"}
        assert re.search(said, one["error"])
