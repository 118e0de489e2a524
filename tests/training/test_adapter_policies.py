"""LoRA adapters as policies: oracle peft, runs that start from an earlier run's adapter, and bad input."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sarm_control.errors import ConfigError, ModelError, SarmError
from sarm_control.training.config.run_config import LoraConfig, PolicyConfig
from sarm_control.training.policy.adapter_files import checked_source, policy_source
from sarm_control.training.policy.policy import Policy

IDS = torch.tensor([[5, 9, 11, 7, 12, 13, 3]])
SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_adapter(base: Path, folder: Path, *, seed: int = 0, **settings: Any) -> Path:
    """An adapter that does something, as peft itself writes it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    asked = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "up_proj"], **settings}
    with warnings.catch_warnings():
        # older versions warn of tied embeddings
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **asked))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def merged_by_peft(base: Path, adapter: Path) -> Any:
    # with the kernel for attention that the policy uses
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    return peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()


@pytest.fixture
def adapter(tiny_policy_folder: Path, tmp_path: Path) -> Path:
    return write_adapter(tiny_policy_folder, tmp_path / "sft")


def load(model: Path, **settings: Any) -> Policy:
    return Policy.load(PolicyConfig(model=str(model), **settings), device="cpu")


@torch.no_grad()
def logits(policy: Policy, *, reference: bool = False) -> torch.Tensor:
    states = policy.states(reference=reference, input_ids=IDS, use_cache=False).last_hidden_state[0]
    return policy.logits(states, reference=reference)


