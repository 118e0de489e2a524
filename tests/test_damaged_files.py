"""Property: whatever is done to a file that is read, what comes out is one of our errors, of bounded length.

Each kind of file is written by the code that writes it, then damaged at random: cut, bytes flipped, values
of other types put in the place of others, keys removed, 200,000 brackets, 5,000 digits.
"""

import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sarm_control.bounded_json import BadJson, parse_json, read_json, read_json_object, shown
from sarm_control.bounded_yaml import yaml_of
from sarm_control.build.states.texts import read_pairs
from sarm_control.cli import main
from sarm_control.comparison.trained_run import TrainedRun
from sarm_control.control import Edit, Penalty, save_edits
from sarm_control.control.edits.edit_files import read_edit_file
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.control.state import ControlState
from sarm_control.data.rows import read_rows
from sarm_control.discovery.features import load_features
from sarm_control.discovery.labels.reply_cache import Replies
from sarm_control.embedded import data_file, world_folder
from sarm_control.engines.reward.learnt_state import keep_state, load_state_file
from sarm_control.errors import LONGEST_MESSAGE, DataError, SarmError
from sarm_control.evaluation.benchmarks.data import local_rows
from sarm_control.evaluation.recorded.verification import read_recorded
from sarm_control.files import write_json
from sarm_control.lab.world import World
from sarm_control.latents.folder import read_latents
from sarm_control.latents.human import HumanBuffer
from sarm_control.latents.manifest import read_manifest
from sarm_control.latents.writer import LatentsWriter
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.config.validation import load_config
from sarm_control.training.run.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from sarm_control.training.run.run_folder import finished_step, start_run
from tests.discovery.test_features import FEATURES

DEEP, LONG = "@@deep@@", "@@long@@"
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 2**70, 10**90, 1e308, -0.5, "", "x", "x" * 9000, "\ud800", "\x00", [], {}, [[]],
    [None], {"a": None}, [1, 2, 3], {"latent": 1}, {"edit": 3}, DEEP, LONG,
]  # fmt: skip


class Target(NamedTuple):
    """A file and what reads it."""

    path: Path
    read: Callable[[Path], Any]


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every value in JSON data, the whole first."""
    found = [here]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        found += places(child, (*here, key))
    return found


def swapped(value: Any, where: tuple[Any, ...], new: Any) -> Any:
    """The data with another value at a place; `...` takes the place away."""
    if not where:
        return None if new is ... else new
    value = copy.deepcopy(value)
    parent = value
    for key in where[:-1]:
        parent = parent[key]
    if new is ...:
        del parent[where[-1]]
    else:
        parent[where[-1]] = new
    return value


def as_text(value: Any) -> str:
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 200_000 + "]" * 200_000).replace(f'"{LONG}"', "9" * 5000)


@st.composite
def damage(draw: st.DrawFn, whole: bytes, parse: Callable[[bytes], Any] | None) -> bytes:
    """A damaged version of a file."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", *(["swap"] * 6 if parse else [])]))
    place = draw(st.integers(0, max(len(whole) - 1, 0)))
    if kind == "cut":
        return whole[:place]
    if kind == "flip":
        changed = bytearray(whole)
        changed[place] ^= draw(st.integers(1, 255))
        return bytes(changed)
    if kind == "insert":
        more = draw(st.sampled_from([b"\x00", b"[" * 200_000, b"9" * 5000, b"\xff", b"NaN", b"1e999", b"\n"]))
        return whole[:place] + more + whole[place:]
    assert parse is not None
    value = parse(whole)
    for _ in range(draw(st.integers(1, 2))):
        where = draw(st.sampled_from(places(value)))
        value = swapped(value, where, draw(st.sampled_from([*HOSTILE, ...])))
    return as_text(value).encode()


