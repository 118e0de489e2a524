"""Configuration: bad input (each message with its place), property (round trip), golden (defaults)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sarm_control.control.edits.edits import Edit
from sarm_control.errors import ConfigError
from sarm_control.study import load_study
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.config.validation import every_key, load_config, validate
from sarm_control.training.config.yaml_source import (
    Document,
    dump_yaml,
    merge,
    parse_setting,
    plain_scalar,
    read_document,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for folder in ("examples", "scripts") for path in (ROOT / folder).rglob("*.yaml"))
GOOD = """\
policy:
  model: policy
reward:
  model: sarm
  edits:
    - 12345:max=2
    - {latent: 7, set: 0}
  penalties:
    - 48659:tau=3,alpha=0.1
data:
  prompts: prompts.jsonl
training:
  steps: 20
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *sets: str) -> RunConfig:
    return load_config(write(folder, text), [parse_setting(item) for item in sets])


def complaint(folder: Path, text: str, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *sets)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_small_file_gives_the_documented_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.training.steps == 20
    assert config.policy.lora is not None
    assert config.policy.lora.rank == 16
    assert config.reward.edits == (Edit(12345, max=2), Edit(7, set=0))
    assert config.reward.penalties[0].alpha == 0.1
    assert config.checkpoints.keep == 2


def test_a_misspelled_section_names_file_line_and_the_closest_key(tmp_path: Path) -> None:
    text = GOOD.replace("training:", "trainig:")
    assert complaint(tmp_path, text) == "run.yaml:12: unknown key 'trainig'; did you mean 'training'?"


@pytest.mark.parametrize(
    ("section", "typo", "meant", "line"),
    [
        ("training", "stpes: 3", "steps", 14),
        ("training", "learning-rate: 0.1", "learning_rate", 14),
        ("training", "lora: 3", "policy.lora", 14),
        ("policy", "modle: x", "model", 15),
        ("checkpoints", "evry: 4", "every", 15),
    ],
)
def test_a_misspelled_key_names_the_closest_one(
    tmp_path: Path, section: str, typo: str, meant: str, line: int
) -> None:
    head = GOOD if section == "training" else GOOD + f"{section}:\n"
    head = head.replace("policy:\n  model: policy\n", "") if section == "policy" else head
    line -= 2 if section == "policy" else 0
    key = typo.partition(":")[0]
    message = complaint(tmp_path, head + f"  {typo}\n")
    assert f"run.yaml:{line}: unknown key '{key}'; did you mean '{meant}'?" in message


