"""Bad input that needs no forward pass to be seen is told before any: the models here cannot be loaded."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sarm_control.cli import main
from sarm_control.conversation import load_tokenizer
from tests.cli.test_build_command import write_rows

HEAD = "score.weight"
NO_THREE = "{% if 'three' in messages[0].content %}{{ raise_exception('not of three') }}{% endif %}"


def changed(folder: Path, place: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """A copy with other weights."""
    copy = Path(shutil.copytree(folder, place))
    with safe_open(copy / "model.safetensors", "pt") as stored:
        metadata = stored.metadata()
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    other = {name: change(name, tensor).contiguous() for name, tensor in tensors.items()}
    save_file(other, copy / "model.safetensors", metadata)
    return copy


def broken(folder: Path, place: Path) -> Path:
    """A copy whose weights are all NaN but the head's: a command that loads it ends there."""
    return changed(
        folder,
        place,
        lambda name, tensor: tensor if name == HEAD else torch.full_like(tensor, float("nan")),
    )


def with_another_tokenizer(folder: Path, place: Path, word: str = "", template: str = "") -> Path:
    """A copy whose tokenizer has one more word, and a template with this before it."""
    copy = Path(shutil.copytree(folder, place))
    tokenizer = load_tokenizer(str(copy), local_files_only=True)
    if word:
        tokenizer.add_tokens([word])
    tokenizer.chat_template = template + str(tokenizer.chat_template)
    tokenizer.save_pretrained(copy)
    return copy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_sarm_folder: Path, tiny_policy_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("early")
    broken(tiny_sarm_folder, folder / "sarm")
    broken(tiny_policy_folder, folder / "base")
    changed(
        folder / "sarm",
        folder / "narrow",
        lambda name, tensor: tensor[:, 1:] if name == "sae.encoder.weight" else tensor,
    )
    with_another_tokenizer(folder / "sarm", folder / "worded", word="how do")
    with_another_tokenizer(folder / "sarm", folder / "strict", template=NO_THREE)
    write_rows(folder / "pairs.jsonl", 24)
    write_rows(folder / "few.jsonl", 3)
    write_rows(folder / "others.jsonl", 10, start=60)
    single = [{"prompt": f"question {j} ?", "response": "an answer ."} for j in range(4)]
    (folder / "single.jsonl").write_text("".join(json.dumps(row) + "\n" for row in single))
    features = {"format": "sarm-features/1", "head": "0" * 16, "lists": {}}
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def skip_without_its_extra(words: Iterable[str]) -> None:
    """A build of a whole SARM says first that its extra is missing."""
    if [*words][:2] == ["build", "--base"]:
        pytest.importorskip("sae_lens", reason='`sarm build --base` wants the extra "build"')


