"""Every end of sequence stops a policy: oracle (transformers' generate), metamorphic (one or several)."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from sarm_control.comparison.generation import Sampling, answer_prompts
from sarm_control.conversation import ChatTemplate
from sarm_control.conversation.templated import TemplatedText
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.generate_sampler import GenerateSampler
from sarm_control.training.rollout.rollout import Rollout, sample_answers
from sarm_control.training.rollout.sampler import (
    CachedSampler,
    Sampler,
    SampleRequest,
    Samples,
    check_samples,
)
from tests.conversation.templates import CHATML, tokenizer_with
from tests.training.tiny import END, PROMPTS, template, tiny_model, tiny_policy

SAMPLERS = [CachedSampler(), GenerateSampler(32)]


def policy_with(ends: Any, config: Any = END) -> Policy:
    """A policy whose generation config names these ends, and whose config that one."""
    model = tiny_model()
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=END)
    model.config.eos_token_id = config
    return Policy(model, template(), reference=tiny_model())


def answers(policy: Policy, sampler: Sampler, **changes: Any) -> Rollout:
    options = {"answers_per_prompt": 16, "max_new_tokens": 12, "temperature": 1.0, "seed": 0, **changes}
    return sample_answers(policy, PROMPTS, purpose=(1, "rollout"), sampler=sampler, **options)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["ours", "generate"])
@pytest.mark.parametrize(("ends", "config"), [([END, 2], END), ([2, 3], END), (END, [END, 2])])
def test_metamorphic_an_answer_is_cut_at_the_first_of_all_ends(
    sampler: Sampler, ends: Any, config: Any
) -> None:
    policy = policy_with(ends, config)
    stops = {
        END,
        *(ends if isinstance(ends, list) else [ends]),
        *(config if isinstance(config, list) else []),
    }
    found, longer = answers(policy, sampler), answers(tiny_policy(), sampler)
    assert set(policy.end_ids) == stops
    for cut, whole, text, ended in zip(found.answers, longer.answers, found.texts, found.ended, strict=True):
        place = next((i for i, token in enumerate(whole) if token in stops), len(whole) - 1)
        assert cut == whole[: place + 1]
        assert ended == (cut[-1] in stops)
        assert text == policy.template.tokenizer.decode(list(cut[:-1] if ended else cut))
    assert any(answer[-1] == 2 for answer in found.answers)
    assert found.lengths == [len(answer) for answer in found.answers]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["ours", "generate"])
@pytest.mark.parametrize("ends", [END, [END, 1], [2, 1, END], [1]])
def test_oracle_the_most_likely_answers_end_as_generate_ends_them(sampler: Sampler, ends: Any) -> None:
    """At a temperature near 0 a draw is the most likely token; from 16 prompts, so that many ends occur."""
    policy = policy_with(ends)
    torch.manual_seed(1)
    for weight in policy.causal.parameters():
        weight.data = torch.randn(weight.shape) * 0.3
    prompts = [PROMPTS[0].__class__("p", (1 + i % 3, 1 + i // 3 % 3, 1 + i // 9), "p:1") for i in range(16)]
    options: Any = {"answers_per_prompt": 1, "max_new_tokens": 12, "temperature": 1e-4, "seed": 0}
    found = sample_answers(policy, prompts, purpose=("greedy",), sampler=sampler, **options)
    ended = 0
    for row, answer in zip(prompts, found.answers, strict=True):
        settings = GenerationConfig(
            max_new_tokens=12, do_sample=False, eos_token_id=list(policy.end_ids), pad_token_id=END
        )
        said = policy.causal.generate(torch.tensor([row.ids]), generation_config=settings)[0, len(row.ids) :]
        assert answer == tuple(said.tolist())
        ended += answer[-1] in policy.end_ids
    assert ended > 0
    assert sum(found.ended) == ended


def test_sarm_compare_stops_at_every_end() -> None:
    policy = policy_with([END, 2])
    sampling = Sampling(answers_per_prompt=16, max_new_tokens=12, temperature=1.0, seed=0, batch=8)
    for reference in (False, True):
        found = answer_prompts(policy, PROMPTS, sampling, reference=reference)
        assert all(2 not in answer[:-1] for answer in found.answers)
        assert any(answer[-1] == 2 for answer in found.answers)
        assert all(ended for answer, ended in zip(found.answers, found.ended, strict=True) if answer[-1] == 2)


def test_the_values_and_logprobs_go_up_to_the_end_that_was_drawn() -> None:
    policy = policy_with([END, 2])
    found = answers(policy, CachedSampler())
    row = next(i for i, answer in enumerate(found.answers) if answer[-1] == 2)
    batch = policy.batch([found.prompts[row].ids], [found.answers[row]])
    assert batch.targets.tolist() == list(found.answers[row])
    assert len(policy.answer_stats(batch, 1.0).logprobs) == found.lengths[row]


def test_one_id_in_a_list_changes_no_bit() -> None:
    one, listed = answers(policy_with(END), CachedSampler()), answers(policy_with([END]), CachedSampler())
    assert one == listed == answers(tiny_policy(), CachedSampler())


def test_a_sampler_that_runs_over_an_end_is_refused() -> None:
    from sarm_control.errors import TrainingError

    request = SampleRequest(((1, 2),), 1, 3, 1.0, (7,), END, (2,))
    check_samples(Samples(((1, 2),)), request, "Mine")
    with pytest.raises(TrainingError, match="does not stop at its end-of-turn token 0, or at 2"):
        check_samples(Samples(((2, 1, 0),)), request, "Mine")


def test_a_text_that_ends_in_any_of_them_has_ended() -> None:
    tokenizer = tokenizer_with(CHATML)
    end_of_text = tokenizer.convert_tokens_to_ids("<|eos|>")
    assert isinstance(end_of_text, int)
    reader = TemplatedText(ChatTemplate(tokenizer, ends=[end_of_text]))
    asked = reader.template.words([{"role": "user", "content": "so ?"}], generation=True)
    plain = reader.template.encode("so ?", "4")
    for end in ("<|end|>", "<|eos|>", "<|end|>\n<|eos|>"):
        found = reader.template.encode_rendered([reader.render(f"{asked}4{end}", asked)])[0]
        assert found == plain
    cut = reader.template.encode_rendered([reader.render(f"{asked}4", asked)])[0]
    assert cut.input_ids == plain.input_ids
    assert not cut.ended