def test_a_misspelled_key_of_a_control_is_found_in_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("{latent: 7, set: 0}", "{latent: 7, maks: 0}")
    assert complaint(tmp_path, text) == "run.yaml:7: unknown key 'maks'; did you mean 'max'?"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("clip: 1.5", "training.clip: 1.5 is out of range; allowed: > 0 and <= 1"),
        ("epochs: 0", "training.epochs: 0 is out of range; allowed: >= 1 and <= 100"),
        ("epochs: two", "training.epochs: 'two' is not an integer; allowed: >= 1 and <= 100"),
        ("epochs: 1.5", "training.epochs: 1.5 is not an integer; allowed: >= 1 and <= 100"),
        ("epochs: yes", "training.epochs: 'yes' is not an integer; allowed: >= 1 and <= 100"),
        ("epochs: true", "training.epochs: true is not a number"),
        ("epochs:", "training.epochs: null (no value) is not an integer; allowed: >= 1 and <= 100"),
        ("gamma: .nan", "training.gamma: nan is not a finite number; allowed: >= 0 and <= 1"),
        ("seed: [1]", "training.seed: [1] is not an integer; allowed: >= 0"),
        (
            "minibatches: 64",
            "training.minibatches 64 is more than the 32 answers of a step "
            "(prompts_per_step x answers_per_prompt)",
        ),
    ],
)
def test_a_bad_value_names_place_value_and_range(tmp_path: Path, line: str, expected: str) -> None:
    assert complaint(tmp_path, GOOD + f"  {line}\n") == f"run.yaml:14: {expected}"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.steps=many", "training.steps: 'many' is not an integer; allowed: >= 0"),
        ("training.stpes=3", "unknown key 'stpes'; did you mean 'steps'?"),
        ("policy.dtype=float23", "policy.dtype: 'float23' is not 'auto', 'float32' or 'bfloat16'"),
        (
            "policy.lora.targets=linear",
            "policy.lora.targets: 'linear' is not 'all-linear'; 'linear' is not a list",
        ),
        (
            "policy=big",
            "policy: 'big' is not a set of keys (model, adapter, lora, dtype, gradient_checkpointing)",
        ),
        ("policy.model=", "policy.model: null (no value) is not text; put it in quotes"),
        ("policy.model=''", "policy.model: '' is empty"),
        ("reward.edits=[5=0, 5=1]", "reward.edits: latent 5 has two edits"),
        ("reward.penalties.0.alpha=0", "reward.penalties: {0: {'alpha': 0}} is not a list"),
        ("data.human=[a]", "data.human: ['a'] is not a path"),
        (
            "reward.missing_end_penalty=-1",
            "reward.missing_end_penalty: -1 is neither a number >= 0 nor a number of SDs such as '1sd'",
        ),
    ],
)
def test_a_bad_setting_is_named_as_it_was_typed(tmp_path: Path, setting: str, expected: str) -> None:
    text = re.sub(r"  penalties:\n.*\n", "", GOOD)
    assert complaint(tmp_path, text, setting) == f"--set {setting}: {expected}"


def test_a_negative_alpha_is_refused_in_its_line(tmp_path: Path) -> None:
    message = complaint(tmp_path, GOOD.replace("alpha=0.1", "alpha=-0.1"))
    assert (
        message == "run.yaml:9: reward.penalties.0: penalty on latent 48659: alpha is -0.1, it must be >= 0"
    )


def test_set_together_with_max_is_refused_in_its_line(tmp_path: Path) -> None:
    message = complaint(tmp_path, GOOD.replace("set: 0", "set: 0, max: 2"))
    assert message == "run.yaml:7: reward.edits.1: edit of latent 7: set and max cannot be combined"


def test_every_mistake_is_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("alpha=0.1", "alpha=-1") + "  clip: 2\ncheckpoint: {}\n"
    lines = complaint(tmp_path, text).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["run.yaml:9", "run.yaml:14", "run.yaml:15"]


def test_a_policy_of_ones_own_needs_prompts_of_ones_own(tmp_path: Path) -> None:
    without = GOOD.replace("  prompts: prompts.jsonl\n", "")
    assert complaint(tmp_path, without.replace("data:\n", "")) == "run.yaml: missing key 'data.prompts'"
    human = without.replace("data:\n", "data:\n  human: demos.jsonl\n")
    assert complaint(tmp_path, human) == "run.yaml:10: missing key 'data.prompts'"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, human)
    assert caught.value.hint == "add it to the file, or pass --prompts prompts.jsonl"
    with pytest.raises(ValidationError, match=r"missing key 'data\.prompts'"):
        RunConfig.model_validate({"policy": {"model": "./lab"}})


def test_without_a_policy_or_a_reward_model_the_embedded_world_stands_in(tmp_path: Path) -> None:
    config = load(tmp_path, "training: {steps: 3}\n")
    assert config == RunConfig(training=config.training)
    names = (config.policy.model, config.reward.model, str(config.data.prompts))
    assert names == ("lab", "lab", "lab:train_prompts")
    assert load(tmp_path, GOOD.replace("  model: sarm\n", "")).reward.model == "lab"
    assert load(tmp_path, GOOD.replace("policy:\n  model: policy\n", "")).policy.model == "lab"


