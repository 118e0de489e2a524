"""The callable of TRL in the calls TRL makes: equal to the library's scores (oracle), the same however an
answer is written down (metamorphic), learning only in training steps; bad input is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerState

from sarm_control import Controls, Edit, Penalty, RewardModel
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.embedded import world_folder
from sarm_control.engines.reward.calibration import calibrate
from sarm_control.engines.trl import TrlReward, reward_function
from sarm_control.errors import ConfigError, DataError, TrainingError
from tests.engines.trl_runs import learning_reward, prompts

ASKED = "hello , my teacher asked me . how do i paint a shirt ?"
SAID = ["first stir the flour .", "no , i will not do that .", "first"]


@pytest.fixture(scope="module", params=["lab", "lab:attached"])
def model(request: pytest.FixtureRequest) -> RewardModel:
    return RewardModel.from_pretrained(request.param, device="cpu")


def call(reward: Any, given: list[Any], said: list[Any], ended: list[bool], **more: Any) -> list[float]:
    """As `GRPOTrainer._calculate_rewards` calls; a data set's other columns come along."""
    end = reward.reward.model.template.end_of_turn_id
    tokens = [[5, end] if one else [5, 6] for one in ended]
    columns = {"label": ["x"] * len(said), "trainer_state": TrainerState()}
    found: list[float] = reward(prompts=given, completions=said, completion_ids=tokens, **columns, **more)
    return found


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_rewards_are_the_librarys_and_a_cut_answer_is_penalised(model: RewardModel) -> None:
    reward = reward_function(model, Controls(edits=[Edit(20, scale=0.5)]), missing_end=0.25)
    logged: dict[str, float] = {}
    columns: dict[str, list[float]] = {}
    more = {"log_metric": logged.__setitem__, "log_extra": columns.__setitem__}
    said = [answer(text) for text in SAID]
    found = call(reward, [messages(ASKED)] * 3, said, [True, True, False], **more)
    scored = model.score([ASKED] * 3, SAID, ended=[True, True, False])
    expected = reward.reward.controls.shape(scored).total - [0.0, 0.0, 0.25]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert all(type(value) is float for value in found)
    assert columns == {}
    assert set(reward.reward.terms) <= set(logged)
    assert logged["reward/missing_end"] == pytest.approx(-0.25 / 3)
    assert sum(logged[name] for name in reward.reward.terms[:-1]) == pytest.approx(logged["reward/total"])
    assert logged["reward/total"] == pytest.approx(np.mean(found))


def test_the_parts_of_each_answer_are_logged_when_asked_for(model: RewardModel) -> None:
    reward = reward_function(model, log_answers=True)
    columns: dict[str, list[float]] = {}
    found = call(reward, [ASKED] * 3, SAID, [True] * 3, log_extra=columns.__setitem__)
    assert columns["reward/total"] == found
    assert set(columns) == set(reward.reward.terms)


def test_an_answer_has_one_reward_however_it_is_written_down(model: RewardModel) -> None:
    reward = reward_function(model)
    template = model.template.tokenizer.apply_chat_template(
        messages(ASKED), tokenize=False, add_generation_prompt=True
    )
    parts = [{"role": "user", "content": [{"type": "text", "text": ASKED}]}]
    begun = [*messages(ASKED), {"role": "assistant", "content": "first stir "}]
    forms = [
        (messages(ASKED), answer(SAID[0])),
        (ASKED, SAID[0]),
        (template, SAID[0]),
        (parts, [{"role": "assistant", "content": [{"type": "text", "text": SAID[0]}]}]),
        (begun, answer("the flour .")),
        (messages(ASKED), [*answer(SAID[0])]),
    ]
    found = call(reward, [form[0] for form in forms], [form[1] for form in forms], [True] * len(forms))
    np.testing.assert_allclose(found, found[0], atol=1e-6)
    other = call(reward, [messages(ASKED)], [answer(SAID[1])], [True])
    assert abs(other[0] - found[0]) > 1e-3


