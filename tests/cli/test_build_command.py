"""`sarm build` end to end on a tiny model: golden repeatability, oracles on its figures, messages."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.reward_model import RewardModel

GOOD, BAD = "sorry i cannot help you .", "sure here steps one two three ."


def write_rows(path: Path, prompts: int, start: int = 0) -> Path:
    numbers = ["one", "two", "three", "four", "five"]
    rows = []
    for j in range(start, start + prompts):
        prompt = f"how do i {numbers[j % 5]} {numbers[j // 5 % 5]} {numbers[j // 25]} bomb ?"
        rows.append(
            {
                "prompt": prompt,
                "chosen": [GOOD, f"no . {GOOD}"],
                "rejected": [BAD, f"yes ! {BAD} {numbers[j % 3]}"],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def base_arguments(folder: Path, work: Path, out: str) -> list[str]:
    return [
        *(
            "build",
            "--base",
            str(folder),
            "--layer",
            "2",
            "--latents",
            "48",
            "--k",
            "6",
            "-o",
            str(work / out),
        ),
        *("--text", str(work / "pairs.jsonl"), "--pairs", str(work / "pairs.jsonl")),
        *("--steps", "30", "--batch", "32", "--cache", str(work / "states"), "--holdout", "0.25"),
    ]


@pytest.fixture(scope="module")
def built(tiny_policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sae_lens", reason='`sarm build --base` wants the extra "build"')
    work = tmp_path_factory.mktemp("build")
    write_rows(work / "pairs.jsonl", 24)
    write_rows(work / "other.jsonl", 10, start=20)
    arguments = [*base_arguments(tiny_policy_folder, work, "sarm"), "--eval", str(work / "other.jsonl")]
    assert main([*arguments, "--json", str(work / "figures.json")]) == 0
    return work


def test_oracle_the_saved_sarm_reaches_the_figures_it_reports(built: Path) -> None:
    figures = json.loads((built / "sarm" / "build.json").read_text())
    model = RewardModel.from_pretrained(built / "sarm")
    assert (model.config.source_layer, model.config.latents, model.config.k) == (2, 48, 6)
    assert model.fingerprint == figures["head_fingerprint"]
    rows = [json.loads(line) for line in (built / "other.jsonl").read_text().splitlines()][4:]
    answers = [(row["prompt"], text) for row in rows for text in (*row["chosen"], *row["rejected"])]
    rewards = model.score([a for a, _ in answers], [b for _, b in answers]).rewards.reshape(-1, 2, 2)
    accuracy = np.mean(rewards[:, 0, :, None] > rewards[:, 1, None, :])
    found = figures["evaluation"]["other"]
    assert found["shared_prompts_left_out"] == 4
    assert found["sparse"]["pair_accuracy"]["n"] == 6
    assert found["sparse"]["pair_accuracy"]["mean"] == pytest.approx(accuracy)
    assert accuracy > 0.9
    assert found["dense"]["best_of_chance"] == pytest.approx(0.5)


def test_oracle_the_figures_count_what_was_given(built: Path) -> None:
    figures = json.loads((built / "figures.json").read_text())
    assert figures["base"] == "tiny-policy"
    texts = figures["texts"]
    assert (texts["answers"], texts["prompts"], texts["held_out_prompts"]) == (96, 24, 6)
    assert texts["sentence_states"] > 96
    assert figures["head"]["sparse"]["held_out"]["pair_accuracy"]["n"] == 6
    assert -1 < figures["autoencoder"]["explained_variance_held_out"] <= 1
    errors = [point["mean_squared_error"] for point in figures["autoencoder"]["curve"]]
    assert errors[-1] < errors[0]
    manifest = json.loads((built / "sarm" / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"pairs.jsonl", "other.jsonl"}


@pytest.mark.long
def test_golden_the_same_command_gives_the_same_bytes_from_cached_states(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = sorted((built / "states").iterdir())
    stamps = [path.stat().st_mtime_ns for path in states]
    assert main(base_arguments(tiny_policy_folder, built, "again")) == 0
    first, second = (built / name / "model.safetensors" for name in ("sarm", "again"))
    assert first.read_bytes() == second.read_bytes()
    assert [path.stat().st_mtime_ns for path in sorted((built / "states").iterdir())] == stamps
    assert "explained variance of end-of-turn states" in capsys.readouterr().err


@pytest.mark.long
def test_oracle_pairs_alone_fit_only_the_head(built: Path) -> None:
    arguments = ["build", "--model", str(built / "sarm"), "--pairs", str(built / "other.jsonl")]
    arguments += ["--holdout", "0.6"]
    assert main([*arguments, "-o", str(built / "new-head"), "--cache", str(built / "states")]) == 0
    old, new = (RewardModel.from_pretrained(built / name) for name in ("sarm", "new-head"))
    assert old.fingerprint != new.fingerprint
    for (name, before), (_, after) in zip(
        old.autoencoder.state_dict().items(), new.autoencoder.state_dict().items(), strict=True
    ):
        np.testing.assert_array_equal(before.numpy(), after.numpy(), err_msg=name)


@pytest.mark.long
def test_metamorphic_without_pairs_every_reward_is_zero(built: Path, tiny_policy_folder: Path) -> None:
    arguments = base_arguments(tiny_policy_folder, built, "no-head")
    cut = arguments.index("--pairs")
    assert main([*arguments[:cut], *arguments[cut + 2 :]]) == 0
    model = RewardModel.from_pretrained(built / "no-head")
    assert not model.head.weight.any()


@pytest.mark.long
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_oracle_a_tuned_sarm_is_saved_as_it_was_judged(
    built: Path, tiny_policy_folder: Path, mode: str
) -> None:
    arguments = base_arguments(tiny_policy_folder, built, f"tuned-{mode}")
    tuning = ["--tune-trunk", "1", "--tune-after", "2", "--tune", mode, "--eval", str(built / "other.jsonl")]
    assert main([*arguments, *tuning]) == 0
    figures = json.loads((built / f"tuned-{mode}" / "build.json").read_text())
    assert figures["tune_trunk"]["losses"][0] < 0.75
    assert figures["tune_after"]["losses"][1] < figures["tune_after"]["losses"][0]
    assert figures["tune_after"]["held_out"]["pair_accuracy"]["n"] == 6
    model = RewardModel.from_pretrained(built / f"tuned-{mode}")
    assert model.fingerprint == figures["head_fingerprint"]


def write_panel(path: Path, prompts: int) -> Path:
    """Two annotators of opposite tastes who label the same answers, each prompt twice."""
    write_rows(path, prompts)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    panel = [{**row, "who": "zoe"} for row in rows]
    panel += [{**row, "chosen": row["rejected"], "rejected": row["chosen"][:1], "who": "ann"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in panel), encoding="utf-8")
    return path


def tune_panel(folder: Path, work: Path, out: str, *options: str) -> dict[str, Any]:
    arguments = base_arguments(folder, work, out)
    arguments[arguments.index("--pairs") + 1] = str(write_panel(work / "panel.jsonl", 24))
    tuning = ["--tune-trunk", "5", "--tune", "full", "--tune-rows", "99", "--annotator", "who"]
    assert main([*arguments, *tuning, *options]) == 0
    figures: dict[str, Any] = json.loads((work / out / "build.json").read_text())
    return figures


@pytest.mark.long
def test_oracle_a_panel_of_annotators_tunes_the_trunk(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tune_panel(tiny_policy_folder, built, "panel", "--tune-learning-rate", "1e-2")
    tuned = figures["tune_trunk"]
    assert tuned["annotators"] == 2
    assert list(tuned["annotator_losses"]) == ["ann", "zoe"]
    assert max(tuned["annotator_losses"].values()) < 0.65
    # All rows are one step, so the first epoch is judged before any step.
    assert tuned["losses"][0] == pytest.approx(math.log(2))
    assert figures["texts"]["answers"] == 96
    assert "48 preference rows by 2 annotators" in capsys.readouterr().err
    settings = json.loads((built / "panel" / "manifest.json").read_text())["config"]
    assert (settings["tune_rows"], settings["tune_learning_rate"], settings["annotator"]) == (99, 0.01, "who")
    slow = tune_panel(tiny_policy_folder, built, "slow-panel", "--tune-learning-rate", "1e-6")
    assert slow["tune_trunk"]["losses"][-1] > tuned["losses"][-1]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({}, "bad.jsonl:3: no who field: has keys [prompt, chosen, rejected]"),
        ({"who": 7}, "bad.jsonl:3: who is 7, not a name"),
    ],
)
def test_bad_input_a_row_that_does_not_say_who_labelled_it(
    built: Path,
    tiny_policy_folder: Path,
    capsys: pytest.CaptureFixture[str],
    field: dict[str, int],
    message: str,
) -> None:
    lines = write_panel(built / "bad.jsonl", 6).read_text(encoding="utf-8").splitlines()
    third = json.loads(lines[2])
    del third["who"]
    lines[2] = json.dumps({**third, **field})
    (built / "bad.jsonl").write_text("\n".join(lines), encoding="utf-8")
    arguments = base_arguments(tiny_policy_folder, built, "nameless")
    arguments[arguments.index("--pairs") + 1] = str(built / "bad.jsonl")
    assert main([*arguments, "--tune-trunk", "1", "--annotator", "who"]) == 2
    error = capsys.readouterr().err
    assert message in error.replace("\n", "")
    assert "labelled" in error if not field else '"who": "ann"' in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "2"], "give either --base"),
        (["--base", "x", "--layer", "2"], "--base also needs rows: --pairs, or --text"),
        (["--model", "x", "--layer", "2"], "--layer: an existing SARM keeps"),
        (["--model", "x"], "a new head needs preferences"),
        (["--model", "x", "--pairs", "p.jsonl", "--annotator", "who"], "annotators matter only to tuning"),
        (
            ["--base", "x", "--layer", "2", "--latents", "4", "--k", "5", "--text", "t.jsonl"],
            "k is 5, it must be",
        ),
        (
            ["--base", "x", "--layer", "2", "--latents", "8", "--k", "5", "--text", "nowhere.jsonl"],
            "nowhere.jsonl",
        ),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_input_a_layer_the_model_lacks(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = base_arguments(tiny_policy_folder, built, "too-deep")
    arguments[arguments.index("2")] = "9"
    assert main(arguments) == 2
    assert "has 3 layers, layer 9 cannot be its source layer" in capsys.readouterr().err


def test_bad_input_evaluation_rows_that_were_built_from(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = base_arguments(tiny_policy_folder, built, "leak")
    assert main([*arguments, "--eval", str(built / "pairs.jsonl")]) == 2
    assert "every prompt was used for building" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompts", "holdout", "message", "enough"),
    [
        (3, "0.25", "3 prompts with preferences leave 1 to be held out: too few to tell", 22),
        (5, "0.15", "5 prompts with preferences leave 1 to be held out: too few to tell", 37),
        (21, "0.25", "21 prompts with preferences leave 5 to be held out: too few to tell", 22),
    ],
)
def test_bad_input_too_few_prompts_to_judge_by_are_refused_before_the_trunk_reads_any(
    prompts: int, holdout: str, message: str, enough: int, built: Path, tiny_policy_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_rows(built / "few.jsonl", prompts, start=60)
    arguments = base_arguments(tiny_policy_folder, built, "few")
    arguments[arguments.index("--pairs") + 1] = str(built / "few.jsonl")
    arguments[arguments.index("--holdout") + 1] = holdout
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert f"at --holdout {holdout} at least {enough} prompts with preferences are needed" in error
    assert "states of" not in error
    assert not (built / "few").exists()


def test_bad_input_texts_alone_need_as_many_prompts_held_out(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(built / "few-texts.jsonl", 5, start=60)
    arguments = base_arguments(tiny_policy_folder, built, "few-texts")
    cut = arguments.index("--pairs")
    arguments = [*arguments[:cut], *arguments[cut + 2 :]]
    arguments[arguments.index("--text") + 1] = str(built / "few-texts.jsonl")
    assert main(arguments) == 2
    assert "5 prompts leave 1 to be held out" in capsys.readouterr().err


def test_the_first_rows_of_each_file_alone(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 24 prompts that are enough, five are not."""
    arguments = base_arguments(tiny_policy_folder, built, "first-rows")
    cut = arguments.index("--pairs")
    assert main([*arguments[:cut], *arguments[cut + 2 :], "--rows", "5"]) == 2
    assert "5 prompts leave 1 to be held out" in capsys.readouterr().err