def test_human_kl_without_demonstrations_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("data:", "  human_kl: {beta: 0.1}\ndata:")
    assert "run.yaml:10: reward.human_kl needs demonstrations: set data.human" in complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "run.yaml: the file is empty"),
        ("# nothing\n", "run.yaml: the file is empty"),
        ("- a\n", "run.yaml:1: expected keys such as 'policy:', found ['a']"),
        ("steps\n", "run.yaml:1: expected keys such as 'policy:', found 'steps'"),
        ("policy: {model: a\n", "run.yaml:2: expected ',' or '}', but got '<stream end>'"),
        ("policy:\n\tmodel: a\n", "run.yaml:2: found character '\\t' that cannot start any token"),
        (
            "policy: {model: a}\npolicy: {model: b}\n",
            "run.yaml:2: key 'policy' is written twice (first: run.yaml:1)",
        ),
        (
            "a: &x 1\nb: *x\n",
            "run.yaml:1: anchors (&) and aliases (*) are not supported; write the value out",
        ),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "run.yaml:1: tags such as tag:yaml.org,2002:python/object/apply:os.system are not supported",
        ),
        ("a: ${HOME}/x\n", "run.yaml:1: ${HOME}/x: '${}' is not replaced here"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2: but found another document"),
    ],
)
def test_what_is_not_a_configuration_file(tmp_path: Path, text: str, expected: str) -> None:
    assert complaint(tmp_path, text) == expected


def test_a_file_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none.yaml: No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "run.yaml").write_bytes(b"policy:\n  model: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"run.yaml:2: not UTF-8 text"):
        load_config(tmp_path / "run.yaml")


def test_a_very_deep_file_is_an_error_not_a_crash(tmp_path: Path) -> None:
    assert "nested more than 50 deep" in complaint(tmp_path, "a: " + "[" * 1000)


def test_exponents_are_numbers_where_yaml_1_1_reads_text(tmp_path: Path) -> None:
    assert isinstance(yaml.safe_load("1e-4"), str)
    assert load(tmp_path, GOOD + "  learning_rate: 1e-4\n").training.learning_rate == 1e-4
    assert load(tmp_path, GOOD, "training.learning_rate=3E-5").training.learning_rate == 3e-5
    assert load(tmp_path, GOOD + '  learning_rate: "1e-4"\n').training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "value"),
    [("012", 12), ("yes", "yes"), ("off", "off"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("~", None),
     ("1_000", "1_000"), ("0x10", "0x10"), ("-.5", -0.5), ("5.", 5.0), ("True", True), ("q0.9", "q0.9"),
     ("9223372036854775807", 2**63 - 1), ("9223372036854775808", 2.0**63)],
)  # fmt: skip
def test_scalars_have_no_surprises(text: str, value: object) -> None:
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back_to_the_bit(number: float) -> None:
    assert plain_scalar(repr(number)) == number


def test_settings_merge_maps_and_replace_lists(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD, "policy.lora={rank: 4}", "reward.edits=[5=1]", "training.seed=9")
    assert config.policy.lora is not None
    assert (config.policy.lora.rank, config.policy.lora.alpha) == (4, 32)
    assert config.policy.model == "policy"
    assert config.reward.edits == (Edit(5, set=1),)
    assert (config.training.seed, config.training.steps) == (9, 20)


def test_the_last_setting_wins(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "training.seed=1", "training.seed=2").training.seed == 2


def test_a_section_switched_off_can_be_switched_on_again(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "policy.lora=null").policy.lora is None
    config = load(tmp_path, GOOD, "policy.lora=null", "policy.lora.rank=2")
    assert config.policy.lora is not None
    assert config.policy.lora.rank == 2


def test_one_item_of_a_list_can_be_set(tmp_path: Path) -> None:
    text = GOOD.replace("- 48659:tau=3,alpha=0.1", "- {latent: 48659, tau: 3, alpha: 0.1}")
    config = load(tmp_path, text, "reward.penalties.0.alpha=0.5sd")
    assert (config.reward.penalties[0].alpha, config.reward.penalties[0].tau) == ("0.5sd", 3)
    expected = "--set reward.penalties.1.alpha=1: reward.penalties has 1 items, not item 1"
    assert complaint(tmp_path, text, "reward.penalties.1.alpha=1") == expected


