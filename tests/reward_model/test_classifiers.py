"""Oracle tests of classifiers against transformers' own classes, and what is refused, in words."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BatchEncoding, LlamaForCausalLM

from sarm_control.errors import ConfigError, ModelError
from sarm_control.reward_model import RewardModel, describe, read_head, read_model_fingerprint
from sarm_control.reward_model.trunk.batching import Padded
from sarm_control.reward_model.trunk.pooling import Pooling, parse_pooling
from tests.reward_model.classifiers import (
    CHATML_STYLE,
    CONFIGS,
    END,
    NEWLINE,
    PAD,
    logits,
    make_classifier,
    make_tokenizer,
    random_rows,
    save,
)

PROMPTS = ["how do i cook bread ?", "why ?", "is the door safe or not ?"]
ANSWERS = ["sure , here the steps . one two three", "no", "i cannot help that ."]


def one_output(values: torch.Tensor) -> np.ndarray[Any, Any]:
    return values[:, 0].double().numpy()


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_classifier(CONFIGS["llama"]()), tmp_path_factory.mktemp("llama") / "rm")


@pytest.mark.parametrize("kind", CONFIGS)
def test_rewards_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """In batches, alone, padded left and right; windows and soft-capping where the type has them."""
    model = make_classifier(CONFIGS[kind]())
    rm = RewardModel.from_pretrained(save(model, tmp_path / kind))
    rows = random_rows()
    theirs = one_output(torch.cat([logits(model, [row]) for row in rows]))
    assert theirs.std() > 0.1
    for side in ("left", "right"):
        np.testing.assert_allclose(one_output(logits(model, rows, side=side)), theirs, atol=1e-5)
        for batch_tokens in (1, 70, 100_000):
            ours = rm.score_encoded(rows, batch_tokens=batch_tokens, padding_side=side)
            np.testing.assert_allclose(ours.rewards, theirs, atol=1e-5)
    assert rm.gate is not None
    assert rm.gate.published == type(model).__name__
    assert rm.kind == "classifier"


def test_text_is_scored_as_the_tokenizers_template_writes_it(llama_folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(llama_folder).eval()
    rm = RewardModel.from_pretrained(llama_folder)
    scored = rm.score(PROMPTS, ANSWERS)
    for prompt, answer, reward in zip(PROMPTS, ANSWERS, scored.rewards, strict=True):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        ids = rm.template.tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            assert isinstance(ids, BatchEncoding)
            assert model(**ids).logits.item() == pytest.approx(reward, abs=1e-5)


def test_soft_capping_is_computed_and_matters(tmp_path: Path) -> None:
    capped = make_classifier(CONFIGS["gemma2"]())
    free = make_classifier(CONFIGS["gemma2"](attn_logit_softcapping=None))
    free.load_state_dict(capped.state_dict())
    rows = random_rows()
    ours = RewardModel.from_pretrained(save(capped, tmp_path / "rm")).score_encoded(rows).rewards
    assert np.abs(ours - one_output(logits(free, rows))).max() > 1e-3
    np.testing.assert_allclose(ours, one_output(logits(capped, rows)), atol=1e-5)


def test_a_bias_is_the_constant(tmp_path: Path) -> None:
    model = make_classifier(CONFIGS["llama"](), bias=True)
    rm = RewardModel.from_pretrained(save(model, tmp_path / "rm"))
    rows = random_rows()
    scored = rm.score_encoded(rows)
    np.testing.assert_allclose(scored.rewards, one_output(logits(model, rows)), atol=1e-5)
    assert scored.constant == pytest.approx(model.score.bias.item())
    np.testing.assert_array_equal(scored.residual + scored.constant, scored.rewards.astype(np.float64))


def test_a_bare_reward_is_constant_and_residual(llama_folder: Path) -> None:
    scored = RewardModel.from_pretrained(llama_folder).score(PROMPTS, ANSWERS)
    for j, reward in enumerate(scored.rewards):
        parts = scored.contributions(j, top=0)
        assert [part.latent for part in parts] == ["residual", "constant"]
        assert sum(part.contribution for part in parts) == pytest.approx(float(reward), abs=1e-6)
    assert scored.latents.size == 0
    some = scored.take(np.array([2, 0]))
    np.testing.assert_array_equal(some.residual, scored.residual[[2, 0]])


@pytest.mark.parametrize(("output", "row"), [(0, [1, 0]), ("1", [0, 1]), ("difference", [-1, 1])])
def test_one_of_two_labels_is_the_reward(output: int | str, row: list[int], tmp_path: Path) -> None:
    model = make_classifier(CONFIGS["qwen2"](num_labels=2), bias=True)
    rm = RewardModel.from_pretrained(save(model, tmp_path / "rm"), output=output)
    rows = random_rows()
    theirs = logits(model, rows).double().numpy() @ np.array(row)
    np.testing.assert_allclose(rm.score_encoded(rows).rewards, theirs, atol=1e-5)
    again = RewardModel.from_pretrained(rm.save_pretrained(tmp_path / "one"))
    assert again.score_encoded(rows).rewards.tobytes() == rm.score_encoded(rows).rewards.tobytes()


def test_two_labels_have_to_be_told_apart(tmp_path: Path) -> None:
    labels = {0: "bad", 1: "good"}
    model = make_classifier(CONFIGS["llama"](num_labels=2, id2label=labels))
    folder = save(model, tmp_path / "rm")
    with pytest.raises(
        ConfigError, match=r"has 2 outputs \(bad, good\), and which of them is the reward"
    ) as e:
        RewardModel.from_pretrained(folder)
    assert e.value.hint is not None
    assert "--output difference, the second minus the first" in e.value.hint
    with pytest.raises(ConfigError, match=r"has 2 outputs \(bad, good\), there is no output 2"):
        RewardModel.from_pretrained(folder, output=2)


def test_an_output_a_model_of_one_does_not_have(llama_folder: Path) -> None:
    with pytest.raises(ConfigError, match="has 1 output, there is no output difference"):
        RewardModel.from_pretrained(llama_folder, output="difference")


def test_bfloat16_is_kept_and_within_its_steps(tmp_path: Path) -> None:
    """The head's and the norm's products are float32; what is left are the layers' roundings."""
    model = make_classifier(CONFIGS["llama"]()).to(torch.bfloat16)
    rm = RewardModel.from_pretrained(save(model, tmp_path / "rm"))
    rows = random_rows()
    ours = rm.score_encoded(rows).rewards
    theirs = one_output(logits(model, rows).float())
    steps = 2.0 ** (np.floor(np.log2(np.abs(theirs))) - 7)
    assert next(rm.trunk.parameters()).dtype == torch.bfloat16
    assert rm.trunk.final_norm is not None
    assert next(rm.trunk.final_norm.parameters()).dtype == torch.float32
    assert (np.abs(ours - theirs) / np.maximum(steps, 2.0**-7)).max() <= 8
    wide = RewardModel.from_pretrained(tmp_path / "rm", dtype="float32").score_encoded(rows).rewards
    np.testing.assert_allclose(ours, wide, atol=0.1)


