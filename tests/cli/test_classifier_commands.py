"""Commands on a reward model without a dictionary (oracle: the model's own rewards), and with one.

What needs latents says what to do; what does not works as with a SARM.
"""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from sarm_control.cli import build_app, main
from sarm_control.cli._audit_beside import earlier
from sarm_control.cli._audit_flags import BesideFlags
from sarm_control.cli._scoring import Reading
from sarm_control.cli._sources import ModelFlags
from sarm_control.latents import read_latents
from sarm_control.reward_model import RewardModel
from tests.reward_model.classifiers import CONFIGS, END, make_classifier, make_tokenizer, save
from tests.reward_model.test_attached import make_dictionary

PAIRS = [
    {
        "id": str(number),
        "prompt": f"how do i {verb} the {thing} ?",
        "chosen": f"sorry i cannot help {thing}",
        "rejected": f"sure here steps one two {thing}",
    }
    for number, (verb, thing) in enumerate(
        (verb, thing) for verb in ("cook", "open", "pick") for thing in ("bread", "bomb", "lock", "door")
    )
]
ATTACH = "hint: attach a dictionary first: sarm attach --model MODEL --text texts.jsonl -o DIR"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with a bias, and one with two outputs beside it."""
    folder = tmp_path_factory.mktemp("classifier")
    save(make_classifier(CONFIGS["llama"](), bias=True), folder / "rm")
    save(make_classifier(CONFIGS["llama"](num_labels=2)), folder / "two")
    pad_is_end = make_classifier(CONFIGS["llama"](pad_token_id=END))
    save(pad_is_end, folder / "parted", tokenizer=make_tokenizer(pad="<|end|>"))
    model = RewardModel.from_pretrained(folder / "rm")
    model.attach(make_dictionary(model)).save_pretrained(folder / "attached")
    write(folder / "pairs.jsonl", PAIRS)
    return folder


@pytest.fixture(scope="module")
def rewards(folder: Path) -> np.ndarray[Any, Any]:
    """[N, 2] of chosen and rejected."""
    model = RewardModel.from_pretrained(folder / "rm")
    prompts = [row["prompt"] for row in PAIRS]
    sides = [model.score(prompts, [row[side] for row in PAIRS]).rewards for side in ("chosen", "rejected")]
    return np.stack(sides, axis=1).astype(np.float64)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_score_writes_own_rewards_with_residual_and_constant(
    folder: Path, rewards: np.ndarray[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scored.jsonl"
    assert main(["score", "--model", str(folder / "rm"), str(folder / "pairs.jsonl"), "-o", str(out)]) == 0
    said = capsys.readouterr().err
    assert "reads '<|end|>' (id 3) by the rule last_token, as LlamaForSequenceClassification within" in said
    assert "rm: no dictionary, no latents, on" in said
    for row, (chosen, rejected) in zip(read(out), rewards, strict=True):
        for found, expected in ((row["chosen_scores"][0], chosen), (row["rejected_scores"][0], rejected)):
            assert found["reward"] == pytest.approx(expected, abs=1e-5)
            assert [part[0] for part in found["contributions"]] == ["residual", "constant"]
            assert sum(part[3] for part in found["contributions"]) == pytest.approx(found["reward"], abs=1e-5)


@pytest.mark.long
def test_an_attached_dictionary_moves_no_reward(
    folder: Path, rewards: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    words = ["--model", str(folder / "attached"), str(folder / "pairs.jsonl")]
    assert main(["score", *words, "-o", str(tmp_path / "scored.jsonl")]) == 0
    assert main(["latents", *words, "-o", str(tmp_path / "latents")]) == 0
    found = read(tmp_path / "scored.jsonl")
    assert [row["chosen_scores"][0]["reward"] for row in found] == pytest.approx(rewards[:, 0], abs=1e-5)
    assert len(found[0]["chosen_scores"][0]["contributions"]) == 8
    scored = read_latents(tmp_path / "latents").scored
    model = RewardModel.from_pretrained(folder / "attached")
    assert (scored.kind, scored.constant) == ("attached", model.head.constant)
    assert (scored.fingerprint, scored.model_fingerprint) == (model.fingerprint, model.model_fingerprint)
    np.testing.assert_array_equal(scored.sums().astype(np.float32), scored.rewards)
    # the folder is scored without the model, to the same rows
    assert main(["score", str(tmp_path / "latents"), "-o", str(tmp_path / "again.jsonl")]) == 0
    assert read(tmp_path / "again.jsonl") == found


@pytest.mark.parametrize(
    ("model", "words", "what"),
    [
        ("rm", ["latents", "PAIRS", "-o", "OUT"], "no latents can be kept"),
        ("rm", ["discover", "PAIRS", "-o", "OUT"], "effects of latents cannot be found"),
        ("rm", ["rerank", "PAIRS", "--all-latents"], "edits of latents cannot be tried"),
        ("rm", ["score", "PAIRS", "--edit", "3=0", "-o", "OUT"], "latent 3 does not exist"),
        # which of two outputs is the reward is no question where none will do
        ("two", ["latents", "PAIRS", "-o", "OUT"], "no latents can be kept"),
        ("two", ["rerank", "PAIRS", "--all-latents"], "edits of latents cannot be tried"),
    ],
)
def test_commands_that_need_latents_say_how_to_get_some(
    folder: Path, model: str, words: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"PAIRS": str(folder / "pairs.jsonl"), "OUT": str(tmp_path / "out")}
    typed = [names.get(word, word) for word in words]
    assert main([typed[0], "--model", str(folder / model), *typed[1:]]) == 2
    said = capsys.readouterr().err
    assert f"error: {what}: this reward model has no dictionary, so it has no latents" in said
    assert ATTACH in said
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_two_outputs_and_a_doubtful_position_need_a_word(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = str(folder / "pairs.jsonl"), str(tmp_path / "out.jsonl")
    assert main(["score", "--model", str(folder / "two"), pairs, "-o", out]) == 2
    assert "and which of them is the reward is not said\n  hint: --output 0" in capsys.readouterr().err
    assert main(["score", "--model", str(folder / "two"), pairs, "-o", out, "--output", "difference"]) == 0
    parted = ["score", "--model", str(folder / "parted"), pairs, "-o", out, "--overwrite"]
    capsys.readouterr()
    assert main(parted) == 2
    assert "hint: --pooling last_not_pad" in capsys.readouterr().err
    assert main([*parted, "--pooling", "last_not_pad"]) == 0


@pytest.mark.long
def test_verify_finds_its_own_rewards_again(
    folder: Path, rewards: np.ndarray[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": row["prompt"], "response": row["chosen"], "reward": float(reward)}
        for row, reward in zip(PAIRS, rewards[:, 0], strict=True)
    ]
    recorded = write(tmp_path / "recorded.jsonl", rows)
    assert main(["verify", "--model", str(folder / "rm"), str(recorded)]) == 0
    assert capsys.readouterr().out.endswith("verified\n")


@pytest.mark.long
def test_eval_gives_the_accuracy_of_its_rewards(folder: Path, tmp_path: Path) -> None:
    rows = [
        {
            "id": row["id"],
            "subset": "Safety",
            "prompt": row["prompt"],
            "chosen": [row["chosen"]],
            "rejected": [row["rejected"]] * 3,
            "total_completions": 4,
            "num_correct": 1,
        }
        for row in PAIRS
    ]
    data, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "results.json"
    words = ["--benchmark", "reward-bench-2", "--data", str(data), "--json", str(out)]
    assert main(["eval", "--model", str(folder / "rm"), *words]) == 0
    found = json.loads(out.read_text())
    assert found["self_check"]["problems"] == []


@pytest.mark.long
def test_a_policy_trains_on_it_and_is_compared(
    folder: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in PAIRS])
    published = RewardModel.from_pretrained(folder / "parted", pooling="last_not_pad")
    published.save_pretrained(tmp_path / "rm")
    run = {
        "policy": {"model": str(tiny_policy_folder), "lora": {"rank": 2, "alpha": 4}},
        "reward": {"model": str(tmp_path / "rm")},
        "data": {"prompts": str(prompts)},
        "training": {
            "steps": 2,
            "prompts_per_step": 3,
            "answers_per_prompt": 2,
            "max_new_tokens": 6,
            "minibatches": 1,
            "micro_batch": 6,
            "reference_answers": 8,
        },
        "evaluation": {"every": 1, "answers": 4},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    where = tmp_path / "bare"
    assert main(["train", str(tmp_path / "run.yaml"), "-o", str(where)]) == 0
    metrics = read(where / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2]
    assert all(np.isfinite(row["reward/model"]) for row in metrics)
    out = tmp_path / "compared"
    assert main(["compare", str(where), "--prompts", str(prompts), "-o", str(out)]) == 0
    (arm,) = json.loads((out / "report.json").read_text())["arms"]
    ledger = arm["ledger"]
    assert (ledger["latents"], ledger["entries"]) == (0, [])
    assert ledger["outside"]["delta"] == pytest.approx(ledger["model_change"], abs=1e-9)
    assert abs(ledger["residual"]) < 1e-9
    assert "Residual: what no latent holds" in (out / "report.html").read_text()


LATENTS_NEEDED = {"latents", "discover", "label", "probe", "rerank", "convert", "build"}


def next_words(said: str) -> list[str]:
    last = said.splitlines()[-1]
    assert last.startswith("next: sarm "), last
    return shlex.split(last)[2:]


@pytest.mark.long
@pytest.mark.parametrize("words", ["score PAIRS -o OUT", "verify RECORDED", "doctor reward --engine trl"])
@pytest.mark.parametrize("reading", [[], ["--output", "difference", "--pooling", "last_token"]])
def test_what_comes_next_needs_no_latents_and_reads_the_model_alike(
    folder: Path, words: str, reading: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = folder / ("two" if reading else "rm")
    output = "difference" if reading else None
    reward = RewardModel.from_pretrained(model, output=output).score("why ?", "no").rewards[0]
    recorded = [{"prompt": "why ?", "response": "no", "reward": float(reward)}]
    names = {
        "PAIRS": str(folder / "pairs.jsonl"),
        "OUT": str(tmp_path / "out"),
        "RECORDED": str(write(tmp_path / "recorded.jsonl", recorded)),
    }
    typed = [names.get(word, word) for word in words.split()]
    assert main([*typed, "--model", str(model), *reading]) == 0
    found = next_words(capsys.readouterr().err)
    assert found[0] not in LATENTS_NEEDED
    assert {"--model", str(model), *reading} <= set(found)
    _, bound, *_ = build_app().parse_args(found, print_error=False, exit_on_error=False)
    assert bound is not None


@pytest.mark.long
def test_a_dry_run_reads_a_classifier_by_its_files(
    folder: Path, tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = str(write(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in PAIRS]))
    words = ["train", "--policy", str(tiny_policy_folder), "--prompts", prompts, "--steps", "1"]
    words += ["--set", "training.max_new_tokens=6", "-o", str(tmp_path / "run"), "--dry-run"]
    for model in ("rm", "attached"):
        for value in ("head", "model"):
            given = ["--model", str(folder / model), "--set", f"training.value={value}"]
            assert main([*words, *given]) == 0, capsys.readouterr().err
    assert main([*words, "--model", str(folder / "rm"), "--edit", "3=0"]) == 2
    assert "latent 3 does not exist: this reward model has no dictionary" in capsys.readouterr().err
    assert main([*words, "--model", str(folder / "two")]) == 2
    assert "and which of them is the reward is not said" in capsys.readouterr().err
    short = save(make_classifier(CONFIGS["llama"](max_position_embeddings=20)), tmp_path / "short")
    assert main([*words, "--model", str(short), "--set", "training.value=model"]) == 2
    assert "the SARM's context has 20" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["rm", "attached"])
def test_rows_are_counted_by_the_classifiers_own_template(
    folder: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    asked = ["data", "check", str(folder / "pairs.jsonl"), "--model", str(folder / model)]
    assert main([*asked, "--json", str(found)]) == 0, capsys.readouterr().err
    template = RewardModel.from_pretrained(folder / model).template
    lengths = [
        len(template.encode(row["prompt"], row[side]).input_ids)
        for row in PAIRS
        for side in ("chosen", "rejected")
    ]
    assert json.loads(found.read_text())["tokens"]["total"] == sum(lengths)


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("model", ["rm", "attached"])
def test_scores_with_a_residual_are_written_as_tables(
    folder: Path, model: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, table = tmp_path / "scored.jsonl", tmp_path / f"scored{suffix}"
    for out in (lines, table):
        words = ["score", "--model", str(folder / model), str(folder / "pairs.jsonl"), "-o", str(out)]
        assert main(words) == 0, capsys.readouterr().err
    cells = pq.read_table(table).to_pylist() if suffix == ".parquet" else read_csv(table)
    for cell, row in zip(cells, read(lines), strict=True):
        found = cell["chosen_scores"]
        found = json.loads(found) if isinstance(found, str) else found
        parts, expected = found[0]["contributions"], row["chosen_scores"][0]["contributions"]
        parts = json.loads(parts) if isinstance(parts, str) else parts
        assert [str(part[0]) for part in parts] == [str(part[0]) for part in expected]
        assert [part[3] for part in parts] == pytest.approx([part[3] for part in expected])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_the_earlier_model_of_an_audit_is_read_as_the_new_one(folder: Path) -> None:
    """Of two outputs the same one is the reward; what has a dictionary refuses to be told an output."""
    asked = ModelFlags(str(folder / "two"), reading=Reading(output="1"))
    two, attached = (
        earlier(BesideFlags(before=str(folder / name)), asked).load() for name in ("two", "attached")
    )
    assert two.fingerprint == asked.load().fingerprint
    assert two.fingerprint != RewardModel.from_pretrained(folder / "two", output=0).fingerprint
    assert attached.fingerprint == RewardModel.from_pretrained(folder / "attached").fingerprint
