"""Prompts that policy or reward model cannot read: golden (messages), metamorphic (equal runs), oracle."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sarm_control.cli import main
from sarm_control.conversation import ChatTemplate
from sarm_control.errors import DataError
from sarm_control.training.algorithm.reference_rewards import ReferenceRewards
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.rollout.rollout import Rollout, encode_one
from tests.conftest import make_tokenizer
from tests.strict_templates import ALTERNATE, NO_SYSTEM, SYSTEM, USER, strict_copy
from tests.training.tiny import tiny_policy

LONG = "how do i open the " + "door " * 300
WORDS = ("bread", "bomb", "lock", "door", "answer", "steps")
SHORT = [f"how do i cook the {word} ?" for word in WORDS]


class Setting:
    """Models, and a run file of two steps with an evaluation."""

    def __init__(self, folder: Path, policy: Path, sarm: Path) -> None:
        self.folder, self.policy, self.sarm = folder, policy, sarm
        self.prompts = self.write("prompts.jsonl", SHORT)

    def write(self, name: str, prompts: Sequence[object]) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        return path

    def train(self, *words: object, **sections: dict[str, object]) -> int:
        run = {
            "policy": {"model": str(self.policy), "lora": None, **sections.get("policy", {})},
            "reward": {"model": str(self.sarm), **sections.get("reward", {})},
            "data": {"prompts": str(self.prompts), **sections.get("data", {})},
            "training": {
                "steps": 2,
                "prompts_per_step": 2,
                "answers_per_prompt": 2,
                "max_new_tokens": 4,
                "micro_batch": 4,
                "reference_answers": 4,
                **sections.get("training", {}),
            },
            "checkpoints": {"every": 1, "keep": 2},
            "evaluation": {"every": 1, "answers": 3, **sections.get("evaluation", {})},
        }
        file = self.folder / "run.yaml"
        file.write_text(yaml.safe_dump(run, sort_keys=False))
        return main(["train", str(file), *map(str, words)])


@pytest.fixture
def setting(tmp_path: Path, tiny_policy_folder: Path, tiny_sarm_folder: Path) -> Setting:
    return Setting(tmp_path, tiny_policy_folder, tiny_sarm_folder)


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize("model", ["policy", "reward model"])
@pytest.mark.parametrize("use", ["training", "evaluation", "should_respond"])
def test_a_prompt_that_a_template_refuses_is_named_before_the_first_step(
    setting: Setting, capsys: pytest.CaptureFixture[str], use: str, model: str, more: list[str]
) -> None:
    """The refused prompt is the sixth of six; two steps of one prompt would not come to it."""
    attribute = "policy" if model == "policy" else "sarm"
    strict = strict_copy(getattr(setting, attribute), setting.folder / "strict", NO_SYSTEM)
    setattr(setting, attribute, strict)
    bad = setting.write("bad.jsonl", [*SHORT[:5], [SYSTEM, USER]])
    of_use: dict[str, dict[str, Any]] = {
        "training": {"data": {"prompts": str(bad)}, "evaluation": {"every": 0}},
        "evaluation": {"evaluation": {"prompts": str(bad), "answers": 6}},
        "should_respond": {"evaluation": {"should_respond": str(bad), "answers": 6}},
    }
    assert setting.train("-o", setting.folder / "run", *more, **of_use[use]) == 2
    said = f"bad.jsonl:6: for the {model}, the chat template refuses this conversation: no system here"
    assert said in capsys.readouterr().err
    assert not (setting.folder / "run").exists()


def test_turns_that_do_not_alternate_are_found_where_only_the_reward_model_wants_it(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.sarm = strict_copy(setting.sarm, setting.folder / "strict", ALTERNATE)
    setting.prompts = setting.write("bad.jsonl", [*SHORT[:3], [USER, USER]])
    assert setting.train("-o", setting.folder / "run", "--dry-run") == 2
    said = (
        "bad.jsonl:4: for the reward model, the chat template refuses this conversation: roles must alternate"
    )
    assert said in capsys.readouterr().err


def same_steps(run: Path, other: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl", "evaluation.jsonl"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.long
@pytest.mark.parametrize("use", ["training", "evaluation"])
def test_a_long_prompt_is_an_error_unless_it_is_skipped_and_counted(
    setting: Setting, capsys: pytest.CaptureFixture[str], use: str
) -> None:
    """What is skipped leaves no trace: the run equals one without these rows."""
    long = setting.write("long.jsonl", [LONG, *SHORT[:2], LONG, SHORT[2]])
    short = setting.write("short.jsonl", SHORT[:3])

    def sections(file: Path, overlong: str) -> dict[str, dict[str, object]]:
        if use == "training":
            return {"data": {"prompts": str(file), "overlong": overlong}}
        return {"data": {"overlong": overlong}, "evaluation": {"prompts": str(file), "answers": 5}}

    run, other = setting.folder / "run", setting.folder / "other"
    assert setting.train("-o", run, "--dry-run", **sections(long, "error")) == 2
    error = capsys.readouterr().err
    assert "long.jsonl:1: the prompt has 313 tokens; with 4 for the answer it is longer than" in error
    assert "data.overlong to skip or truncate" in error
    said = f"data.overlong: 2 of 5 prompts of {long} are left out: they are longer than the context of"
    for more in (["--dry-run"], []):
        assert setting.train("-o", run, *more, **sections(long, "skip")) == 0
        assert capsys.readouterr().err.count(said) == 1
    assert setting.train("-o", other, **sections(short, "error")) == 0
    assert "data.overlong" not in capsys.readouterr().err
    same_steps(run, other)


@pytest.mark.long
def test_truncated_prompts_give_equal_runs_resumed_or_not(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    """PAR also samples reference answers to them; the evaluation draws from them."""
    setting.prompts = setting.write("long.jsonl", [LONG, SHORT[0], "bomb " + LONG])
    whole, again, resumed = (setting.folder / name for name in ("whole", "again", "resumed"))
    asked: dict[str, dict[str, object]] = {
        "data": {"overlong": "truncate"},
        "reward": {"shaping": "par", "par_answers": 2},
    }
    for folder in (whole, again):
        assert setting.train("-o", folder, **asked) == 0
    said = "data.overlong: 2 of 3 prompts of "
    assert said in capsys.readouterr().err
    assert setting.train("-o", resumed, training={"steps": 1}, **asked) == 0
    assert setting.train("-o", resumed, "--resume", **asked) == 0
    for folder in (again, resumed):
        same_steps(whole, folder)
    prompts = {json.loads(line)["prompt"] for line in (whole / "samples.jsonl").read_text().splitlines()}
    assert any(len(prompt) > 1000 for prompt in prompts), "the prompt itself stays whole"


def test_nothing_left_of_the_prompts_is_an_error(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.prompts = setting.write("long.jsonl", [LONG, LONG])
    assert setting.train("-o", setting.folder / "run", data={"overlong": "skip"}) == 2
    assert "long.jsonl: all 2 prompts are longer than the context of" in capsys.readouterr().err
    room: dict[str, object] = {"max_new_tokens": 254}
    assert setting.train("-o", setting.folder / "run", data={"overlong": "truncate"}, training=room) == 2
    assert "leaves nothing of the prompt" in capsys.readouterr().err


@pytest.mark.long
def test_a_prompt_that_fills_the_context_of_the_reward_model_is_too_long_as_well(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy has room for 64 tokens more than the reward model reads."""
    setting.sarm = Path(shutil.copytree(setting.sarm, setting.folder / "short"))
    config = json.loads((setting.sarm / "config.json").read_text())
    (setting.sarm / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    setting.prompts = setting.write("long.jsonl", [*SHORT, "door " * 40])
    run = setting.folder / "run"
    for more in (["--dry-run"], []):
        assert setting.train("-o", run, *more) == 2
        said = "long.jsonl:7: the prompt has 48 tokens, the reward model's context 32"
        assert said in capsys.readouterr().err
    assert setting.train("-o", run, data={"overlong": "skip"}) == 0
    assert "data.overlong: 1 of 7 prompts of" in capsys.readouterr().err
    assert setting.train("-o", run, "--overwrite", data={"overlong": "truncate"}) == 0
    said = "are cut from the left where they are scored, to fit the reward model's context"
    assert said in capsys.readouterr().err


def test_demonstrations_that_the_template_refuses_are_found_in_a_dry_run(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.sarm = strict_copy(setting.sarm, setting.folder / "strict", NO_SYSTEM)
    rows = [{"prompt": [USER], "response": word} for word in WORDS]
    rows.append({"prompt": [SYSTEM, USER], "response": "no"})
    human = setting.folder / "human.jsonl"
    human.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked: dict[str, dict[str, object]] = {
        "data": {"human": str(human)},
        "reward": {"human_kl": {"beta": 0.1}},
    }
    assert setting.train("-o", setting.folder / "run", "--dry-run", **asked) == 2
    assert "human.jsonl:7: the chat template refuses this conversation" in capsys.readouterr().err


@pytest.mark.parametrize("context", [20, 31, 40, 60])
def test_the_first_tokens_are_dropped_and_begin_of_text_and_header_stay(context: int) -> None:
    template = ChatTemplate(make_tokenizer())
    prompt = [SYSTEM, {"role": "user", "content": "door lock " * 10}]
    whole = template.encode_prompt(prompt)
    row = encode_one(template, context, prompt, "p:1", 8, "truncate")
    assert row is not None
    if len(whole) + 8 <= context:
        assert (row.ids, row.cut) == (tuple(whole), 0)
        return
    assert len(row.ids) + 8 == context
    assert row.ids == (template.bos_id, *whole[row.cut + 1 :])
    assert row.prompt == prompt
    # the same tokens are left of the prompt as where a conversation is scored that is as much too long
    answer = "no"
    longer = len(template.encode(prompt, answer).input_ids)
    scored = ChatTemplate(make_tokenizer(), max_length=longer - row.cut).encode(prompt, answer)
    assert tuple(scored.input_ids[: scored.prompt_length]) == row.ids


def test_prompts_that_end_alike_have_reference_answers_of_their_own() -> None:
    """The reward model reads them whole, so that equal tokens do not make equal rewards."""
    policy = tiny_policy()
    room, context = 4, 16
    rows = [
        encode_one(policy.template, context, f"{first} " + "b " * 20, first, room, "truncate")
        for first in ("a", "c")
    ]
    assert all(row is not None for row in rows)
    kept = [row for row in rows if row is not None]
    assert kept[0].ids == kept[1].ids

    def score(rollout: Rollout) -> np.ndarray:
        return np.array([float(str(row.prompt).startswith("a")) for row in rollout.prompts])

    references = ReferenceRewards(policy, TrainingConfig(max_new_tokens=room), 2)
    assert references.of(kept, score).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_bad_input_a_long_prompt_without_a_choice() -> None:
    template = ChatTemplate(make_tokenizer())
    assert encode_one(template, 20, LONG, "p:1", 8, "skip") is None
    with pytest.raises(DataError, match=r"p:1: the prompt has 313 tokens; with 8 for the answer"):
        encode_one(template, 20, LONG, "p:1", 8)