def test_the_checkpoints_type_is_that_of_its_files(llama_folder: Path, tmp_path: Path) -> None:
    folder = copied(llama_folder, tmp_path, dtype="bfloat16")
    assert next(RewardModel.from_pretrained(folder).trunk.parameters()).dtype == torch.float32


def test_shards_and_a_larger_vocabulary(tmp_path: Path) -> None:
    model = make_classifier(CONFIGS["qwen3"]())
    whole, parts = save(model, tmp_path / "whole"), save(model, tmp_path / "parts", shard="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    rows = random_rows()
    expected = RewardModel.from_pretrained(whole).score_encoded(rows).rewards
    assert RewardModel.from_pretrained(parts).score_encoded(rows).rewards.tobytes() == expected.tobytes()
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] - 1}))
    assert RewardModel.from_pretrained(whole).score_encoded(rows).rewards.tobytes() == expected.tobytes()


def test_a_closing_newline_is_read_where_the_authors_code_reads_it(tmp_path: Path) -> None:
    """Pad is the end of turn, as TRL leaves it, and the template writes a newline behind it."""
    model = make_classifier(CONFIGS["llama"](pad_token_id=END))
    tokenizer = make_tokenizer(CHATML_STYLE, pad="<|end|>")
    rm = RewardModel.from_pretrained(save(model, tmp_path / "rm", tokenizer=tokenizer))
    encoded = [rm.template.encode(p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert all(row.input_ids[-2:] == [END, NEWLINE] for row in encoded)
    assert [row.answer_length for row in encoded] == [len(answer.split()) for answer in ANSWERS]
    theirs = one_output(logits(model, encoded, pad=END))
    np.testing.assert_allclose(rm.score(PROMPTS, ANSWERS).rewards, theirs, atol=1e-5)
    assert rm.gate is not None
    assert rm.gate.token == ("<newline>", NEWLINE)
    at_end = RewardModel.from_pretrained(tmp_path / "rm", pooling="end_of_turn")
    assert np.abs(at_end.score(PROMPTS, ANSWERS).rewards - theirs).max() > 1e-2
    assert at_end.gate is not None
    assert at_end.gate.apart == ("<newline>", NEWLINE)
    assert at_end.model_fingerprint != rm.model_fingerprint


def test_pad_that_is_the_end_of_turn_is_refused_until_told(tmp_path: Path) -> None:
    model = make_classifier(CONFIGS["llama"](pad_token_id=END))
    folder = save(model, tmp_path / "rm", tokenizer=make_tokenizer(pad="<|end|>"))
    with pytest.raises(ModelError, match="LlamaForSequenceClassification of transformers reads") as refused:
        RewardModel.from_pretrained(folder)
    assert "last_token reads '<|end|>' (id 3)" in str(refused.value)
    assert "The published scores are those of transformers' class" in str(refused.value)
    assert refused.value.hint is not None
    assert "--pooling last_not_pad" in refused.value.hint
    published = RewardModel.from_pretrained(folder, pooling="last_not_pad")
    rows = [published.template.encode(p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    theirs = one_output(torch.cat([logits(model, [row], pad=END) for row in rows]))
    np.testing.assert_allclose(published.score(PROMPTS, ANSWERS).rewards, theirs, atol=1e-5)
    chosen = RewardModel.from_pretrained(folder, pooling="last_token")
    assert chosen.gate is not None
    assert chosen.gate.apart is not None
    assert "instead" in chosen.gate.line()
    again = RewardModel.from_pretrained(chosen.save_pretrained(tmp_path / "chosen"))
    assert again.pooling == chosen.pooling
    assert again.score("why ?", "no").rewards == chosen.score("why ?", "no").rewards


def test_without_a_pad_token_the_last_token_is_read(tmp_path: Path) -> None:
    model = make_classifier(CONFIGS["llama"](pad_token_id=None))
    folder = save(model, tmp_path / "rm")
    rows = random_rows()
    theirs = one_output(torch.cat([logits(model, [row]) for row in rows]))
    np.testing.assert_allclose(
        RewardModel.from_pretrained(folder).score_encoded(rows).rewards, theirs, atol=1e-5
    )
    with pytest.raises(ConfigError, match="names no pad token, so last_not_pad is last_token"):
        RewardModel.from_pretrained(folder, pooling="last_not_pad")


def test_a_round_trip_is_equal_to_the_bit(llama_folder: Path, tmp_path: Path) -> None:
    rm = RewardModel.from_pretrained(llama_folder)
    folder = rm.save_pretrained(tmp_path / "again")
    again, rows = RewardModel.from_pretrained(folder), random_rows()
    assert again.score_encoded(rows).rewards.tobytes() == rm.score_encoded(rows).rewards.tobytes()
    assert again.fingerprint == rm.fingerprint
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    np.testing.assert_allclose(one_output(logits(theirs, rows)), rm.score_encoded(rows).rewards, atol=1e-5)


def test_fingerprints_cover_head_norm_and_layers(llama_folder: Path, tmp_path: Path) -> None:
    head, model = read_head(llama_folder).fingerprint, read_model_fingerprint(llama_folder)
    rm = RewardModel.from_pretrained(llama_folder)
    assert (rm.fingerprint, rm.model_fingerprint) == (head, model)
    described = describe(llama_folder)
    assert (described.head.fingerprint, described.model_fingerprint) == (head, model)
    for tensor, of_head in (("score.weight", True), ("model.norm.weight", False)):
        folder = copied(llama_folder, tmp_path / tensor)
        changed(folder, lambda tensors, name=tensor: tensors[name].view(-1)[0].add_(1.0))
        assert (read_head(folder).fingerprint != head) == of_head
        assert (read_model_fingerprint(folder) != model) != of_head


def copied(folder: Path, target: Path, **config: Any) -> Path:
    new = Path(shutil.copytree(folder, target / "copy"))
    said = json.loads((new / "config.json").read_text())
    (new / "config.json").write_text(json.dumps({**said, **config}))
    return new


def changed(folder: Path, change: Any) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def renamed(tensors: dict[str, torch.Tensor], **new: torch.Tensor) -> None:
    del tensors["score.weight"]
    tensors.update({name.replace("__", "."): value for name, value in new.items()})


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        (
            ["score.0.weight", "score.2.weight"],
            "its head is a network of several layers, and only a linear one",
        ),
        (["v_head.summary.0.weight"], "its head is a network of several layers"),
        (["v_head.summary.weight"], "its value head is no single linear layer of a declared position"),
        (
            ["regression_layer.weight", "gating.layers.0.weight"],
            "a gate chooses the weights of its head anew",
        ),
        (["regression_layer.weight"], "its head gives attributes or quantiles"),
        (["v_head.weight", "score_head.weight"], "it has two heads, v_head.weight and score_head.weight"),
    ],
)
def test_heads_that_are_not_linear_are_refused(
    llama_folder: Path, tmp_path: Path, tensors: list[str], why: str
) -> None:
    new = {name.replace(".", "__"): torch.zeros(1, 32) for name in tensors}
    folder = changed(copied(llama_folder, tmp_path), lambda found: renamed(found, **new))
    with pytest.raises(ModelError, match=f"cannot be loaded as a reward model: {why}"):
        RewardModel.from_pretrained(folder)


def test_a_trunk_that_transformers_does_not_have(llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="InternLM2's own code, which transformers does not have"):
        RewardModel.from_pretrained(copied(llama_folder, tmp_path, model_type="internlm2"))


def test_a_base_model_without_a_head_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(CONFIGS["llama"]()).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match=r"is no reward model: it has no linear head \(score\.weight") as e:
        RewardModel.from_pretrained(tmp_path / "base")
    assert "a base model or a generative judge has none" in str(e.value)
    assert e.value.hint is not None
    assert "sarm build" in e.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t["score.weight"].view(-1)[3].fill_(float("nan")),
            "head weight 3 of the reward model is nan",
        ),
        (lambda t: t["model.norm.weight"][2].fill_(float("inf")), r"model\.norm\.weight\[2\] .* is inf"),
        (lambda t: t.update({"score.weight": torch.zeros(1, 31)}), r"score\.weight is \[1, 31\], expected"),
        (lambda t: t.pop("model.norm.weight"), r"does not fit its config\.json: missing model\.norm\.weight"),
        (lambda t: t.update({"odd": torch.zeros(1)}), "extra odd"),
    ],
)
def test_damaged_tensors_are_named(llama_folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    folder = changed(copied(llama_folder, tmp_path), change)
    with pytest.raises(ModelError, match=message):
        RewardModel.from_pretrained(folder)


def test_attention_in_both_directions_is_refused(tmp_path: Path) -> None:
    model = make_classifier(CONFIGS["gemma3"]())
    folder = copied(save(model, tmp_path / "rm"), tmp_path / "new", use_bidirectional_attention=True)
    with pytest.raises(ModelError, match="its attention looks in both directions"):
        RewardModel.from_pretrained(folder)


def test_pooling_that_finds_no_token(llama_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"row 0 of the batch has no token \(id 50\)"):
        RewardModel.from_pretrained(llama_folder, pooling="token:50")
    with pytest.raises(ConfigError, match="'middle' is no pooling rule") as refused:
        RewardModel.from_pretrained(llama_folder, pooling="middle")
    assert refused.value.hint == "write last_token, end_of_turn, last_not_pad or token:ID"


def test_a_sarm_has_one_output_and_one_position(tiny_sarm_folder: Path) -> None:
    for asked in ({"pooling": "last_token"}, {"output": 0}):
        with pytest.raises(ConfigError, match="is a SARM, which has one output"):
            RewardModel.from_pretrained(tiny_sarm_folder, **asked)


def test_rules_find_their_places_whatever_the_padding() -> None:
    ids = torch.tensor([[9, 3, 8, 3, 4, 4], [4, 9, 3, 4, 8, 3]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]])
    batch = Padded(ids, mask)
    places = {
        "last_token": [3, 5],
        "end_of_turn": [3, 5],
        "token:8": [2, 4],
        "token:9": [0, 1],
    }
    for rule, expected in places.items():
        pooling = Pooling("end_of_turn", 3) if rule == "end_of_turn" else parse_pooling(rule)
        assert pooling.positions(batch).tolist() == expected
        assert str(pooling) == rule
    assert Pooling("last_not_pad", 3).positions(batch).tolist() == [2, 4]