@pytest.mark.parametrize("text", ["training.steps", "=3", "training..steps=3"])
def test_a_setting_that_is_not_key_value(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {re.escape(text)}: expected KEY=VALUE"):
        parse_setting(text)


def test_a_replaced_list_forgets_where_the_old_items_were_written(tmp_path: Path) -> None:
    setting = "reward.edits=[{latent: 5, maks: 3}]"
    assert complaint(tmp_path, GOOD, setting) == f"--set {setting}: unknown key 'maks'; did you mean 'max'?"


def test_merging_keeps_where_the_rest_was_written(tmp_path: Path) -> None:
    merged = merge(read_document(write(tmp_path, GOOD)), parse_setting("policy.lora.rank=x"))
    assert merged.origin(("policy",)).endswith("run.yaml:1")
    assert merged.origin(("policy", "lora", "rank")) == "--set policy.lora.rank=x"


numbers = st.floats(1e-6, 1.0)
configs = st.fixed_dictionaries(
    {
        "policy": st.fixed_dictionaries(
            {
                "model": st.text(min_size=1) | st.sampled_from(["1e-4", "yes", "${x}", "~", "\x85", "a: b"]),
                "lora": st.sampled_from([None, {"rank": 3}]),
            }
        ),
        "reward": st.fixed_dictionaries(
            {
                "model": st.just("sarm"),
                "edits": st.lists(st.integers(0, 99), unique=True, max_size=3).map(
                    lambda ids: [{"latent": i, "max": 1.5} for i in ids]
                ),
                "penalties": st.dictionaries(st.integers(0, 9), numbers, max_size=2).map(
                    lambda pairs: [{"latent": i, "tau": "q0.9", "alpha": a} for i, a in pairs.items()]
                ),
            }
        ),
        "data": st.just({"prompts": "p.jsonl", "exclude": ["a.jsonl"]}),
        "training": st.fixed_dictionaries({"learning_rate": numbers, "seed": st.integers(0, 2**31)}),
    }
)


@settings(deadline=None, max_examples=30)
@given(values=configs)
def test_what_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    config = validate(Document(values))
    folder = tmp_path_factory.getbasetemp()
    assert load(folder, dump_yaml(config.to_dict())) == config
    assert RunConfig.model_validate(config.to_dict()) == config


def test_settings_cannot_be_changed_in_place(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        config.training.steps = 3
    assert config.training.steps == 20


def test_there_are_fewer_than_eighty_keys_and_all_are_documented() -> None:
    schema = RunConfig.model_json_schema()
    objects = [schema, *schema["$defs"].values()]
    described = [(name, value) for item in objects for name, value in item.get("properties", {}).items()]
    assert len(described) - len(schema["properties"]) < 80, "beside the headings of the sections"
    assert len(every_key()) > 30
    undocumented = [name for name, value in described if not (value.get("description") or "$ref" in value)]
    assert undocumented == []


@pytest.mark.long
def test_the_configuration_loads_without_torch() -> None:
    code = "import sys, sarm_control.training.config.validation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_shipped_yaml_is_a_configuration(path: Path) -> None:
    if path.parent.name in ("accelerate", "cluster"):
        # of accelerate and Ray Serve: not ours, but they have to be YAML
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
        return
    if path.name == "study.yaml":
        load_study(path)
        return
    config = load_config(path)
    assert RunConfig.model_validate(config.to_dict()) == config


def test_the_file_to_start_from_is_short() -> None:
    path = next(path for path in EXAMPLES if path.name == "minimal.yaml")
    assert len(path.read_text().splitlines()) < 15


def test_what_occurs_twice_is_written_out_twice_since_the_reader_knows_no_anchors(tmp_path: Path) -> None:
    twice = [0, 1]
    written = write(tmp_path, dump_yaml({"one": twice, "two": {"again": twice}}))
    assert read_document(written).values == {"one": [0, 1], "two": {"again": [0, 1]}}