def rewrite(folder: Path, **changes: Any) -> None:
    """Changes keys of an adapter's settings; None removes one."""
    path = folder / SETTINGS
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all-linear": {"target_modules": "all-linear"},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    "first layer": {"layers_to_transform": 0},
    "some layers": {"layers_to_transform": [0, 2]},
    "regex": {"target_modules": r".*\.(k|v)_proj"},
    "gaussian": {"init_lora_weights": "gaussian"},
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings", [{}, {"lora": None}, {"adapter": "continue"}], ids=["merge", "full", "continue"]
)
def test_policy_and_reference_start_at_the_merged_model_of_peft(
    tiny_policy_folder: Path, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    folder = write_adapter(tiny_policy_folder, tmp_path / "sft", **KINDS[kind])
    with torch.no_grad():
        expected = merged_by_peft(tiny_policy_folder, folder)(input_ids=IDS).logits[0]
        base = AutoModelForCausalLM.from_pretrained(tiny_policy_folder)(input_ids=IDS).logits[0]
    policy = load(folder, **settings)
    # an adapter that is not merged is added to the outputs, whose sums round otherwise
    atol = 1e-5 if "adapter" in settings else 1e-6
    assert (base - expected).abs().max() > 1e-3, "the adapter does something"
    torch.testing.assert_close(logits(policy), expected, rtol=0, atol=atol)
    torch.testing.assert_close(logits(policy, reference=True), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("settings", [{}, {"lora": None}, {"adapter": "continue"}])
def test_training_moves_the_policy_and_not_its_reference(adapter: Path, settings: dict[str, Any]) -> None:
    policy = load(adapter, **settings)
    trainable = policy.trainable()
    before = logits(policy, reference=True)
    batch = policy.batch([(5, 9, 11)], [(12, 13, 3)])
    policy.answer_stats(batch, 1.0).logprobs.sum().backward()
    assert trainable
    assert all(weight.grad is not None for weight in trainable.values())
    with torch.no_grad():
        for weight in trainable.values():
            weight.add_(0.05)
    assert torch.equal(logits(policy, reference=True), before)
    assert (logits(policy) - before).abs().max() > 1e-3


def test_a_continued_adapter_is_all_that_is_trained_and_is_saved_for_its_own_base(
    adapter: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    policy = load(adapter, adapter="continue")
    stored = load_file(adapter / WEIGHTS)
    trained = {name.replace(".default.", "."): weight for name, weight in policy.trainable().items()}
    assert trained.keys() == stored.keys()
    assert all(torch.equal(trained[name], stored[name]) for name in stored)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.mul_(1.5)
    assert policy.save_adapter(tmp_path / "run" / "adapter")
    policy.save(tmp_path / "run" / "policy")
    written = json.loads((tmp_path / "run" / "adapter" / SETTINGS).read_text())
    assert written["base_model_name_or_path"] == str(tiny_policy_folder.resolve())
    assert (written["r"], written["lora_alpha"]) == (4, 12)
    expected = logits(policy)
    with torch.no_grad():
        by_peft = merged_by_peft(tiny_policy_folder, tmp_path / "run" / "adapter")(input_ids=IDS).logits[0]
    torch.testing.assert_close(by_peft, expected, rtol=0, atol=1e-5)
    for again in (tmp_path / "run" / "adapter", tmp_path / "run" / "policy"):
        torch.testing.assert_close(logits(load(again)), by_peft, rtol=0, atol=1e-6)


def test_a_second_adapter_as_critic_leaves_the_start_alone(adapter: Path) -> None:
    from sarm_control.training.policy.lora import add_critic_adapter

    policy = load(adapter, adapter="continue")
    before, trained = logits(policy, reference=True), set(policy.trainable())
    add_critic_adapter(policy.model, LoraConfig(rank=2), 0)
    assert set(policy.trainable()) == trained
    assert torch.equal(logits(policy, reference=True), before)
    assert torch.equal(logits(policy), before)


@pytest.mark.long
def test_an_adapter_on_a_merged_adapter_is_loaded_with_both(adapter: Path, tmp_path: Path) -> None:
    first = load(adapter, lora=LoraConfig(rank=2))
    with torch.no_grad():
        for weight in first.trainable().values():
            weight.add_(0.1)
    first.save_adapter(tmp_path / "second")
    assert json.loads((tmp_path / "second" / SETTINGS).read_text())["base_model_name_or_path"] == str(adapter)
    for settings in ({}, {"adapter": "continue"}):
        policy = load(tmp_path / "second", **settings)
        torch.testing.assert_close(logits(policy), logits(first), rtol=0, atol=1e-5)
        torch.testing.assert_close(logits(policy, reference=True), logits(first), rtol=0, atol=1e-5)
    policy.save_adapter(tmp_path / "third")
    assert json.loads((tmp_path / "third" / SETTINGS).read_text())["base_model_name_or_path"] == str(adapter)


def test_bfloat16_is_merged_in_float32_and_rounded_once(adapter: Path, tiny_policy_folder: Path) -> None:
    policy = load(adapter, dtype="bfloat16")
    base = AutoModelForCausalLM.from_pretrained(tiny_policy_folder, dtype=torch.bfloat16).float()
    exact = peft.PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    found = policy.causal.state_dict()
    for name, weight in exact.state_dict().items():
        part, _, last = name.rpartition(".")
        ours = found.get(name, found.get(f"{part}.base_layer.{last}"))
        assert ours is not None
        assert torch.equal(ours, weight.bfloat16()), name


@pytest.mark.long
def test_a_base_is_found_beside_the_adapter_or_in_the_current_folder(
    adapter: Path, tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_policy_folder, tmp_path / "models" / "base")
    expected = logits(load(adapter))
    rewrite(adapter, base_model_name_or_path="../models/base")
    assert torch.equal(logits(load(adapter)), expected)
    rewrite(adapter, base_model_name_or_path="models/base")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(logits(load(adapter)), expected)
    rewrite(adapter, base_model_name_or_path="lab")
    assert policy_source(str(adapter)).base_name == "lab"


def test_the_adapters_own_tokenizer_comes_before_that_of_the_base(
    adapter: Path, tiny_policy_folder: Path
) -> None:
    assert policy_source(str(adapter)).tokenizer == str(tiny_policy_folder)
    for file in (*tiny_policy_folder.glob("token*"), *tiny_policy_folder.glob("*.jinja")):
        shutil.copy(file, adapter)
    template = adapter / "chat_template.jinja"
    template.write_text("{# the adapter's own #}" + template.read_text())
    assert policy_source(str(adapter)).tokenizer == str(adapter)
    assert load(adapter).template.tokenizer.chat_template == template.read_text()


def cached(cache: Path, hub_id: str, content: Path, *, branch: str = "main") -> None:
    """Puts a repository where a download would have left it."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    commit = format(abs(hash((hub_id, branch))), "040x")[-40:]
    shutil.copytree(content, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / branch).write_text(commit)


def test_hub_ids_of_adapters_and_bases_are_found_in_the_cache(
    adapter: Path, tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    expected = logits(load(adapter))
    rewrite(adapter, base_model_name_or_path="owner/base", revision="v2")
    cached(tmp_path / "hub", "owner/base", tiny_policy_folder, branch="v2")
    cached(tmp_path / "hub", "owner/sft", adapter)
    config = PolicyConfig(model="owner/sft")
    policy = Policy.load(config, device="cpu", local_files_only=True)
    assert torch.equal(logits(policy), expected)
    assert policy_source("owner/sft", local_files_only=True).base_name == "owner/base"
    policy.save_adapter(tmp_path / "next")
    assert json.loads((tmp_path / "next" / SETTINGS).read_text())["base_model_name_or_path"] == "owner/sft"
    assert checked_source(PolicyConfig(model="owner/sft", adapter="continue")).adapters == ()
    assert policy_source("owner/nothing", local_files_only=True).base == "owner/nothing"


def test_a_model_with_an_adapter_beside_it_is_refused(adapter: Path, tiny_policy_folder: Path) -> None:
    for file in tiny_policy_folder.iterdir():
        shutil.copy(file, adapter)
    assert policy_source(str(adapter)).adapters == ()
    with pytest.raises(ModelError, match="holds a whole model and an adapter"):
        load(adapter)


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def _reshaped(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = min(tensors)
    save_file({**tensors, name: torch.zeros(3, 3)}, folder / WEIGHTS)


def _extra(folder: Path) -> None:
    save_file({**load_file(folder / WEIGHTS), "score.weight": torch.zeros(2)}, folder / WEIGHTS)


def _fewer(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(min(tensors))
    save_file(tensors, folder / WEIGHTS)


def _changed(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, **changes)


FILES: dict[str, Callable[[Path], object]] = {
    "holds adapter_model.bin, a pickle, which is never loaded": _pickled,
    f"holds {SETTINGS} but no {WEIGHTS}": lambda folder: (folder / WEIGHTS).unlink(),
    "an adapter of the type 'IA3', only LORA": _changed(peft_type="IA3"),
    "an adapter for 'SEQ_CLS', a policy is a causal": _changed(task_type="SEQ_CLS"),
    "sets 'use_dora' to True (DoRA), which is not known here": _changed(use_dora=True),
    "sets 'modules_to_save' to a list of 1 (whole modules": _changed(modules_to_save=["lm_head"]),
    "sets 'bias' to 'all', which is not known": _changed(bias="all"),
    "sets 'init_lora_weights' to 'pissa', which is not known": _changed(init_lora_weights="pissa"),
    "sets 'new_trick' to 3, which is not known": _changed(new_trick=3),
    "sets r to 0, which it cannot be": _changed(r=0),
    "sets r to 1000000000, which it cannot be": _changed(r=10**9),
    "sets lora_alpha to '12', which": _changed(lora_alpha="12"),
    "sets target_modules to an object of 1, which": _changed(target_modules={"q_proj": 1}),
    "names no target_modules": _changed(target_modules=[]),
    "names no base model": _changed(base_model_name_or_path=None),
    "its base model ../nowhere/base is not there": _changed(base_model_name_or_path="../nowhere/base"),
    "its base is an adapter on an adapter, without end": _changed(base_model_name_or_path="."),
    "not JSON": lambda folder: (folder / SETTINGS).write_text("{"),
}
TENSORS: dict[str, Callable[[Path], object]] = {
    "has the shape (3, 3), not": _reshaped,
    "also holds score.weight": _extra,
    "lacks base_model.model.model.layers.0": _fewer,
    "does not fit its base: Target modules": _changed(target_modules=["nowhere"]),
    "cannot be read": lambda folder: (folder / WEIGHTS).write_bytes(b"\x00" * 40),
}


@pytest.mark.parametrize("message", FILES)
def test_bad_input_files_are_refused_before_anything_is_loaded(adapter: Path, message: str) -> None:
    FILES[message](adapter)
    with pytest.raises(ModelError) as caught:
        checked_source(PolicyConfig(model=str(adapter)))
    assert message in str(caught.value)
    assert caught.value.hint or message == "not JSON"


@pytest.mark.parametrize("message", TENSORS)
@pytest.mark.parametrize("way", ["merge", "continue"])
def test_bad_input_tensors_that_do_not_fit_the_base(adapter: Path, message: str, way: str) -> None:
    TENSORS[message](adapter)
    with pytest.raises(ModelError) as caught:
        load(adapter, adapter=way)
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("base", ["owner/nothing", "empty"])
def test_bad_input_a_base_that_cannot_be_loaded_is_named_with_its_adapter(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (adapter / "empty").mkdir()
    rewrite(adapter, base_model_name_or_path=base)
    with pytest.raises(ModelError) as caught:
        Policy.load(PolicyConfig(model=str(adapter)), device="cpu", local_files_only=True)
    assert f"the adapter {adapter} needs its base " in str(caught.value)
    assert base in str(caught.value)
    missing = f"put the base there, or correct base_model_name_or_path in {SETTINGS}"
    assert (caught.value.hint == missing) == (base != "empty")
    assert caught.value.hint


def test_recomputed_activations_give_the_same_gradients_under_continue(adapter: Path) -> None:
    gradients = []
    for recompute in (False, True):
        policy = load(adapter, adapter="continue", gradient_checkpointing=recompute)
        policy.answer_stats(policy.batch([(5, 9, 11)], [(12, 13, 3)]), 1.0).logprobs.sum().backward()
        gradients.append({name: weight.grad for name, weight in policy.trainable().items()})
    assert any(bool(grad.abs().max() > 0) for grad in gradients[0].values() if grad is not None)
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad)


def test_every_weight_of_a_merged_model_is_trained(adapter: Path, tiny_policy_folder: Path) -> None:
    assert set(load(adapter, lora=None).trainable()) == set(load(tiny_policy_folder, lora=None).trainable())


def test_bad_input_adapters_of_the_embeddings(tiny_policy_folder: Path, tmp_path: Path) -> None:
    folder = write_adapter(tiny_policy_folder, tmp_path / "sft", target_modules=["q_proj", "lm_head"])
    with pytest.raises(ModelError, match="are not trained here"):
        load(folder, adapter="continue")


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 16}, "policy.lora.rank is 16, but the adapter"),
        ({"rank": 4, "alpha": 13}, "policy.lora.alpha is 13.0, but the adapter"),
        ({"targets": ["q_proj"]}, "policy.lora.targets is ('q_proj',), but the adapter"),
    ],
)
def test_bad_input_settings_that_a_continued_adapter_does_not_have(
    adapter: Path, lora: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(adapter, adapter="continue", lora=LoraConfig(**lora))
    assert message in str(caught.value)
    load(adapter, adapter="continue", lora=LoraConfig(rank=4, alpha=12, targets=("up_proj", "q_proj")))


def test_bad_input_nothing_to_continue(tiny_policy_folder: Path) -> None:
    with pytest.raises(SarmError, match="is a whole model"):
        load(tiny_policy_folder, adapter="continue")
    with pytest.raises(ValueError, match=r"policy\.lora is null"):
        PolicyConfig(adapter="continue", lora=None)


def test_settings_left_out_stay_left_out_when_a_run_is_written_down() -> None:
    config = PolicyConfig(model="sft", adapter="continue", lora=LoraConfig(alpha=12))
    again = PolicyConfig.model_validate(config.model_dump(mode="json"))
    assert again == config
    assert again.lora is not None
    assert again.lora.model_fields_set == {"alpha"}
    assert PolicyConfig().model_dump(mode="json")["lora"]["rank"] == 16
