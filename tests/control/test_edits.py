"""Edits: oracles by hand, properties of the algebra, and a message for every mistake."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from sarm_control.control import Edit, apply_edits, edit_delta, load_edits, parse_edit
from sarm_control.errors import ConfigError
from tests.control.batches import random_scored, scored_from

NUMBERS = st.floats(-5, 5, width=32)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    latent = draw(st.integers(0, 9))
    if draw(st.booleans()):
        return Edit(latent, set=draw(NUMBERS))
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    choices = {"min": low, "max": high, "scale": draw(NUMBERS), "add": draw(NUMBERS)}
    names = draw(st.sets(st.sampled_from(sorted(choices)), min_size=1))
    return Edit(latent, **{name: choices[name] for name in names})


def test_oracle_each_operation_on_active_and_inactive_latents() -> None:
    z = np.array([0.0, 1.0, 3.0, -2.0])
    expected = {
        Edit(5, set=2.0): [2, 2, 2, 2],
        Edit(5, max=2.0): [0, 1, 2, -2],
        Edit(5, max=-1.0): [-1, -1, -1, -2],
        Edit(5, min=0.5): [0.5, 1, 3, 0.5],
        Edit(5, scale=0.5): [0, 0.5, 1.5, -1],
        Edit(5, add=1.0): [1, 2, 4, -1],
        Edit(5, scale=2.0, add=1.0, min=0.0, max=4.0): [1, 3, 4, 0],
    }
    for edit, values in expected.items():
        np.testing.assert_array_equal(edit.apply(z), values)


def test_oracle_an_edit_moves_inactive_latents_and_removes_no_stored_pair() -> None:
    latents = scored_from(np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])).latents
    edited = apply_edits(latents, [Edit(0, add=1.0), Edit(1, set=0.0)])
    np.testing.assert_array_equal(edited.columns([0, 1, 2]), [[1, 0, 2], [4, 0, 0]])
    assert [edited.row(j)[0].tolist() for j in range(2)] == [[0, 1, 2], [0]]


@given(st.integers(0, 5), st.lists(edits(), max_size=4, unique_by=lambda edit: edit.latent))
def test_property_the_predicted_change_equals_the_rescored_one(seed: int, chosen: list[Edit]) -> None:
    drawn = random_scored(seed)
    scored = replace(drawn, head=drawn.head * np.float32(0.01))
    head = scored.head.astype(np.float64)
    before, after = (z.to_scipy() @ head for z in (scored.latents, apply_edits(scored.latents, chosen)))
    np.testing.assert_allclose(after - before, edit_delta(scored, chosen), atol=1e-6)


@given(st.integers(0, 5), edits())
def test_property_only_the_named_latent_changes(seed: int, edit: Edit) -> None:
    latents = random_scored(seed).latents
    edited = apply_edits(latents, [edit])
    others = [i for i in range(latents.size) if i != edit.latent]
    np.testing.assert_array_equal(edited.columns(others), latents.columns(others))
    assert np.all(np.diff(edited.indptr) >= np.diff(latents.indptr))


@given(st.integers(0, 5), st.integers(0, 11), st.integers(0, 9))
def test_property_setting_its_own_value_is_the_identity(seed: int, row: int, latent: int) -> None:
    scored = random_scored(seed).take(np.array([row]))
    own = Edit(latent, set=float(scored.latents.columns([latent])[0, 0]))
    assert edit_delta(scored, [own])[0] == 0.0
    np.testing.assert_array_equal(apply_edits(scored.latents, [own]).dot(scored.head), scored.rewards)


@given(st.integers(0, 5), st.integers(0, 9))
def test_property_scaling_by_one_is_the_identity(seed: int, latent: int) -> None:
    latents = random_scored(seed).latents
    edited = apply_edits(latents, [Edit(latent, scale=1.0)])
    np.testing.assert_array_equal(edited.values, latents.values)
    np.testing.assert_array_equal(edited.indices, latents.indices)


@pytest.mark.long
@given(st.integers(0, 5), st.integers(0, 9), NUMBERS)
def test_metamorphic_scaling_a_head_weight_equals_scaling_the_latent(
    seed: int, latent: int, c: float
) -> None:
    scored = random_scored(seed)
    head = scored.head.copy()
    head[latent] *= np.float32(c)
    edited = scored.rewards + edit_delta(scored, [Edit(latent, scale=c)])
    np.testing.assert_allclose(scored.latents.dot(head), edited, atol=1e-5)


@given(edits())
def test_property_the_text_of_an_edit_reads_back(edit: Edit) -> None:
    assert parse_edit(str(edit)) == edit


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("12345=0", Edit(12345, set=0.0)),
        ("12345:max=2", Edit(12345, max=2.0)),
        ("12345:*0.5", Edit(12345, scale=0.5)),
        ("12345:*2", Edit(12345, scale=2.0)),
        ("12345:+1", Edit(12345, add=1.0)),
        ("12345:-1", Edit(12345, add=-1.0)),
        ("12345: min=0, max=2", Edit(12345, min=0.0, max=2.0)),
        ("12345:min=2,max=2", Edit(12345, min=2.0, max=2.0)),
    ],
)
def test_command_line_forms(text: str, edit: Edit) -> None:
    assert parse_edit(text) == edit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "'5' is not an edit"),
        ("x=1", "does not begin with a latent number"),
        ("-5=0", "does not begin with a latent number"),
        ("5:mx=2", r"edit of latent 5: unknown key 'mx'; did you mean max\?"),
        ("5:max=two", "edit of latent 5: max is 'two', it must be a number"),
        ("5=nan", "edit of latent 5: set is 'nan', it must be finite"),
        ("5:set=1,max=2", "edit of latent 5: set and max cannot be combined"),
        ("5:min=3,max=2", "edit of latent 5: min 3 is above max 2"),
    ],
)
def test_bad_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_edit(text)


def test_bad_edits_are_refused_where_they_are_made() -> None:
    with pytest.raises(ConfigError, match=r"^edit of latent 5: set and max cannot be combined$"):
        Edit(5, set=0.0, max=2.0)
    with pytest.raises(ConfigError, match=r"^edit: latent is -1, it must be >= 0$"):
        Edit(-1, set=0.0)
    with pytest.raises(ConfigError, match=r"^edit of latent 5: no operation$"):
        Edit(5)
    with pytest.raises(ConfigError, match=r"^edit: unknown key 'maxx'; did you mean max\?$"):
        Edit(5, maxx=2.0)  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(ConfigError, match=r"^edit: max is nan, .*finite"):
        Edit(5, max=float("nan"))


def test_inside_a_pydantic_model_a_mistake_keeps_its_place() -> None:
    class Run(BaseModel):
        edits: list[Edit]

    assert Run.model_validate({"edits": [{"latent": 5, "max": 2}]}).edits == [Edit(5, max=2.0)]
    with pytest.raises(ValidationError, match="edit of latent 5: set and max cannot be combined") as caught:
        Run.model_validate({"edits": [{"latent": 5, "set": 0, "max": 2}]})
    assert caught.value.errors()[0]["loc"] == ("edits", 0)


def test_both_file_forms(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    path.write_text(json.dumps({"16720": ["*", 2], "5": ["+", 1]}))
    assert load_edits(path) == [Edit(16720, scale=2.0), Edit(5, add=1.0)]
    path.write_text(json.dumps([{"latent": 16720, "max": 2}, {"latent": 5, "set": 0}]))
    assert load_edits(path) == [Edit(16720, max=2.0), Edit(5, set=0.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"5": ["/", 2]}', r'edit of latent 5: .* is not \["\*", number\]'),
        (b'{"5": ["*", "much"]}', "scale is 'much'"),
        (b'{"5": 2}', r'edit of latent 5: 2 is not \["\*", number\]'),
        (b'[{"latent": 5, "max": 2}, {"latent": 5, "add": 1}]', "latent 5 has two edits"),
        (b'[{"latnt": 5, "max": 2}]', "edit: unknown key 'latnt'; did you mean latent"),
        (b'{"5": ["*", 2, 3]}', r'is not \["\*", number\]'),
        (b'{"5": ["*"]}', r'is not \["\*", number\]'),
        (b'{"5": "*2"}', r'is not \["\*", number\]'),
        (b"3", "neither a steering file nor a list of edits"),
        (b"[3]", "neither a steering file nor a list of edits"),
        (b"{", "not JSON: Expecting property name"),
        (b"\xff", "not UTF-8 at byte 1"),
    ],
)
def test_a_bad_file_is_named_with_the_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "edits.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"edits.json: .*{message}"):
        load_edits(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.json: No such file"):
        load_edits(tmp_path / "none.json")
