"""The token of a server as engines that know only a URL send it (contract)."""

import base64

import pytest

from sarm_control.server.http.security import _given_token


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (b"Bearer secret", b"secret"),
        (b"Basic " + base64.b64encode(b"engine:secret"), b"secret"),
        (b"basic " + base64.b64encode(b":a:b"), b"a:b"),
        (b"Basic secret", b""),
        (b"Basic " + base64.b64encode(b"secret"), b""),
        (b"Digest secret", b""),
        (b"secret", b""),
        (b"", b""),
    ],
)
def test_bearer_and_basic_carry_it_and_nothing_else_does(header: bytes, token: bytes) -> None:
    assert _given_token(header) == token
