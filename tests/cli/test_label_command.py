"""The `sarm label` command on the embedded world: words of planted latents, and its messages."""

import json
from pathlib import Path

import pytest

from sarm_control.cli import main
from sarm_control.reward_model import RewardModel

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("label") / "found"
    assert main(["discover", "lab:human", "--target", "regex:^(no|sorry)", "-o", str(out), "-q"]) == 0
    return out / "features.json"


@pytest.mark.long
def test_the_words_of_a_refusal_latent_refuse(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.json"
    spec = f"@{features}#promotes[:2]"
    assert main(["label", spec, "--data", "lab:human", "-o", str(out), "--words", "6"]) == 0
    text = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert len(content["labels"]) == 2
    assert "asked" not in content
    lab = RewardModel.from_pretrained("lab", device="cpu")
    assert (content["head"], content["model_fingerprint"]) == (lab.fingerprint, lab.model_fingerprint)
    assert content["manifest"]["inputs"].keys() == {"lab:human", "features.json"}
    found = json.loads(features.read_text())["lists"]["promotes"][:2]
    for one, feature in zip(content["labels"], found, strict=True):
        assert (one["latent"], one["kind"], one["name"]) == (feature["latent"], feature["kind"], None)
        assert 0 < one["rate"] < 1
        assert len(one["words"]) <= 6
        assert all(word["active"] > word["inactive"] for word in one["words"])
        assert str(one["latent"]) in text
    (refuses,) = [one for one in content["labels"] if one["kind"] == "paid-for-good"][:1]
    assert any(word["text"].split()[0] in ("no", "sorry", "not", "i", "that") for word in refuses["words"])
    assert all(one["z"] > 0 for one in refuses["top"] + refuses["random"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--endpoint", "http://127.0.0.1:9/v1"], "--endpoint and --label-model go together"),
        (["--data", "lab:nothing"], "the embedded world has no such file"),
        (["-o", "{taken}"], "exists already"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: list[str], message: str, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    given = {"-o": str(tmp_path / "new"), "--data": "lab:human"}
    for name, value in zip(words[::2], words[1::2], strict=True):
        given[name] = value.format(taken=tmp_path / "taken")
    flat = [word for pair in given.items() for word in pair]
    assert main(["label", str(features), *flat]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.long
def test_another_head_is_refused(
    features: Path, tiny_sarm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["label", str(features), "--data", "lab:human", "--model", str(tiny_sarm_folder)]
    assert main([*words, "-o", str(tmp_path / "labels.json")]) == 2
    assert "latent numbers mean other things there" in capsys.readouterr().err
