"""`features.json`: what is written is read, and only by the head it was made on."""

import json
from pathlib import Path

import pytest

from sarm_control.control.edits.edits import Edit
from sarm_control.control.penalties import Penalty
from sarm_control.discovery.features import Feature, Features, load_features, select
from sarm_control.errors import ConfigError, DataError


def feature(latent: int, *controls: Edit | Penalty) -> Feature:
    return Feature(
        latent=latent, kind="paid-for-bad", weight=0.01, effect=-0.2, low=-0.3, high=-0.1, p=1e-4, q=0.002,
        q_confirm=0.01, effect_sd=-0.4, share_of_margin=None, rate_chosen=0.1, rate_rejected=0.4, auroc=0.3,
        controls=controls,
    )  # fmt: skip


CONTROLS = (Penalty(4, tau=0.5, alpha="1.2sd"), Edit(4, max=0.0))
FEATURES = Features(
    head="abc123",
    model="tiny",
    goal="safety",
    lists={"promotes": (), "harms": (feature(4, *CONTROLS), feature(9), feature(2), feature(7))},
    about={"counts": {"tested": 40}, "seed": 3},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    FEATURES.save(tmp_path / "features.json")
    return tmp_path / "features.json"


def test_round_trip_is_equal(path: Path) -> None:
    assert load_features(path, "abc123") == FEATURES


def test_the_file_is_plain_json_with_lists_of_objects(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["format"] == "sarm-features-1"
    assert [item["latent"] for item in content["lists"]["harms"]] == [4, 9, 2, 7]
    assert content["lists"]["harms"][0]["controls"] == [
        {"penalty": {"latent": 4, "tau": 0.5, "alpha": "1.2sd", "form": "indicator"}},
        {"edit": {"latent": 4, "max": 0.0}},
    ]


def test_another_head_is_refused_and_both_fingerprints_are_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"found on the head abc123, this model has the head fff000"):
        load_features(path, "fff000")


@pytest.mark.parametrize(
    ("part", "latents"),
    [("", [4, 9, 2, 7]), ("[:3]", [4, 9, 2]), ("[1:3]", [9, 2]), ("[2:]", [2, 7]), ("[0]", [4]),
     ("[-1]", [7]), ("[:99]", [4, 9, 2, 7])],
)  # fmt: skip
def test_a_part_of_a_list_is_named_as_in_python(path: Path, part: str, latents: list[int]) -> None:
    for prefix in ("", "@"):
        assert [one.latent for one in select(f"{prefix}{path}#harms{part}", "abc123")] == latents


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{path}", "does not name a list of features"),
        ("{path}#hurts", "no list hurts"),
        ("{path}#harms[a:b]", r"\[a:b\] is not|does not name a list"),
        ("{path}#harms[1:2:3]", r"\[1:2:3\] is not a slice"),
        ("{path}#harms[]", r"\[\] is not a slice"),
        ("{path}#harms[4]", "nothing there, harms has 4 latents"),
        ("{path}#harms[-5]", "nothing there, harms has 4 latents"),
        ("{path}#promotes[:3]", "nothing there, promotes has 0 latents"),
    ],
)
def test_a_name_that_names_nothing_is_refused(path: Path, spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(spec.format(path=path), "abc123")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "features.json: not JSON"),
        ('{"16720": ["*", 2]}', "features.json: not a features file"),
        ("[1, 2]", "features.json: not a features file"),
        (
            '{"format": "sarm-features-1", "head": "abc123", "model": "m", "goal": "g"}',
            "not a features file: 'lists'",
        ),
        (
            '{"format": "sarm-features-1", "head": "abc123", "model": "m", "goal": "g", '
            '"lists": {"harms": [{"latent": 4}]}}',
            "not a features file",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "features.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_features(path, "abc123")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: No such file"):
        load_features(tmp_path / "nowhere.json", "abc123")
