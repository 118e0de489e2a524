"""The day that templates are told: oracle (transformers on the calendar), golden (the release's fallback)."""

import datetime
import json
from pathlib import Path
from typing import Any, Literal

import pytest

from sarm_control.cli import main
from sarm_control.conversation import ChatTemplate
from sarm_control.conversation.dates import DEFAULT_DATE, clock, fallback_date, read_date
from sarm_control.embedded import TRAIN_PROMPTS
from sarm_control.errors import ConfigError, ModelError, TrainingError
from sarm_control.reward_model import RewardModel, describe
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.run.run_folder import start_run
from sarm_control.training.run.train import run_training
from tests.conftest import LLAMA_3_STYLE, make_tokenizer
from tests.conversation.templates import DATED, LLAMA_3, tokenizer_with

NO_FALLBACK = "{{ bos_token }}{{ strftime_now('%Y-%m-%d') }} " + LLAMA_3.removeprefix("{{- bos_token }}")
HOURS = "{{ bos_token }}{{ strftime_now('%d %b %Y, %H:%M:%S') }} " + LLAMA_3.removeprefix("{{- bos_token }}")
TURNS: Any = [{"role": "user", "content": "so ?"}, {"role": "assistant", "content": "4"}]
DAY = datetime.date(2031, 12, 24)


def written(source: str, date: datetime.date | str | None = None) -> str:
    return ChatTemplate(tokenizer_with(source), date=date).words(TURNS)


def test_the_default_is_the_releases_own_fallback_and_not_the_calendar() -> None:
    assert "Today Date: 26 Jul 2024<|end|>" in written(DATED)
    assert "2024-07-26" in written(NO_FALLBACK)
    assert "26 Jul 2024, 00:00:00" in written(HOURS)
    other = DATED.replace("26 Jul 2024", "03 Feb 2025")
    assert "Today Date: 03 Feb 2025<|end|>" in written(other)
    assert ChatTemplate(tokenizer_with(other)).date == datetime.date(2025, 2, 3)


def test_oracle_today_is_what_transformers_writes_today() -> None:
    for source in (DATED, NO_FALLBACK):
        tokenizer = tokenizer_with(source)
        # around midnight the second of two pairs is of one day
        pairs = [
            (written(source, "today"), tokenizer.apply_chat_template(TURNS, tokenize=False)) for _ in "ab"
        ]
        assert any(ours == theirs for ours, theirs in pairs)
        assert written(source) != pairs[0][0]


def test_a_day_is_a_day_from_its_first_moment_on() -> None:
    assert "Today Date: 24 Dec 2031<|end|>" in written(DATED, "2031-12-24")
    assert written(DATED, DAY) == written(DATED, "2031-12-24")
    assert clock(DAY)("%A %H:%M %j") == "Wednesday 00:00 358"
    assert read_date("today", today=lambda: DAY) == DAY


def test_a_template_that_asks_for_no_date_has_none() -> None:
    template = ChatTemplate(tokenizer_with(LLAMA_3), date="2031-12-24")
    assert template.date is None
    assert template.words(TURNS) == written(LLAMA_3)


@pytest.mark.parametrize(
    ("source", "day"),
    [
        ("{{ strftime_now('%d %B %Y') }} or '01 March 2023'", datetime.date(2023, 3, 1)),
        ('{{ strftime_now("%Y-%m-%d") }} or "2022-05-06"', datetime.date(2022, 5, 6)),
        ("{{ strftime_now('%H') }} '10'", DEFAULT_DATE),
        ("{{ strftime_now(form) }} 'some text'", DEFAULT_DATE),
    ],
)
def test_the_fallback_is_read_from_the_template(source: str, day: datetime.date) -> None:
    assert fallback_date(source) == day


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01", "01.02.2026", "", "2026-02-30", "20260101"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a date") as caught:
        read_date(text)
    assert "2026-01-31, or today" in str(caught.value.hint)


DATED_LAB = (
    "{{ bos_token }}{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}"
    "{% set day = '26 Jul 2024' %}{% endif %}<|start|>system<|stop|> {{ day }}<|end|>"
) + LLAMA_3_STYLE.removeprefix("{{ bos_token }}")


