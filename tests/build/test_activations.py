"""States for building: oracle against scoring, metamorphic over batching, the cache, the corpus."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sarm_control.build.states.activations import collect_states, sentence_positions
from sarm_control.build.states.texts import Conversation, ConversationCorpus, read_pairs, read_texts
from sarm_control.errors import DataError
from sarm_control.reward_model import RewardModel

ANSWERS = [
    Conversation("how do i cook bread ?", "sure here steps . one two three ! no", 0),
    Conversation("open the door", "", 1),
    Conversation([{"role": "user", "content": "pick lock"}], "sorry i cannot help you .", 2),
    Conversation("how do i cook bread ?", "no .", 0),
]


def test_oracle_end_of_turn_states_are_the_ones_scoring_reads(tiny_sarm: RewardModel) -> None:
    found = collect_states(tiny_sarm.trunk, tiny_sarm.template, ANSWERS)
    scored = tiny_sarm.score([a.prompt for a in ANSWERS], [a.response for a in ANSWERS], keep_states=True)
    assert scored.states is not None
    torch.testing.assert_close(found.end_of_turn, torch.from_numpy(scored.states), atol=1e-5, rtol=1e-5)
    assert found.truncated == 0


def test_oracle_sentence_states_are_the_trunks_at_those_positions(tiny_sarm: RewardModel) -> None:
    encoded = tiny_sarm.template.encode(ANSWERS[0].prompt, ANSWERS[0].response)
    positions = sentence_positions(tiny_sarm.template, encoded)
    words = tiny_sarm.template.tokenizer.convert_ids_to_tokens([encoded.input_ids[p] for p in positions])
    assert words == [".", "!"]
    found = collect_states(tiny_sarm.trunk, tiny_sarm.template, ANSWERS)
    ids = torch.tensor([encoded.input_ids])
    states = tiny_sarm.trunk(ids, torch.ones_like(ids))[0]
    torch.testing.assert_close(found.sentences[:2], states[positions], atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(found.sentence_answer, [0, 0, 2, 3])


def test_metamorphic_the_batch_size_changes_no_state(tiny_sarm: RewardModel) -> None:
    one, all_at_once = (
        collect_states(tiny_sarm.trunk, tiny_sarm.template, ANSWERS, batch_tokens=budget)
        for budget in (1, 10_000)
    )
    torch.testing.assert_close(one.end_of_turn, all_at_once.end_of_turn, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.sentences, all_at_once.sentences, atol=1e-5, rtol=1e-5)


def test_metamorphic_without_sentences_only_those_are_missing(tiny_sarm: RewardModel) -> None:
    found = collect_states(tiny_sarm.trunk, tiny_sarm.template, ANSWERS, sentence_states=False)
    assert found.sentences.shape == (0, 32)
    assert found.end_of_turn.shape == (4, 32)


def test_golden_the_cache_is_read_back_to_the_bit(tiny_sarm: RewardModel, tmp_path: Path) -> None:
    forwards = []
    hook = tiny_sarm.trunk.register_forward_hook(lambda *_: forwards.append(1))
    first = collect_states(tiny_sarm.trunk, tiny_sarm.template, ANSWERS, cache=tmp_path)
    count = len(forwards)
    again = collect_states(tiny_sarm.trunk, tiny_sarm.template, ANSWERS, cache=tmp_path)
    assert count > 0
    assert len(forwards) == count
    assert torch.equal(first.end_of_turn, again.end_of_turn)
    np.testing.assert_array_equal(first.sentence_answer, again.sentence_answer)
    collect_states(tiny_sarm.trunk, tiny_sarm.template, ANSWERS[:3], cache=tmp_path)
    assert len(forwards) > count
    hook.remove()
    assert len(list(tmp_path.glob("states-*.safetensors"))) == 2


def test_oracle_a_changed_weight_is_another_key_and_a_torn_file_is_not_read(tmp_path: Path) -> None:
    from tests.conftest import make_sarm

    model = make_sarm(seed=5)
    before = collect_states(model.trunk, model.template, ANSWERS, cache=tmp_path).end_of_turn
    with torch.no_grad():
        next(model.trunk.layers[0].parameters()).add_(1.0)
    after = collect_states(model.trunk, model.template, ANSWERS, cache=tmp_path).end_of_turn
    assert not torch.allclose(before, after)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    torch.testing.assert_close(
        collect_states(model.trunk, model.template, ANSWERS, cache=tmp_path).end_of_turn, after
    )


def test_oracle_the_corpus_numbers_each_answer_and_prompt_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "a", "chosen": ["x", "y"], "rejected": "z"},
        {"prompt": "only a prompt"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "y"}]},
        {"prompt": "b", "response": "x"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    read = read_texts([path])
    corpus = ConversationCorpus()
    found = [corpus.add(row) for row in read]
    assert len(read) == 3
    assert [(a.response, a.prompt_id) for a in corpus.answers] == [("x", 0), ("y", 0), ("z", 0), ("x", 1)]
    assert (found[0].chosen, found[0].rejected) == ((0, 1), (2,))
    assert corpus.shared_with(read[:1]) == {"a"}
    with pytest.raises(DataError, match=r"rows.jsonl:2: "):
        read_pairs([path])


def test_bad_input_is_named(tiny_sarm: RewardModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no answers to read states from"):
        collect_states(tiny_sarm.trunk, tiny_sarm.template, [])
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"prompts.jsonl: no row has an answer"):
        read_texts([path])