def hold_up(target: Target, data: bytes) -> None:
    """The reader reads it or says in a line why not."""
    whole = target.path.read_bytes()
    target.path.write_bytes(data)
    try:
        target.read(target.path)
    except SarmError as error:
        said = str(error)
        assert 0 < len(said) <= LONGEST_MESSAGE + 100
        said.encode("utf-8", errors="surrogatepass")
    finally:
        target.path.write_bytes(whole)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    save_edits(folder / "edits.json", [Edit(3, max=1.0), Edit(5, scale=0.5)], fingerprint="abc", model="m")
    (folder / "steering.json").write_text('{"16720": ["*", 2], "5": ["+", 1]}')
    controls = {
        "fingerprint": "abc",
        "edits": [{"latent": 9, "max": 2.0}, "5=0"],
        "penalties": [{"latent": 3, "tau": 1.0, "alpha": "0.5sd"}],
        "human_kl": {"beta": 0.1},
    }
    (folder / "controls.json").write_text(json.dumps({"reward": controls}))
    (folder / "controls.yaml").write_text(yaml.safe_dump({"reward": controls}))
    settings_ = {"data": {"prompts": "p.jsonl"}, "reward": controls, "training": {"steps": 3}}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings_))
    FEATURES.save(folder / "features.json")
    statistics = ReferenceStatistics(3, 0.5, 1.5, "abc", {3: (0.0, 0.1, 0.7)})
    statistics.save(folder / "reference.json")
    asked = {"asked": "0" * 64, "reply": "yes", "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    (folder / "replies.jsonl").write_text(json.dumps(asked) + "\n")
    rows = [
        {
            "prompt": "a",
            "response": "b",
            "reward": 0.5,
            "reward_steered": 0.2,
            "active_steered_latents": [3],
        },
        {"prompt": "a", "chosen": ["b"], "rejected": "c"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    for name, row in zip(("answer", "pair", "messages"), rows, strict=True):
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "benchmark.json").write_text(json.dumps(rows[:1]))
    HumanBuffer((1, 4), np.arange(16, dtype=np.float32).reshape(8, 2), "abc").save(
        folder / "human.safetensors"
    )
    shutil.copytree(world_folder(), folder / "world")
    config = RunConfig.model_validate({"data": {"prompts": data_file(Path("lab:train_prompts"))}})
    start_run(folder / "run", config, inputs=[folder / "pair.jsonl"])
    save_checkpoint(folder / "run", 1, {"policy": {"a": np.ones(3)}}, {"reward": {"statistics": None}})
    (folder / "run/metrics.jsonl").write_text('{"step": 1, "reward/model": 0.5, "objective/kl": null}\n')
    keep_state(folder / "learnt.safetensors", _learner(), 2)
    few = folder / "few.jsonl"
    few.write_text("".join(data_file(Path("lab:audit")).read_text().splitlines(keepends=True)[:2]))
    assert main(["--quiet", "latents", str(few), "--shard-size", "1", "-o", str(folder / "latents")]) == 0
    found = read_manifest(folder / "latents")
    write_json(folder / "plan.json", found.about)
    files = [found.files[name].as_json() for name in ("rows-00000.parquet", "answers-00000.parquet")]
    write_json(folder / "record.json", files)
    return folder


def _copy(folder: Path) -> Path:
    """Resuming sets things aside and mends others: each example has a run of its own."""
    copied = folder.with_name("copy")
    shutil.rmtree(copied, ignore_errors=True)
    return shutil.copytree(folder, copied)


def _resume(folder: Path) -> None:
    run = _copy(folder)
    start_run(run, load_config(run / "config.yaml"), resume=True)
    finished_step(run)


def _state(folder: Path) -> None:
    """The state of a checkpoint, with the hash of what it is now."""
    checkpoint = _copy(folder) / "checkpoints/step-000001"
    said = json.loads((checkpoint / "manifest.json").read_text())
    data = (checkpoint / "state.json").read_bytes()
    said["files"]["state.json"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (checkpoint / "manifest.json").write_text(json.dumps(said))
    load_checkpoint(checkpoint)


def _learner() -> ControlState:
    return ControlState(targets=[Penalty(4, tau=0.1, target_rate=0.2)])


def _curves(run: Path) -> None:
    unread: Any = None  # curves come from the metrics alone
    TrainedRun(run, unread, "no control", unread, unread).curves()


def _metrics(path: Path) -> None:
    _curves(path.parent)
    _resume(path.parent)


def _kept_replies(path: Path) -> None:
    endpoint: Any = SimpleNamespace(model="m")
    Replies(endpoint, path)


def _going_on(folder: Path) -> None:
    """A latents folder that is finished, taken up again."""
    copied = _copy(folder)
    found = read_manifest(copied)
    LatentsWriter(copied, found.about, found.shards).resume(np.zeros(3, np.float32))


def _begun(folder: Path) -> None:
    """A latents folder that was begun: its plan and its records are what was damaged."""
    copied = _copy(folder)
    progress = copied / ".progress"
    progress.mkdir()
    found = read_manifest(copied)
    shutil.copy(folder.parent / "plan.json", progress / "plan.json")
    shutil.copy(folder.parent / "record.json", progress / "shard-00000.json")
    (copied / "manifest.json").unlink()
    LatentsWriter(copied, found.about, found.shards).resume(np.zeros(3, np.float32))


READERS: dict[str, Callable[[Path], Any]] = {
    "edits.json": read_edit_file,
    "steering.json": read_edit_file,
    "controls.json": read_edit_file,
    "controls.yaml": read_edit_file,
    "run.yaml": load_config,
    "features.json": lambda path: load_features(path, "abc123"),
    "reference.json": ReferenceStatistics.load,
    "replies.jsonl": _kept_replies,
    "answer.jsonl": read_recorded,
    "pair.jsonl": lambda path: read_pairs([path]),
    "messages.jsonl": lambda path: read_rows(path, want={"answer"}),
    "benchmark.json": lambda path: [read_rows(one, want={"pair"}) for one in local_rows(str(path), ())],
    "human.safetensors": HumanBuffer.load,
    "world/world.json": lambda path: World.open(str(path.parent)).language,
    "world/truth.json": lambda path: World.open(str(path.parent)).truth,
    "run/manifest.json": lambda path: _resume(path.parent),
    "run/config.yaml": lambda path: _resume(path.parent),
    "run/checkpoints/step-000001/manifest.json": lambda path: newest_checkpoint(path.parents[2]),
    "run/checkpoints/step-000001/state.json": lambda path: _state(path.parents[2]),
    "run/metrics.jsonl": _metrics,
    "learnt.safetensors": lambda path: load_state_file(path, _learner()),
    "plan.json": lambda path: _begun(path.parent / "latents"),
    "record.json": lambda path: _begun(path.parent / "latents"),
    "latents/manifest.json": lambda path: read_latents(path.parent),
    "latents/manifest.json again": lambda path: _going_on(path.parent),
    "latents/rows-00000.parquet": lambda path: read_latents(path.parent),
    "latents/head.safetensors": lambda path: read_latents(path.parent),
}


def _parse(name: str) -> Callable[[bytes], Any] | None:
    if name.endswith(".yaml"):
        return yaml.safe_load  # JSON is YAML
    return json.loads if name.endswith((".json", ".jsonl")) else None


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_property_a_damaged_file_is_one_of_our_errors(name: str, place: Path, data: st.DataObject) -> None:
    file = name.split()[0]
    target = Target(place / file, READERS[name])
    hold_up(target, data.draw(damage(target.path.read_bytes(), _parse(file))))


def test_brackets_digits_and_aliases_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"file\.json: not JSON: nested more than 100 deep$"):
        read_json(path)
    path.write_text('{"a": ' + "9" * 5000 + "}")
    with pytest.raises(DataError, match=r"file\.json: not JSON: a number of 5000 digits$"):
        read_json_object(path)
    path.write_text("[1]")
    with pytest.raises(DataError, match=r"file\.json: not a JSON object but a list of 1$"):
        read_json_object(path)
    with pytest.raises(DataError, match=r"file\.json: larger than 2 bytes, the most that is read$"):
        read_json(path, most_bytes=2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: not a file$"):
        read_json(tmp_path / "pipe")
    with pytest.raises(DataError, match=rf"{tmp_path}: not a file$"):
        read_json(tmp_path)
    laughs = "\n".join(
        ["a: &a [x, x, x, x, x, x, x, x, x]"]
        + [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(9)]
    )
    path = tmp_path / "laughs.yaml"
    path.write_text(laughs)
    message = r"laughs\.yaml:1: not YAML: anchors \(&\) and aliases \(\*\) are not supported; write the"
    with pytest.raises(DataError, match=message):
        yaml_of(path, path.read_text())
    with pytest.raises(SarmError, match=message):
        read_edit_file(path)
    path.write_text("a: " + "[" * 2000)
    with pytest.raises(DataError, match=r"laughs\.yaml:1: not YAML: nested more than 50 deep$"):
        yaml_of(path, path.read_text())
    path.write_text("a: " + "9" * 5000)
    with pytest.raises(DataError, match=r"laughs\.yaml:1: not YAML: a number of 5000 digits$"):
        yaml_of(path, path.read_text())


def test_a_controls_file_with_a_number_for_a_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "controls.json"
    for text, message in (
        ('{"penalties": 5}', "penalties is 5, it must be a list"),
        ('{"edits": "3=0"}', "edits is '3=0', it must be a list"),
        (
            '{"fingerprint": [1], "edits": []}',
            "fingerprint is a list of 1, it must be the fingerprint of a head",
        ),
    ):
        path.write_text(text)
        with pytest.raises(SarmError, match=re.escape(f"{path}: {message}")):
            read_edit_file(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_property_what_python_writes_is_read_back(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert len(shown(value)) < 70


@given(st.integers(1, 300), st.booleans())
def test_oracle_the_depth_is_counted_outside_of_strings(depth: int, quoted: bool) -> None:
    text = "[" * depth + json.dumps(']}[{\\"' if quoted else "x") + "]" * depth
    if depth <= 100:
        assert parse_json(text)
    else:
        with pytest.raises(BadJson, match="nested more than 100 deep"):
            parse_json(text)