def dated_copy(kind: Literal["sarm", "policy"], folder: Path) -> Path:
    """The embedded policy or SARM with a template that writes the date in words it knows."""
    import shutil

    from sarm_control.embedded import model_folder

    source = model_folder("lab", kind)
    assert source is not None
    shutil.copytree(source, folder)
    for path in folder.glob("chat_template*"):
        path.unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    names = ("how", "why")
    told = (
        "{% if strftime_now('%Y-%m-%d') == '2024-07-26' %}"
        + names[0]
        + "{% else %}"
        + names[1]
        + "{% endif %}"
    )
    from sarm_control.lab.language.tokenizer import TEMPLATE

    config["chat_template"] = TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}" + told + " ", 1)
    assert config["chat_template"] != TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_reward_is_that_of_its_day(tmp_path: Path) -> None:
    folder = dated_copy("sarm", tmp_path / "sarm")
    rewards = {
        day: RewardModel.from_pretrained(folder, template_date=day)
        .score("how do i bake a cake ?", "first mix the flour .")
        .rewards[0]
        for day in (None, "2024-07-26", "2031-12-24", "today")
    }
    assert rewards[None] == rewards["2024-07-26"]
    assert rewards["2031-12-24"] == rewards["today"] != rewards[None]


STORED_DAY = "template_date"


def built(tmp_path: Path, name: str, *flags: str) -> Path:
    """A SARM with a new head by `sarm build`."""
    folder = tmp_path / name
    pairs = ["--pairs", "lab:audit", "--cache", str(tmp_path / "cache"), "-o", str(folder)]
    assert main(["build", *pairs, *flags]) == 0
    return folder


def said_day(folder: Path) -> str | None:
    day: str | None = json.loads((folder / "config.json").read_text())["sarm_param"].get(STORED_DAY)
    return day


def one_reward(folder: Path, day: str | None = None) -> float:
    model = RewardModel.from_pretrained(folder, template_date=day)
    return float(model.score("how do i bake a cake ?", "first mix the flour .").rewards[0])


@pytest.mark.long
def test_a_sarm_is_scored_on_the_day_it_was_built_with(tmp_path: Path) -> None:
    """Round trip: build, load, save, load, fit a new head; a day that is asked for wins."""
    base = dated_copy("sarm", tmp_path / "base")
    folder = built(tmp_path, "day", "--model", str(base), "--template-date", "2031-12-24")
    assert said_day(folder) == "2031-12-24"
    assert one_reward(folder) == one_reward(folder, "2031-12-24") != one_reward(folder, "2024-07-26")
    other_day = RewardModel.from_pretrained(folder, template_date="2024-07-26")
    again = other_day.save_pretrained(tmp_path / "again")
    assert one_reward(again) == one_reward(folder)
    assert said_day(built(tmp_path, "head", "--model", str(folder))) == "2031-12-24"

    rows, out = tmp_path / "rows.jsonl", tmp_path / "latents"
    rows.write_text('{"prompt": "how do i bake a cake ?", "response": "first mix the flour ."}\n')
    assert main(["latents", "-m", str(folder), str(rows), "-o", str(out)]) == 0
    assert json.loads((out / "manifest.json").read_text())["config"]["template_date"] == "2031-12-24"
    assert describe(folder).template_date == DAY
    assert describe(folder).model_fingerprint != describe(base).model_fingerprint


@pytest.mark.long
def test_a_new_head_on_the_default_day_leaves_the_model_the_same(tmp_path: Path) -> None:
    """Latents kept of a SARM that says no day serve its new head."""
    base = dated_copy("sarm", tmp_path / "base")
    folder = built(tmp_path, "head", "--model", str(base))
    assert said_day(folder) is None
    assert describe(folder).model_fingerprint == describe(base).model_fingerprint


@pytest.mark.long
def test_a_sarm_of_a_base_model_says_its_day_where_its_template_asks(tmp_path: Path) -> None:
    pytest.importorskip("sae_lens", reason='`sarm build --base` wants the extra "build"')
    sizes = ["--layer", "1", "--latents", "16", "--k", "4", "--steps", "60", "--batch", "64"]
    dated = dated_copy("policy", tmp_path / "policy")
    assert said_day(built(tmp_path, "dated", "--base", str(dated), *sizes)) == "2024-07-26"
    assert said_day(built(tmp_path, "plain", "--base", "lab", *sizes)) is None