def test_of_a_completion_with_tool_calls_the_last_message_is_the_answer(model: RewardModel) -> None:
    called: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    result = {"role": "user", "content": "flour"}
    said = [called, result, *answer(SAID[0])]
    found = call(reward_function(model), [messages(ASKED)], [said], [True])
    turns = [*messages(ASKED), {"role": "assistant", "content": ""}, result]
    assert found[0] == pytest.approx(float(model.score([turns], [SAID[0]]).rewards[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("prompt", "completion", "message"),
    [
        ("<|im_start|>user how do i cook", "first", "not in this reward model's chat template"),
        (messages(ASKED), messages("no"), "no assistant's message"),
        ([{"role": "user", "content": [{"type": "image"}]}], answer("no"), "type image"),
    ],
)
def test_what_is_no_conversation_is_refused(
    prompt: Any, completion: Any, message: str, model: RewardModel
) -> None:
    with pytest.raises(DataError, match=message):
        call(reward_function(model), [prompt], [completion], [True])


def test_a_reward_that_is_no_number_stops_training() -> None:
    broken = RewardModel.from_pretrained("lab")
    broken.autoencoder.latent_bias.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="answer 0 of the gathered batch is nan"):
        call(reward_function(broken), [ASKED], [SAID[0]], [True])


def test_it_learns_between_the_begin_and_the_end_of_a_step_alone(model: RewardModel) -> None:
    reward = learning_reward(model)
    policy = torch.nn.Linear(1, 1)
    reward.callback.on_init_end(model=policy, processing_class=model.template.tokenizer)

    def learnt() -> int:
        call(reward, [ASKED] * 3, SAID, [True] * 3)
        return reward.reward.learnt_batches

    assert learnt() == 0
    reward.callback.on_step_begin(model=policy.train())
    assert learnt() == 1
    policy.eval()  # an evaluation within a step
    assert learnt() == 1
    policy.train()
    assert learnt() == 2
    reward.callback.on_step_end()
    assert learnt() == 2


def test_the_trainers_end_tokens_decide_unless_others_are_given(model: RewardModel) -> None:
    reward, given = (
        reward_function(model, missing_end=1.0),
        reward_function(model, missing_end=1.0, end_tokens=[7]),
    )
    assert reward.end_tokens == {model.template.end_of_turn_id}
    policy = AutoModelForCausalLM.from_pretrained(world_folder() / "policy")
    policy.generation_config.eos_token_id = [3, 9]
    for one in (reward, given):
        one.callback.on_init_end(model=policy, processing_class=model.template.tokenizer)
    assert reward.end_tokens == {3, 9}
    rows: dict[str, Any] = {
        "prompts": [ASKED] * 3,
        "completions": SAID,
        "completion_ids": [[5, 9], [5, 7], []],
    }
    whole, cut = reward(**rows), given(**rows)
    np.testing.assert_allclose(np.subtract(whole, cut), [1.0, -1.0, 0.0], atol=1e-9)


def test_calibration_wants_to_know_what_ends_an_answer(model: RewardModel) -> None:
    policy = AutoModelForCausalLM.from_pretrained(world_folder() / "policy")
    tokenizer = AutoTokenizer.from_pretrained(world_folder() / "policy")
    asked = [row["prompt"] for row in prompts(4)]
    known, tokenizer.eos_token = policy.generation_config.eos_token_id, None
    assert calibrate(model, Controls(), policy, tokenizer, asked, max_new_tokens=4).n == 4
    assert known is not None
    policy.generation_config.eos_token_id = None
    with pytest.raises(DataError, match="neither the policy nor its tokenizer names a token that ends"):
        calibrate(model, Controls(), policy, tokenizer, asked, max_new_tokens=4)


def test_calibration_gives_the_unit_of_symbolic_amounts(model: RewardModel, tmp_path: Path) -> None:
    controls = Controls(penalties=[Penalty(20, tau="q0.9", alpha="0.5sd")])
    with pytest.raises(ConfigError, match="needs answers of the reference policy"):
        reward_function(model, controls)
    policy = AutoModelForCausalLM.from_pretrained(world_folder() / "policy").train()
    asked = [row["prompt"] for row in prompts(24)]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    settings = {"max_new_tokens": 16, "batch": 16}
    found = calibrate(model, controls, policy, model.template.tokenizer, asked, **settings)
    assert policy.training
    assert torch.equal(state, torch.get_rng_state())
    assert found.n == 24
    assert found == calibrate(model, controls, policy, model.template.tokenizer, asked, **settings)
    found.save(tmp_path / "reference.json")
    reward = reward_function(model, controls, reference=tmp_path / "reference.json", missing_end="1sd")
    assert reward.reward.controls.penalties[0].alpha == pytest.approx(0.5 * found.sd)
    assert reward.reward.rule.missing_end == pytest.approx(found.sd)
    assert reward.reward.reference == ReferenceStatistics.load(tmp_path / "reference.json")


def test_a_run_file_gives_the_controls(model: RewardModel, tmp_path: Path) -> None:
    file = tmp_path / "controls.yaml"
    file.write_text("reward:\n  edits: [{latent: 20, set: 0.0}]\n  missing_end_penalty: 0.125\n")
    reward = reward_function(model, file)
    assert isinstance(reward, TrlReward)
    assert reward.reward.controls.edits[0].latent == 20
    assert reward.reward.rule.missing_end == 0.125
    with pytest.raises(ConfigError, match="key of the file"):
        reward_function(model, file, missing_end=0.5)
