"""`sarm attach` end to end on a tiny classifier: rewards to the bit, round trips, figures, messages."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sarm_control.attaching import AttachConfig, attach
from sarm_control.build import read_pairs
from sarm_control.cli import main
from sarm_control.control import Edit, edit_delta
from sarm_control.discovery import AnswerCorpus, label_from
from sarm_control.errors import ConfigError, ModelError
from sarm_control.evaluation import rescored_delta
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel
from tests.attaching.pairs import write_pairs
from tests.present import present
from tests.reward_model.classifiers import CONFIGS, make_classifier, save

pytest.importorskip("sae_lens", reason='training a dictionary wants the extra "build"')


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, pairs and other pairs, and the dictionary that the command attached."""
    folder = tmp_path_factory.mktemp("attach")
    save(make_classifier(CONFIGS["qwen3"](), bias=True), folder / "rm")
    write_pairs(folder / "pairs.jsonl", 60)
    write_pairs(folder / "other.jsonl", 24, start=50)
    assert main(command(folder, "dictionary", "--eval", str(folder / "other.jsonl"), "--compare")) == 0
    return folder


def command(work: Path, out: str, *more: str) -> list[str]:
    return [
        *("attach", "--model", str(work / "rm"), "--pairs", str(work / "pairs.jsonl"), "-o", str(work / out)),
        *("--steps", "150", "--batch", "64", "--latents", "48", "--k", "8", "--cache", str(work / "states")),
        *more,
    ]


def answers(work: Path, name: str) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in (work / name).read_text(encoding="utf-8").splitlines()]
    both = [(row["prompt"], text) for row in rows for text in (*row["chosen"], *row["rejected"])]
    return [prompt for prompt, _ in both], [text for _, text in both]


def test_rewards_are_those_of_the_reward_model_to_the_bit(work: Path) -> None:
    bare, model = (RewardModel.from_pretrained(work / name) for name in ("rm", "dictionary"))
    rows = answers(work, "other.jsonl")
    before, after = bare.score(*rows), model.score(*rows)
    assert after.rewards.tobytes() == before.rewards.tobytes()
    assert (model.config.latents, model.config.k) == (48, 8)
    for j in (0, 5):
        total = sum(part.contribution for part in after.contributions(j))
        assert total == pytest.approx(float(after.rewards[j]), abs=1e-5)


