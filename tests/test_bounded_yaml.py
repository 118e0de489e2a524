"""YAML text of ours: property (what JSON writes, YAML reads), and what is refused with its line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.bounded_yaml import BadYaml, parse_yaml

TEXTS = st.characters(exclude_categories=["Cs"])


# YAML allows a key of 1,024 characters, and JSON writes some characters as twelve
@given(st.text(TEXTS, max_size=80), st.text(TEXTS))
def test_property_strings_as_json_writes_them_are_read(key: str, value: str) -> None:
    """JSON writes an emoji as two escapes; a file of settings may be JSON."""
    assert parse_yaml(json.dumps({"key": value, key: 1})) == {"key": value, key: 1}


@pytest.mark.parametrize("half", [r"\ud800", r"\udc00", r"x\udfffy"])
def test_half_a_character_is_refused_with_its_line(half: str) -> None:
    with pytest.raises(BadYaml, match="half a character, which is no text") as caught:
        parse_yaml(f'a: 1\nb: "{half}"\n')
    assert caught.value.line == 2