def refusal(
    words: Iterable[str], place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    words = [*words]
    skip_without_its_extra(words)
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    assert main(words) == 2
    assert [path for path in sorted(place.iterdir()) if path not in before and path.name[0] != "."] == []
    return capsys.readouterr().err


BUILD = "build --base base --layer 2 --latents 8 --k 2 --pairs pairs.jsonl --holdout 0.25 -o out"
EARLY = {
    f"{BUILD} --eval pairs.jsonl": "pairs: every prompt was used for building",
    f"{BUILD} --validate pairs.jsonl": "every validation prompt was used for building",
    f"{BUILD} --validate others.jsonl --eval others.jsonl": "10 validation rows have prompts of an",
    "build --base base --pairs few.jsonl -o out": "3 prompts with preferences leave 1 to be held out",
    "build --base base --layer 9 --pairs pairs.jsonl --holdout 0.25 -o out": "has 3 layers, layer 9",
    f"{BUILD} --json pairs.jsonl --overwrite": "pairs.jsonl is an input too",
    f"{BUILD} --dtype float31": "unknown dtype float31",
    f"{BUILD} --device cuda:99": "device cuda:99 cannot be used",
    "build --model sarm --pairs pairs.jsonl --holdout 0.25 --eval pairs.jsonl -o out": "every prompt was",
    "score single.jsonl --model sarm --edit 4000000=0 -o out": "latent 4000000 does not exist",
    "score single.jsonl --model sarm --edit @features.json#harms=0 -o out": "features.json",
    "probe single.jsonl --model sarm --edit 4000000=0": "latent 4000000 does not exist",
    "rerank single.jsonl --model sarm --edit 3=0": "no prompt has two candidates",
    "rerank pairs.jsonl --model sarm --edit 4000000=0": "latent 4000000 does not exist",
    "rerank pairs.jsonl --model sarm --edit 3=0 --attribute tone": "no column tone for --attribute",
    "discover few.jsonl --model sarm -o out": "nothing could be selected",
    "discover pairs.jsonl --confirm few.jsonl --model sarm -o out": "nothing could be confirmed",
    "discover single.jsonl --target regex:nothing --model sarm -o out": "no two answers differ in the target",
    "label features.json --data single.jsonl --model sarm -o out": "features.json",
    "audit pairs.jsonl --model sarm --before nowhere -o out": "model folder nowhere does not exist",
    "audit pairs.jsonl --model sarm --before base -o out": "base is no reward model: it has no linear head",
    "audit pairs.jsonl --model sarm --before narrow -o out": "narrow does not fit its config.json: sae.",
    "audit pairs.jsonl --model sarm --before worded -o out": "row 0 has token",
    "audit pairs.jsonl --model sarm --before strict -o out": "not of three",
    "latents single.jsonl --as-human --latents 4000000 --model sarm -o out.safetensors": "latent 4000000",
}


@pytest.mark.long
@pytest.mark.parametrize("words", EARLY)
def test_bad_input_is_told_before_a_model_is_loaded(
    words: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EARLY[words] in refusal(words.split(), place, capsys, monkeypatch)


def test_rows_that_an_earlier_reward_model_refuses_are_told_before_the_audit(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["audit", "pairs.jsonl", "--model", "sarm", "--before", "strict", "-o", "out"]
    said = refusal([*words, "--skip-bad-rows", str(tmp_path / "aside")], place, capsys, monkeypatch)
    assert "rows can be scored by one of the two reward models alone" in said
    assert "or of strict refuses them" in said


@pytest.mark.long
@pytest.mark.parametrize("words", [words for words in EARLY if words.startswith(("build", "discover"))])
def test_bad_input_a_dry_run_tells_it_too(
    words: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EARLY[words] in refusal([*words.split(), "--dry-run"], place, capsys, monkeypatch)


GOOD = {
    BUILD: "96 answers to 24 prompts, 6 prompts held out",
    "build --base base --pairs pairs.jsonl --holdout 0.25 -o out": "chosen for base: layer 2 (half of 3)",
    "build --model sarm --pairs pairs.jsonl --holdout 0.25 -o out": "96 answers to 24 prompts",
    "latents pairs.jsonl --model sarm -o out": "24 rows, 96 answers in 1 shards",
    "latents single.jsonl --as-human --model sarm -o out.safetensors": "4 demonstrations",
    "discover pairs.jsonl --model sarm -o out": "24 rows, 96 answers to 24 prompts",
}


@pytest.mark.parametrize("words", GOOD)
def test_a_dry_run_loads_and_writes_nothing_and_names_the_command(
    words: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_its_extra(words.split())
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    assert main([*words.split(), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert GOOD[words] in said
    assert said.endswith(f"next: sarm {words}\n")
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "words",
    [
        BUILD,
        "score single.jsonl --model sarm -o out",
        "audit pairs.jsonl --model sarm --before sarm -o out",
    ],
)
def test_the_models_of_these_tests_cannot_be_loaded(
    words: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the tests above."""
    assert "model.safetensors is nan" in refusal(words.split(), place, capsys, monkeypatch)


def test_a_build_says_few_rows_before_it_begins(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["build", "--base", "base", "--pairs", "pairs.jsonl", "--holdout", "0.25", "-o", "o", "--dry-run"]
    skip_without_its_extra(words)
    monkeypatch.chdir(place)
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "warning: 96 answers are few for 24 latents: 10 for each would be 240" in said
