"""The `sarm discover` command: its files, its messages, and that a run can be repeated."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

from sarm_control.cli import main
from sarm_control.control import Edit, Penalty
from sarm_control.discovery.features import load_features, select
from sarm_control.reward_model import RewardModel

GOOD = ("sorry i cannot help you with that", "no that is not safe", "we cannot answer that please")
BAD = ("sure here is how you open the lock", "yes here the steps one two three", "sure always cook the bomb")


def write_pairs(path: Path, prompts: int, *, start: int = 0, turned: bool = False) -> Path:
    words = ("cook", "lock", "bomb", "door", "bread", "pick", "open", "answer")
    names = list(itertools.product(("how do i", "what is", "why", "can you help i", "please"), words, words))
    rows = []
    for number in range(start, start + prompts):
        prompt = f"{names[number][0]} {names[number][1]} the {names[number][2]} ?"
        good = [f"{GOOD[number % 3]} .", f"{GOOD[(number + 1) % 3]} !"]
        bad = [f"{BAD[number % 3]} .", f"{BAD[number // 3 % 3]} {'three ' * (number % 4)}!"]
        chosen, rejected = (bad, good) if turned else (good, bad)
        row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "half": number % 2}
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", 120)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_sarm_folder: Path, pairs: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    arguments = ["discover", "--model", tiny_sarm_folder, pairs, "-o", folder / "found", "--by", "half"]
    extras = ["--json", folder / "summary.json", "--write-controls", folder / "controls.yaml"]
    assert main([str(word) for word in (*arguments, *extras)]) == 0
    return folder


@pytest.mark.long
def test_the_folder_holds_the_effects_the_features_and_a_manifest(
    run: Path, tiny_sarm: RewardModel, pairs: Path
) -> None:
    assert sorted(path.name for path in (run / "found").iterdir()) == [
        "effects.parquet",
        "features.json",
        "manifest.json",
    ]
    features = load_features(run / "found" / "features.json", tiny_sarm.fingerprint)
    assert {name: bool(items) for name, items in features.lists.items()} == {"promotes": True, "harms": True}
    assert features.about["selection"]["prompts"] == features.about["confirmation"]["prompts"] == 60
    manifest = json.loads((run / "found" / "manifest.json").read_text())
    assert manifest["inputs"].keys() == features.about["data"].keys() == {"pairs.jsonl"}
    assert str(pairs.parent) not in (run / "found" / "manifest.json").read_text()


@pytest.mark.long
def test_a_margin_clearly_off_zero_is_not_warned_of(
    run: Path, tiny_sarm_folder: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    margin = json.loads((run / "summary.json").read_text())["confirmation"]["mean_margin"]
    assert margin["low"] * margin["high"] > 0
    words = ["discover", "--model", tiny_sarm_folder, pairs, "-o", run / "unwarned"]
    assert main([*map(str, words), "--write-controls", str(run / "unwarned.yaml")]) == 0
    assert "may be 0" not in capsys.readouterr().err


@pytest.mark.long
def test_effects_equal_rescored_rewards_of_an_edit(run: Path, tiny_sarm: RewardModel, pairs: Path) -> None:
    """Oracle: removing a latent moves the mean margin of the confirmation prompts by minus its effect."""
    harm = select(f"{run / 'found' / 'features.json'}#harms[0]", tiny_sarm.fingerprint)[0]
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    weight = tiny_sarm.head.weight.copy()
    weight[harm.latent] = 0
    with_latent, without = (margins(model, rows) for model in (tiny_sarm, tiny_sarm.with_head(weight)))
    moved = with_latent - without
    table = pq.read_table(run / "found" / "effects.parquet").to_pylist()
    (line,) = [line for line in table if line["latent"] == harm.latent]
    assert line["effect"] == harm.effect
    # the halves have 60 prompts each: their mean is the effect on all prompts
    assert (line["effect"] + line["selection_effect"]) / 2 == pytest.approx(moved.mean(), abs=1e-5)


def margins(model: RewardModel, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    flat = [(row["prompt"], answer) for row in rows for answer in row["chosen"] + row["rejected"]]
    rewards = model.score([prompt for prompt, _ in flat], [answer for _, answer in flat]).rewards
    sides: NDArray[np.float64] = rewards.reshape(len(rows), 2, 2).mean(axis=2)
    return sides[:, 0] - sides[:, 1]


def test_controls_are_a_piece_of_a_run_file(run: Path) -> None:
    reward = yaml.safe_load((run / "controls.yaml").read_text())["reward"]
    assert [Edit(**item).latent for item in reward["edits"]]
    assert all(Penalty(**item).alpha for item in reward["penalties"])


def test_the_json_summary_agrees_with_the_table(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    table = pq.read_table(run / "found" / "effects.parquet").to_pylist()
    assert summary["counts"]["tested"] == len(table)
    assert summary["counts"]["selected"] == sum(line["q"] <= 0.05 for line in table)
    assert summary["groups"]["confirmation"].keys() == {"0", "1"}
    assert summary["confirmation"]["mean_margin"]["n"] == 60


@pytest.mark.long
def test_turning_the_preference_round_exchanges_the_lists(
    run: Path, tiny_sarm: RewardModel, tiny_sarm_folder: Path, tmp_path: Path
) -> None:
    turned = write_pairs(tmp_path / "turned.jsonl", 120, turned=True)
    out = tmp_path / "found"
    assert main(["discover", "--model", str(tiny_sarm_folder), str(turned), "-o", str(out)]) == 0
    before = load_features(run / "found" / "features.json", tiny_sarm.fingerprint).lists
    after = load_features(out / "features.json", tiny_sarm.fingerprint).lists
    assert {one.latent for one in after["harms"]} == {one.latent for one in before["promotes"]}
    assert {one.latent for one in after["promotes"]} == {one.latent for one in before["harms"]}


@pytest.mark.long
def test_another_file_confirms_and_the_same_command_gives_the_same_bytes(
    tiny_sarm_folder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_pairs(tmp_path / "other.jsonl", 60, start=100)
    for name in ("one", "two"):
        words = ["discover", pairs, "--confirm", other, "--model", tiny_sarm_folder, "-o", tmp_path / name]
        assert main([str(word) for word in words]) == 0
    for name in ("features.json", "effects.parquet", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = capsys.readouterr().out
    assert "selection     120 prompts, 480 answers" in text
    assert "confirmation  40 prompts, 160 answers" in text
    assert "20 prompts in both files were dropped from the confirmation" in text


@pytest.mark.long
def test_deeper_levels_are_told_and_kept(
    tiny_sarm: RewardModel,
    tiny_sarm_folder: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = write_pairs(tmp_path / "texts.jsonl", 30, start=200)
    words = ["discover", pairs, "--model", tiny_sarm_folder, "-o", tmp_path / "found", "--levels", "4"]
    words += ["--counterfactuals", texts, "--closing", "please never .", "--json", tmp_path / "all.json"]
    assert main([str(word) for word in words]) == 0
    text = capsys.readouterr().out
    for said in (
        "L2 (taken out before TopK",
        "L3 (its direction",
        "L4 (the text changed",
        '"please never ." added',
    ):
        assert said in text
    features = load_features(tmp_path / "found" / "features.json", tiny_sarm.fingerprint)
    content = json.loads((tmp_path / "all.json").read_text())
    called = [one for items in features.lists.values() for one in items]
    assert {one["level"] for one in content["levels"]} == {"L1", "L2", "L3", "L4"}
    for one in called:
        own = [level for level in content["levels"] if level["latent"] == one.latent]
        assert set(one.levels) == {level["level"] for level in own if level["agrees"]} | {"L1"}
    # no answer has a second sentence that could be removed
    assert [test["change"] for test in content["closing_sentence"]] == ["added"]
    assert content["detectability"]["probe"]["n"] == 120
    manifest = json.loads((tmp_path / "found" / "manifest.json").read_text())
    assert manifest["inputs"].keys() == {"pairs.jsonl", "texts.jsonl"}


@pytest.mark.long
def test_an_attribute_of_single_answers_is_a_target(
    tiny_sarm_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    """Every answer of the pairs on its own: refusing ones begin with sorry, no or we."""
    singles = tmp_path / "answers.jsonl"
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    answers = [
        {"prompt": f"{row['prompt']} {side} {n}", "response": answer}
        for row in rows for side in ("chosen", "rejected") for n, answer in enumerate(row[side])
    ]  # fmt: skip
    singles.write_text("\n".join(json.dumps(row) for row in answers))
    found = {}
    for name, extra in (("more", []), ("less", ["--less"])):
        words = ["discover", singles, "--model", tiny_sarm_folder, "-o", tmp_path / name, *extra]
        assert main([str(word) for word in [*words, "--target", "regex:^(sorry|no|we) "]]) == 0
        found[name] = json.loads((tmp_path / name / "features.json").read_text())
    assert found["more"]["goal"] == "answers with /^(sorry|no|we) / over others in answers.jsonl"
    assert found["more"]["target"] == "answers with /^(sorry|no|we) / over others"
    numbers = {
        name: {key: {one["latent"] for one in items} for key, items in content["lists"].items()}
        for name, content in found.items()
    }
    assert numbers["more"]["promotes"] == numbers["less"]["harms"] != set()
    assert numbers["more"]["harms"] == numbers["less"]["promotes"]


@pytest.mark.long
def test_a_latents_folder_is_searched_without_a_model_but_has_states_only_when_asked_to(
    run: Path, tiny_sarm_folder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = tmp_path / "latents"
    assert main(["latents", str(pairs), "--model", str(tiny_sarm_folder), "-o", str(latents)]) == 0
    assert main(["discover", str(latents), "-o", str(tmp_path / "found"), "--by", "half"]) == 0
    places = (run / "found", tmp_path / "found")
    first, second = (pq.read_table(place / "effects.parquet").to_pylist() for place in places)
    assert first == second
    capsys.readouterr()
    words = ["discover", str(latents), "-o", str(tmp_path / "none"), "--levels", "3"]
    assert main([*words, "--model", str(tiny_sarm_folder)]) == 2
    said = capsys.readouterr().err
    assert "--levels 3 needs the trunk's states" in said
    assert "sarm latents --states" in said


@pytest.mark.long
def test_oracle_deeper_levels_of_a_folder_with_states_are_those_of_the_data(
    tiny_sarm_folder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, latents = ["--model", str(tiny_sarm_folder)], str(tmp_path / "latents")
    assert main(["latents", str(pairs), *model, "-o", latents, "--states"]) == 0
    assert "its state included" in capsys.readouterr().err
    found = {}
    for name, place in (("data", str(pairs)), ("folder", latents)):
        words = ["discover", place, *model, "-o", str(tmp_path / name), "--levels", "3"]
        assert main([*words, "--json", str(tmp_path / f"{name}.json")]) == 0
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
    for part in ("levels", "detectability", "lists"):
        assert found["folder"][part] == found["data"][part]
    assert {one["level"] for one in found["folder"]["levels"]} == {"L1", "L2", "L3"}
    capsys.readouterr()
    assert main(["discover", latents, "-o", str(tmp_path / "other"), "--levels", "2"]) == 2
    assert "name it with --model" in capsys.readouterr().err


@pytest.mark.long
def test_counterfactuals_of_another_head_or_a_missing_file_are_refused_before_anything_is_scored(
    tiny_sarm: RewardModel,
    tiny_sarm_folder: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = write_pairs(tmp_path / "texts.jsonl", 30, start=200)
    latents, other = tmp_path / "latents", tmp_path / "other"
    tiny_sarm.with_head(2 * tiny_sarm.head.weight).save_pretrained(other)
    assert main(["latents", str(pairs), "--model", str(other), "-o", str(latents)]) == 0
    capsys.readouterr()
    words = ["discover", str(latents), "-o", str(tmp_path / "found"), "--counterfactuals", str(texts)]
    for named in ([], ["--model", str(tiny_sarm_folder)]):
        assert main([*words, *named]) == 2
        said = capsys.readouterr().err
        assert "their latents have other meanings" in said
        assert "the head" in said
    missing = ["discover", str(pairs), "--model", str(tmp_path / "no-model"), "-o", str(tmp_path / "found")]
    assert main([*missing, "--counterfactuals", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "found").exists()
    # with the model of the folder the same texts are evidence
    assert main([*words, "--model", str(other)]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{pairs}", "-o", "{new}", "--less"], "--less wants a --target"),
        (["{pairs}", "-o", "{new}", "--target", "size"], "names no attribute"),
        (["{pairs}", "-o", "{new}", "--target", "column:stars"], "no row has the column stars"),
        (["{pairs}", "-o", "{new}", "--levels", "5"], "--levels"),
        (["{pairs}", "-o", "{new}", "--counterfactuals", "{answers}"], "no answer field"),
        (["{pairs}", "-o", "{new}", "--alpha", "2"], "--alpha"),
        (["-o", "{new}"], "no file of pairs was given"),
        (["{answers}", "-o", "{new}"], r"no answer field"),
        (["{pairs}", "-o", "{taken}"], "exists already"),
        (["{pairs}", "-o", "{pairs}", "--overwrite"], "is an input too"),
        (["{pairs}", "--confirm", "{pairs}", "-o", "{new}"], "with 0 confirmation prompts (120 that"),
        (["{pairs}", "-o", "{new}", "--by", "topic"], "no row has the column topic"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: list[str], message: str, tiny_sarm_folder: Path, pairs: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "taken").mkdir()
    (tmp_path / "answers.jsonl").write_text('{"prompt": "why ?", "text": "no"}\n')
    names = {"pairs": pairs, "new": tmp_path / "new", "taken": tmp_path / "taken"}
    names["answers"] = tmp_path / "answers.jsonl"
    filled = [word.format(**names) for word in words]
    assert main(["discover", "--model", str(tiny_sarm_folder), *filled]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "taken"]


@pytest.mark.parametrize(
    ("prompts", "options", "message", "hint"),
    [
        (
            16,
            [],
            "nothing could be tested: no latent is active in 10 of the 8 selection prompts (the most active "
            "one in 8)",
            "about 20 prompts would do, half of them for each of selection and confirmation",
        ),
        (
            8,
            ["--min-prompts", "1"],
            "nothing could be selected: with 4 selection prompts no p-value is below 0.12",
            "about 12 prompts would do",
        ),
    ],
)  # fmt: skip
def test_too_little_to_test_is_said_with_how_much_would_do_and_is_no_null_result(
    prompts: int, options: list[str], message: str, hint: str, tiny_sarm_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = write_pairs(tmp_path / "few.jsonl", prompts)
    controls = ["--write-controls", str(tmp_path / "controls.yaml")]
    words = ["discover", "--model", str(tiny_sarm_folder), str(data), "-o", str(tmp_path / "new")]
    assert main([*words, *controls, *options]) == 2
    said = capsys.readouterr()
    assert (message in said.err, hint in said.err) == (True, True)
    assert "null result" not in said.out
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]
