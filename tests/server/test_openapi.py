"""The committed description of the server (golden), and calls made up from it (property)."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openapi import PATH, document

from tests.server.conftest import Served

schemathesis = pytest.importorskip("schemathesis", reason="wants newer packages than the oldest we allow")
checks = pytest.importorskip("schemathesis.checks")

CASES = 200


def test_golden_the_committed_document_is_the_servers() -> None:
    assert PATH.read_text(encoding="utf-8") == document(), "run python scripts/openapi.py"


def test_every_path_is_described_with_its_errors(plain: Served) -> None:
    described = json.loads(PATH.read_text(encoding="utf-8"))
    assert plain.client.get("/openapi.json").json() == described
    for path in ("/v1/score", "/get_reward", "/classify", "/v1/embeddings", "/rm"):
        assert {"200", "422", "429", "503", "504"} <= set(described["paths"][path]["post"]["responses"])
    for path in ("/v1/model", "/v1/latents/{latent}", "/healthz", "/readyz", "/metrics"):
        assert "200" in described["paths"][path]["get"]["responses"]


@pytest.mark.long
def test_property_made_up_calls_are_answered_as_described(plain: Served) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(Path(PATH).read_text(encoding="utf-8")))
    strategies = [operation.ok().as_strategy() for operation in schema.get_all_operations()]
    statuses: set[int] = set()

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(strategies))
    def call(case: Any) -> None:
        reply = case.call(base_url=str(plain.client.base_url))
        statuses.add(reply.status_code)
        assert reply.status_code < 500, reply.text
        # a schema cannot say which texts are conversations in the model's template
        case.validate_response(reply, excluded_checks=[checks.positive_data_acceptance])

    call()
    assert 200 in statuses


@pytest.mark.minutes
def test_property_ten_thousand_made_up_calls(plain: Served) -> None:
    from server import fuzz

    found = fuzz(str(plain.client.base_url), 10_000)
    assert found["cases"] >= 10_000
    assert found["server_errors"] == 0