@pytest.mark.parametrize("day", ["today", "2031-13-01", 20311224, ["2031-12-24"], ""])
def test_a_checkpoint_that_says_no_day_where_it_should_is_refused(tmp_path: Path, day: object) -> None:
    folder = dated_copy("sarm", tmp_path / "sarm")
    config = json.loads((folder / "config.json").read_text())
    config["sarm_param"][STORED_DAY] = day
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"sarm_param.template_date in config.json is .*, it must be a day"):
        RewardModel.from_pretrained(folder)


def settings(tmp_path: Path, day: str) -> RunConfig:
    base = {
        "policy": {"model": str(tmp_path / "policy")},
        "reward": {"model": str(tmp_path / "sarm")},
        "data": {"prompts": TRAIN_PROMPTS, "template_date": day},
        "training": {
            "steps": 2,
            "prompts_per_step": 2,
            "max_new_tokens": 8,
            "micro_batch": 8,
            "reference_answers": 8,
        },
        "evaluation": {"every": 0},
        "checkpoints": {"every": 1},
    }
    return RunConfig.model_validate(base)


@pytest.mark.long
def test_a_run_resumed_on_another_day_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """`today` is the day a run starts; a resumed one is told that day again."""
    for kind in ("policy", "sarm"):
        dated_copy(kind, tmp_path / kind)
    whole = settings(tmp_path, "today")
    run_training(whole, start_run(tmp_path / "whole", whole))
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    day = manifest["models"]["reward.template_date"]
    assert manifest["template_date"] == day
    assert day == manifest["models"]["policy.template_date"]

    short = whole.model_copy(update={"training": whole.training.model_copy(update={"steps": 1})})
    run_training(short, start_run(tmp_path / "cut", short))
    # as if the first step had been done on the default day: the words differ from those of today
    path = tmp_path / "cut" / "manifest.json"
    yesterday = json.loads(path.read_text())
    yesterday["template_date"] = "2031-12-24"
    for name in ("policy", "reward"):
        yesterday["models"][f"{name}.template_date"] = "2031-12-24"
    path.write_text(json.dumps(yesterday))
    run_training(whole, start_run(tmp_path / "cut", whole, resume=True))
    for name in ("metrics.jsonl", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    yesterday["template_date"] = "2024-07-26"
    path.write_text(json.dumps(yesterday))
    with pytest.raises(TrainingError, match=r"started with 2031-12-24 as policy\.template_date, now it is"):
        run_training(whole, start_run(tmp_path / "cut", whole, resume=True))


def test_a_date_in_a_config_is_checked() -> None:
    assert RunConfig.model_validate({"data": {"template_date": DAY}}).data.template_date == "2031-12-24"
    with pytest.raises(ValueError, match="'soon' is neither today nor a day such as 2026-01-31"):
        RunConfig.model_validate({"data": {"template_date": "soon"}})


def test_a_tokenizer_of_tests_is_told_a_day_too() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = DATED_LAB
    assert "24 Dec 2031" in ChatTemplate(tokenizer, date=DAY).words(TURNS)


@pytest.mark.long
def test_the_option_of_the_commands_and_what_manifests_say(tmp_path: Path) -> None:
    folder, rows = dated_copy("sarm", tmp_path / "sarm"), tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "how do i bake a cake ?", "response": "first mix the flour ."}\n')
    rewards, days = {}, {}
    for name, flags in {"default": [], "day": ["--template-date", "2031-12-24"]}.items():
        out, kept = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.latents"
        assert main(["score", "-m", str(folder), str(rows), "-o", str(out), *flags]) == 0
        assert main(["latents", "-m", str(folder), str(rows), "-o", str(kept), *flags]) == 0
        rewards[name] = json.loads(out.read_text())["reward"]
        manifests = [out.with_name(f"{out.name}.manifest.json"), kept / "manifest.json"]
        days[name] = {json.loads(path.read_text())["config"]["template_date"] for path in manifests}
    assert days == {"default": {"2024-07-26"}, "day": {"2031-12-24"}}
    assert rewards["default"] != rewards["day"]
    assert main(["score", "-m", str(folder), str(rows), "--template-date", "soon"]) == 2