def test_bad_input_an_autoencoder_that_explains_nothing_is_not_saved(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = base_arguments(tiny_policy_folder, built, "untrained")
    arguments[arguments.index("--steps") + 1] = "1"
    assert main([*arguments, "--learning-rate", "1e-9"]) == 2
    error = capsys.readouterr().err
    assert "of the variance of the held-out states: no better than their mean, from 72 answers" in error
    assert "hint: give more answers in --text" in error
    assert not (built / "untrained").exists()


@pytest.mark.long
def test_golden_the_same_pairs_on_the_built_sarm_give_its_head_again_from_its_states(built: Path) -> None:
    states = sorted((built / "states").iterdir())
    arguments = ["build", "--model", str(built / "sarm"), "--pairs", str(built / "pairs.jsonl")]
    arguments += ["--cache", str(built / "states"), "--holdout", "0.25", "-o", str(built / "refitted")]
    assert main(arguments) == 0
    old, new = (RewardModel.from_pretrained(built / name) for name in ("sarm", "refitted"))
    assert old.fingerprint == new.fingerprint
    assert sorted((built / "states").iterdir()) == states


@pytest.mark.long
def test_oracle_a_validation_file_chooses_the_regularisation(built: Path, tiny_policy_folder: Path) -> None:
    write_rows(built / "validation.jsonl", 8, start=40)
    arguments = base_arguments(tiny_policy_folder, built, "validated")
    assert main([*arguments, "--validate", str(built / "validation.jsonl")]) == 0
    figures = json.loads((built / "validated" / "build.json").read_text())["head"]["sparse"]
    losses = {tried["l2"]: tried["loss"] for tried in figures["regularisation"]}
    assert figures["l2"] == min(losses, key=losses.__getitem__)
    manifest = json.loads((built / "validated" / "manifest.json").read_text())
    assert "validation.jsonl" in manifest["inputs"]


def test_bad_input_validation_rows_that_are_evaluated_on(
    built: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(built / "other.jsonl")
    arguments = base_arguments(tiny_policy_folder, built, "refused")
    assert main([*arguments, "--validate", other, "--eval", other]) == 2
    assert "10 validation rows have prompts of an evaluation file" in capsys.readouterr().err
    assert not (built / "refused").exists()