def test_oracle_the_report_is_of_the_saved_dictionary(work: Path) -> None:
    found = json.loads((work / "dictionary" / "attach.json").read_text())
    model = RewardModel.from_pretrained(work / "dictionary")
    shared = {row.prompt_key for row in read_pairs([work / "pairs.jsonl"])}
    rows = [row for row in read_pairs([work / "other.jsonl"]) if row.prompt_key not in shared]
    texts = [(row.prompt, text) for row in rows for text in row.answers]
    scored = model.score([prompt for prompt, _ in texts], [text for _, text in texts])
    rewards = scored.rewards.astype(np.float64)
    share = 1 - np.square(scored.residual).sum() / np.square(rewards - rewards.mean()).sum()
    other = found["evaluation"]["other"]
    assert other["reward"] == pytest.approx(share, abs=1e-4)
    assert (other["answers"], other["prompts"]) == (len(texts), len(rows)) == (56, 14)
    assert found["texts"]["held_out_prompts"] == 9
    assert found["texts"]["other_states"] > found["texts"]["answers"]
    assert set(found["baselines"]) == {"pca", "mean_squared_error", "batch-topk", "matryoshka", "whitened"}
    manifest = json.loads((work / "dictionary" / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"pairs.jsonl", "other.jsonl"}
    assert str(work) not in json.dumps(manifest)


def test_oracle_top_latents_are_named_by_the_words_of_sarm_label(work: Path) -> None:
    found = json.loads((work / "dictionary" / "attach.json").read_text())
    top = found["contributions"]["top_latents"]
    assert any(one["words"] for one in top)
    model = RewardModel.from_pretrained(work / "dictionary")
    data = ScoredRows(rows := read_pairs([work / "pairs.jsonl"]), model.score(*answers(work, "pairs.jsonl")))
    assert [text for row in rows for text in row.answers] == answers(work, "pairs.jsonl")[1]
    corpus = AnswerCorpus(data)
    for one in top:
        label = label_from(corpus.examples(one["latent"]), one["latent"], "", words=3, shown=0)
        assert one["words"] == [word.text for word in label.words]


@pytest.mark.long
def test_k_on_average_is_attached_saved_and_edited_like_any_other(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(work, "average", "--sparsity", "batch-topk")
    # after 150 steps it explains less than half of the reward, and is refused
    words[words.index("150")] = "500"
    assert main(words) == 0
    said = capsys.readouterr().err
    head = next(line for line in said.splitlines() if line.split()[:2] == ["latent", "words"])
    assert head.split()[2:] == ["share", "SD", "fires", "weight", "cos"]
    assert json.loads((work / "average" / "attach.json").read_text())["sparsity"] == "batch-topk"
    bare, model = (RewardModel.from_pretrained(work / name) for name in ("rm", "average"))
    rows = read_pairs([work / "other.jsonl"])
    data = ScoredRows(rows, score_rows(model, rows))
    after, before = data.scored, score_rows(bare, rows)
    assert after.rewards.tobytes() == before.rewards.tobytes()
    assert len(set(np.diff(after.latents.indptr).tolist())) > 1
    for j in (0, 5):
        parts = after.contributions(j)
        assert {"residual", "constant"} <= {part.latent for part in parts}
        assert sum(part.contribution for part in parts) == pytest.approx(float(after.rewards[j]), abs=1e-5)
    latent = int(after.latents.indices[0])
    edits = [Edit(latent, scale=0.5), Edit((latent + 1) % 48, set=0.25)]
    again = rescored_delta(model, data, edits)
    assert np.abs(again).max() > 1e-4
    np.testing.assert_allclose(again, edit_delta(after, edits), atol=1e-5)


@pytest.mark.long
def test_golden_the_same_command_gives_the_same_bytes_from_cached_states(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (work / "states").iterdir()}
    assert main(command(work, "again")) == 0
    one, two = (work / name / "dictionary.safetensors" for name in ("dictionary", "again"))
    assert one.read_bytes() == two.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in (work / "states").iterdir()} == stamps
    said = capsys.readouterr().err
    assert "next: sarm discover" in said
    for words in ("9 prompts held out", "share of variance explained", "latents make 50 %"):
        assert words in said


def test_a_collection_goes_on_where_it_stopped(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sarm_control.attaching import collect_pooled_states
    from sarm_control.attaching import states as module
    from sarm_control.build import ConversationCorpus

    monkeypatch.setattr(module, "PART", 16)
    model, corpus = RewardModel.from_pretrained(work / "rm"), ConversationCorpus()
    for row in read_pairs([work / "other.jsonl"]):
        corpus.add(row)
    cache = work / "parts"
    first = collect_pooled_states(model, corpus.answers, cache=cache)
    parts = sorted(cache.glob("*.safetensors"))
    assert len(parts) == 6
    parts[0].unlink()
    parts[1].write_bytes(b"torn")
    kept = {path: path.stat().st_mtime_ns for path in parts[2:]}
    second = collect_pooled_states(model, corpus.answers, cache=cache)
    assert {path: path.stat().st_mtime_ns for path in parts[2:]} == kept
    assert second.pooled.equal(first.pooled)
    assert second.others.equal(first.others)
    assert second.others_answer.tolist() == first.others_answer.tolist()


def test_oracle_pooled_states_are_those_that_scoring_reads(work: Path) -> None:
    from sarm_control.attaching import collect_pooled_states
    from sarm_control.build import ConversationCorpus

    model, corpus = RewardModel.from_pretrained(work / "rm"), ConversationCorpus()
    for row in read_pairs([work / "other.jsonl"]):
        corpus.add(row)
    found = collect_pooled_states(model, corpus.answers)
    texts = [(answer.prompt, answer.response) for answer in corpus.answers]
    scored = model.score([one for one, _ in texts], [two for _, two in texts], keep_states=True)
    np.testing.assert_allclose(found.pooled.numpy(), present(scored.states), atol=2e-5)
    assert np.all(np.diff(found.others_answer) >= 0)


@pytest.mark.long
def test_a_copy_needs_nothing_else_and_can_be_moved(work: Path, tmp_path: Path) -> None:
    assert main(command(work, "whole", "--copy")) == 0
    moved = Path(shutil.copytree(work / "whole", tmp_path / "moved"))
    small, whole = RewardModel.from_pretrained(work / "dictionary"), RewardModel.from_pretrained(moved)
    rows = answers(work, "other.jsonl")
    one, two = small.score(*rows), whole.score(*rows)
    assert one.rewards.tobytes() == two.rewards.tobytes()
    assert one.latents.values.tobytes() == two.latents.values.tobytes()
    assert one.residual.tobytes() == two.residual.tobytes()
    assert str(work) not in (moved / "attached.json").read_text()
    again = whole.save_pretrained(tmp_path / "again")
    assert RewardModel.from_pretrained(again).score(*rows).residual.tobytes() == two.residual.tobytes()


@pytest.mark.long
def test_python_gives_what_the_command_gives(work: Path) -> None:
    config = AttachConfig(latents=48, k=8, steps=150, batch=64)
    made = attach(str(work / "rm"), pairs=[work / "pairs.jsonl"], config=config, quiet=True)
    saved = RewardModel.from_pretrained(work / "dictionary")
    assert made.model.fingerprint == saved.fingerprint
    assert made.report.held_out.reward == pytest.approx(
        json.loads((work / "dictionary" / "attach.json").read_text())["variance_explained"]["reward"]
    )


def test_a_sparsity_that_is_not_known_is_named() -> None:
    with pytest.raises(ConfigError, match="the sparsity 'k' is not known"):
        AttachConfig(sparsity="k")  # type: ignore[arg-type]  # what a caller without types can write


def test_a_dry_run_plans_and_writes_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attach", "--model", str(work / "rm"), "--pairs", str(work / "pairs.jsonl")]
    assert main([*words, "-o", str(work / "planned"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "chosen: 32 latents (204 answers, at least 4 for each), k = 3" in said
    assert not (work / "planned").exists()


def refused(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.long
def test_bad_input_is_named_and_nothing_is_written(
    work: Path,
    tmp_path: Path,
    tiny_sarm_folder: Path,
    tiny_policy_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def words(model: Path, *more: str) -> list[str]:
        rows = ["--pairs", str(work / "pairs.jsonl")]
        return ["attach", "--model", str(model), *rows, "-o", str(tmp_path / "out"), *more]

    for arguments, message in (
        (words(tiny_sarm_folder), "tiny-sarm is a SARM: it has latents already"),
        (words(work / "dictionary"), "dictionary has a dictionary attached already"),
        (words(tiny_policy_folder), "it has no linear head"),
        (words(work / "rm", "--output", "3"), "rm has 1 output, there is no output 3"),
        (words(work / "rm", "--pooling", "token:999"), "has no token (id 999), whose state is to be read"),
        (words(work / "rm", "--latents", "4", "--k", "9"), "k is 9, it must be in 1..4"),
        (words(work / "rm", "--rows", "8"), "8 prompts with preferences leave 1 to be held out"),
        (words(work / "rm", "--eval", str(work / "pairs.jsonl")), "pairs: every prompt is among those"),
        (["attach", "--model", "x", "-o", str(tmp_path / "out")], "attach needs rows with answers"),
        (["attach", "--pairs", "x", "-o", str(tmp_path / "out")], "attach needs a reward model"),
    ):
        refused(capsys, arguments, message)
    refused(capsys, command(work, "dictionary"), "exists already")
    assert not list(tmp_path.iterdir())


def test_a_head_with_nan_is_refused(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Path(shutil.copytree(work / "rm", tmp_path / "rm"))
    tensors = load_file(broken / "model.safetensors")
    tensors["score.weight"][0, 3] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    words = [
        "attach",
        "--model",
        str(broken),
        "--pairs",
        str(work / "pairs.jsonl"),
        "-o",
        str(tmp_path / "out"),
    ]
    refused(capsys, words, "head weight 3 of the reward model is nan")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_reward_that_is_not_explained_is_refused_unless_forced(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--steps", "1", "--latents", "8", "--k", "1", "--no-other-states"]
    words = [
        *command(work, "poor")[:-2][:6],
        *("-o", str(work / "poor"), "--cache", str(work / "states")),
        *few,
    ]
    words = ["attach", "--model", str(work / "rm"), "--pairs", str(work / "pairs.jsonl"), *words[6:]]
    refused(capsys, words, "of the reward's variance on held-out prompts, less than 0.5")
    assert not (work / "poor").exists()
    assert main([*words, "--force"]) == 0
    assert (work / "poor" / "attach.json").exists()


def test_a_reward_model_that_changed_since_is_refused(work: Path, tmp_path: Path) -> None:
    save(make_classifier(CONFIGS["qwen3"](), seed=4), tmp_path / "other")
    said = json.loads((work / "dictionary" / "attached.json").read_text())
    folder = Path(shutil.copytree(work / "dictionary", tmp_path / "dictionary"))
    said["source"]["model"] = str(tmp_path / "other")
    (folder / "attached.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="the reward model changed since"):
        RewardModel.from_pretrained(folder)
