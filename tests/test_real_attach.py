"""scripts/real_attach.py: a training that was stopped goes on to the bit (metamorphic), and its stages."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.outside import load
from tests.reward_model.classifiers import CHATML_STYLE, CONFIGS, make_tokenizer

SCRIPT = Path(__file__).parents[1] / "scripts" / "real_attach.py"
STEPS = 4


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load(SCRIPT)


def begun(script: ModuleType, work: Path) -> Any:
    """A work folder with a tiny language model and a few pairs."""
    from transformers import AutoModelForCausalLM

    places = script.Places(work / "data", work)
    (work / "rows").mkdir(parents=True)
    config = CONFIGS["llama"]()
    AutoModelForCausalLM.from_config(config).save_pretrained(work / "smollm2")
    make_tokenizer(CHATML_STYLE, pad="<|end|>").save_pretrained(work / "smollm2")
    pairs = [
        {
            "prompt": f"how do i {verb} the {thing} ?",
            "chosen": [f"sorry i cannot {thing}"],
            "rejected": [f"sure {thing}"],
        }
        for verb in ("cook", "open")
        for thing in ("bread", "lock", "bomb", "help")
    ]
    for name in (script.CHAT, script.REFUSE, script.RESPOND):
        script.write(work / "rows" / name, pairs)
    return places


@pytest.mark.long
def test_a_training_that_was_stopped_goes_on_to_the_bit(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl", reason='needs the extra "trl"')
    import torch

    monkeypatch.setattr(script, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(script, "LOG_EVERY", 1)
    torch.manual_seed(0)
    whole = begun(script, tmp_path / "whole")
    script.train_reward_model(whole, STEPS)
    assert f"train: step 3 of {STEPS}, 0 min left" in capsys.readouterr().out
    expected = load_file(whole.work / "rm" / "model.safetensors")
    assert not (whole.work / "trl").exists()

    torch.manual_seed(0)
    stopped = begun(script, tmp_path / "stopped")

    def stop(_begun: float, _first: int, step: int, _steps: int) -> str:
        if step == 3:
            raise KeyboardInterrupt
        return ""

    with monkeypatch.context() as patched:
        patched.setattr(script, "time_left", stop)
        with pytest.raises(KeyboardInterrupt):
            script.train_reward_model(stopped, STEPS)
    assert not (stopped.work / "rm").exists()
    assert script.whole_checkpoint(stopped.work / "trl") == str(stopped.work / "trl" / "checkpoint-2")
    # a checkpoint whose writing was cut off has no state yet
    (stopped.work / "trl" / "checkpoint-3").mkdir()
    capsys.readouterr()
    script.train_reward_model(stopped, STEPS)
    said = capsys.readouterr().out
    assert "step 3 of" in said
    assert "step 2 of" not in said
    found = load_file(stopped.work / "rm" / "model.safetensors")
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    losses = [json.loads(line)["step"] for line in (stopped.work / "training.jsonl").read_text().splitlines()]
    assert losses == [1, 2, 3, 4]


def test_time_left_counts_the_steps_of_this_session_alone(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.time, "monotonic", lambda: 1060.0)
    # ten steps in 60 seconds, and 290 to go
    assert script.time_left(1000.0, 100, 110, 400) == "train: step 110 of 400, 29 min left"


def test_other_settings_in_a_folder_that_was_begun_are_refused(script: ModuleType, tmp_path: Path) -> None:
    places = script.Places(tmp_path, tmp_path / "work")
    script.keep_settings(places, {"steps": 400, "rows": None})
    script.keep_settings(places, {"steps": 400, "rows": None})
    with pytest.raises(SystemExit, match=r"was begun with .*400.*, not .*3.*; give another --work"):
        script.keep_settings(places, {"steps": 3, "rows": None})


def test_latents_that_were_begun_go_on(script: ModuleType, tmp_path: Path) -> None:
    places = script.Places(tmp_path, tmp_path)
    command = script.latents("sarm", "safety")
    assert "--resume" not in command(places)
    (tmp_path / "latents-sarm-safety").mkdir()
    assert command(places)[-1] == "--resume"
    # what discovery and steering read is made before them
    names = list(script.STAGES)
    for model in ("attached", "sarm"):
        made = max(names.index(f"latents-{model}-{part}") for part in script.PARTS)
        assert made < names.index(f"discover-{model}") < names.index(f"steer-{model}")


def test_metamorphic_kept_states_stand_for_passes_of_the_trunk() -> None:
    import torch

    from sarm_control.reward_model import RewardModel

    latents = load(SCRIPT.with_name("real_attach_latents.py"))
    model = RewardModel.from_pretrained("lab:attached", device="cpu")
    prompts, answers = ["how do i bake a cake ?"] * 3, ["mix the flour .", "no .", "first mix the flour ."]
    passed = model.score(prompts, answers, keep_states=True)
    assert passed.states is not None
    encoded = [model.template.encode(*one) for one in zip(prompts, answers, strict=True)]
    states = torch.from_numpy(passed.states)
    model._pooled_states = latents.reading(  # type: ignore[method-assign]
        model, {tuple(one.input_ids): state for one, state in zip(encoded[:2], states, strict=False)}
    )
    found = model.score(prompts, answers, keep_states=True)
    assert found.rewards.tolist() == pytest.approx(passed.rewards.tolist(), abs=1e-5)
    assert found.residual.tolist() == pytest.approx(passed.residual.tolist(), abs=1e-5)
    assert found.rewards[:2].tolist() == passed.rewards[:2].tolist()
    # what is kept is what is read, whatever it is
    model._pooled_states = latents.reading(  # type: ignore[method-assign]
        model, {tuple(encoded[1].input_ids): states[0]}
    )
    assert model.score(prompts[:2], answers[:2]).rewards.tolist() == [passed.rewards[0]] * 2