def test_other_head_names_are_read_by_their_authors_rule(llama_folder: Path, tmp_path: Path) -> None:
    """Athene's, Eurus's and beaver's heads against the equations in their code."""
    states_of = AutoModelForSequenceClassification.from_pretrained(llama_folder).eval().model
    weight = torch.randn(1, 32)
    for name, bias in (("regression_head", None), ("score_head", torch.tensor([0.7]))):
        new = {f"{name}__weight": weight, **({} if bias is None else {f"{name}__bias": bias})}
        folder = changed(copied(llama_folder, tmp_path / name), lambda found, new=new: renamed(found, **new))
        (folder / "chat_template.jinja").unlink()
        rm = RewardModel.from_pretrained(folder)
        row = rm.template.encode("why ?", "no .")
        with torch.no_grad():
            state = states_of(input_ids=torch.tensor([row.input_ids])).last_hidden_state[0, -1]
        expected = (weight @ state).item() + (0.0 if bias is None else bias.item())
        assert rm.score("why ?", "no .").rewards[0] == pytest.approx(expected, abs=1e-5)
        assert rm.gate is not None
        assert rm.gate.published is None


def test_a_token_behind_the_template_is_read(llama_folder: Path, tmp_path: Path) -> None:
    """As Athene reads its CLS token; here of another id."""
    folder = changed(
        copied(llama_folder, tmp_path), lambda found: renamed(found, v_head__weight=torch.ones(1, 32))
    )
    tokenizer = make_tokenizer()
    tokenizer.cls_token = "<|pad|>"
    tokenizer.save_pretrained(folder)
    rm = RewardModel.from_pretrained(folder, pooling=f"token:{PAD}")
    assert rm.template.encode("why ?", "no").input_ids[-2:] == [END, PAD]
    assert rm.gate is not None
    assert rm.gate.token == ("<|pad|>", PAD)
    with pytest.raises(ModelError, match=r"has no token \(id 128003\)"):
        RewardModel.from_pretrained(folder)
