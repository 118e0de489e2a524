"""`sarm latents`: the same bytes however it is run and whatever happens to it (metamorphic), and bad input.

Real runs in the embedded world.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from sarm_control.cli import main
from sarm_control.data.rows import read_rows
from sarm_control.embedded import world_folder
from sarm_control.latents import HumanBuffer, read_latents
from sarm_control.reward_model import RewardModel
from tests.latents.folders import bytes_of

SHARD = ["--shard-size", "10"]
NO_PARROTS = (
    "{% for message in messages %}{% if message['role'] == 'parrot' %}"
    "{{ raise_exception('a parrot speaks') }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 64 answers, 30 pairs, and the latents of the answers in shards of 10 rows."""
    folder = tmp_path_factory.mktemp("latents")
    for name, count in (("human", 64), ("audit", 30)):
        lines = [json.dumps(row.raw) for row in read_rows(f"lab:{name}", want={"answer", "pair"})[:count]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["latents", str(folder / "human.jsonl"), "-o", str(folder / "human"), *SHARD]) == 0
    assert main(["latents", str(folder / "audit.jsonl"), "-o", str(folder / "audit")]) == 0
    return folder


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, bytes]:
    return bytes_of(place / "human")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "sarm_control", *map(str, words)]


def wait_for(ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the folder ---


def test_the_folder_holds_what_the_model_says(place: Path, expected: dict[str, bytes]) -> None:
    rows, scored = read_latents(place / "human")
    direct = RewardModel.from_pretrained("lab").score([r.prompt for r in rows], [r.answers[0] for r in rows])
    np.testing.assert_allclose(scored.rewards, direct.rewards, atol=1e-5)
    np.testing.assert_allclose(
        scored.latents.columns(range(24)), direct.latents.columns(range(24)), atol=1e-5
    )
    np.testing.assert_array_equal(scored.lengths, direct.lengths)
    np.testing.assert_array_equal(scored.head, direct.head)
    assert [r.raw for r in rows] == [r.raw for r in read_rows(place / "human.jsonl", want={"answer"})]
    shards = {f"{kind}-{shard:05d}.parquet" for kind in ("rows", "answers") for shard in range(7)}
    assert set(expected) == {"manifest.json", "head.safetensors", *shards}


@pytest.mark.minutes
def test_two_killed_workers_leave_nothing_behind_and_resume_to_the_bytes_of_one_process(
    place: Path, expected: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"
    words = ["latents", place / "human.jsonl", "-o", out, *SHARD]
    process = subprocess.Popen(command(*words, "--workers", 2), stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(out.glob(".progress/shard-*.json"))) >= 2, process)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < until, "workers outlived the run"
        time.sleep(0.05)
    assert not (out / "manifest.json").exists()
    assert main(["score", str(out)]) == 2
    assert "was not finished" in capsys.readouterr().err
    assert main([str(word) for word in words]) == 2
    assert "exists already\n  hint: go on with it with --resume" in capsys.readouterr().err
    assert main([*map(str, words), "--resume"]) == 0
    assert "shards are there already" in capsys.readouterr().err
    assert bytes_of(out) == expected


@pytest.mark.long
def test_an_interrupt_says_how_to_go_on(place: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    words = ["latents", place / "human.jsonl", "-o", out, *SHARD]
    process = subprocess.Popen(command(*words, "--batch-tokens", 1), stderr=subprocess.PIPE)
    wait_for(lambda: (out / ".progress/shard-00000.json").exists(), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"of 7 shards are done\n  go on with: the same command and --resume" in said
    assert main([*map(str, words), "--resume"]) == 0
    assert set(bytes_of(out)) == set(expected)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--nproc-per-node=2"],
        pytest.param(
            ["accelerate.commands.launch", "--num_processes=2", "--num_machines=1", "--cpu"],
            marks=pytest.mark.minutes,
        ),
    ],
)
def test_two_launched_processes_give_the_same_bytes(
    place: Path, expected: dict[str, bytes], tmp_path: Path, launcher: list[str]
) -> None:
    out = tmp_path / "launched"
    words = [
        sys.executable,
        "-m",
        *launcher,
        "-m",
        "sarm_control",
        "latents",
        str(place / "human.jsonl"),
        "-o",
        str(out),
        *SHARD,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("64 rows, 64 answers in 7 shards") == 1
    assert bytes_of(out) == expected


# --- in place of data ---


def test_score_needs_no_model(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["score", str(place / "audit.jsonl"), "-o", str(tmp_path / "a"), "--edit", "9=0"]) == 0
    monkeypatch.setattr(RewardModel, "from_pretrained", None)
    flags = ["--edit", "9=0", "--json", str(tmp_path / "json")]
    assert main(["score", str(place / "audit"), "-o", str(tmp_path / "b"), *flags]) == 0
    lines = [(tmp_path / name).read_text().splitlines() for name in "ab"]
    assert len(lines[0]) == 30
    for direct, stored in zip(*[map(json.loads, some) for some in lines], strict=True):
        assert direct["prompt"] == stored["prompt"]
        for one, other in zip(direct["chosen_scores"], stored["chosen_scores"], strict=True):
            assert one["reward"] == pytest.approx(other["reward"], abs=1e-5)
            assert one["edited_reward"] == pytest.approx(other["edited_reward"], abs=1e-5)
    assert json.loads((tmp_path / "json").read_text())["model"] == "lab"


@pytest.mark.long
def test_discover_needs_no_model(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RewardModel, "from_pretrained", None)
    flags = ["--min-prompts", "2", "--json", str(tmp_path / "found.json")]
    assert main(["discover", str(place / "audit"), "-o", str(tmp_path / "found"), *flags]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["model"] == "lab"
    assert found["selection"]["prompts"] + found["confirmation"]["prompts"] > 20


def test_another_model_than_the_folder_s_is_refused(
    place: Path, tiny_sarm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["score", place / "audit", "--model", tiny_sarm_folder],
        [
            "discover",
            place / "audit",
            "--confirm",
            "lab:audit",
            "--model",
            tiny_sarm_folder,
            "-o",
            tmp_path / "x",
        ],
    ):
        assert main([str(word) for word in words]) == 2
        assert "their latents have other meanings" in capsys.readouterr().err
    assert main(["score", str(place / "audit"), "--model", "lab", "-o", str(tmp_path / "y")]) == 0


def test_rows_of_another_kind_are_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["discover", str(place / "human"), "-o", str(tmp_path / "x")]) == 2
    assert "human.jsonl:1 has kind answer, this wants pair" in capsys.readouterr().err


@pytest.mark.long
def test_chosen_latents_serve_what_needs_no_others(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, scores = tmp_path / "some", tmp_path / "scores"
    whole = read_latents(place / "human").scored
    fire = np.flatnonzero((whole.latents.columns(range(24)) > 0).any(axis=0))
    low, high = int(fire[0]), int(fire[-1])
    assert main(["latents", str(place / "human.jsonl"), "-o", str(out), "--latents", f"{high}, {low}"]) == 0
    table = pq.read_table(out / "answers-00000.parquet").to_pydict()
    assert {latent for row in table["indices"] for latent in row} == {low, high}
    assert main(["score", str(out)]) == 2
    assert "holds 2 chosen latents, and this needs all of them" in capsys.readouterr().err
    assert main(["score", str(out), "-o", str(scores), "--top", "0", "--edit", f"{high}=0"]) == 0
    edited = [json.loads(line)["edited_reward"] for line in scores.read_text().splitlines()]
    expected = whole.rewards - whole.latents.columns([high])[:, 0] * whole.head[high]
    np.testing.assert_allclose(edited, expected, atol=1e-5)


# --- the human buffer ---


@pytest.mark.long
def test_a_human_buffer_is_the_same_from_rows_and_from_latents(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from_rows, from_folder = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    flags = ["--as-human", "--disjoint-from", "lab:held_out_prompts"]
    assert main(["latents", str(place / "human.jsonl"), "-o", str(from_rows), *flags]) == 0
    said = capsys.readouterr().err
    assert main(["latents", str(place / "human"), "-o", str(from_folder), *flags]) == 0
    one, other = HumanBuffer.load(from_rows), HumanBuffer.load(from_folder)
    assert (one.latents, one.fingerprint) == (other.latents, other.fingerprint)
    np.testing.assert_allclose(one.values, other.values, atol=1e-5)
    whole = read_latents(place / "human").scored.latents.columns(range(24)) > 0
    width = len(one.latents)
    firing = f"{width} of {width} chosen latents fire in them, {int(whole.any(axis=0).sum())} of all 24"
    assert f"a.safetensors: 64 demonstrations; {firing}" in said
    record = json.loads((tmp_path / "a.safetensors.manifest.json").read_text())
    assert record["config"]["latents"] == list(one.latents)
    assert record["config"]["coverage"]["latents"] == 24
    assert set(record["inputs"]) == {"human.jsonl", "lab:held_out_prompts"}


def test_latents_that_no_demonstration_fires_are_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = (read_latents(place / "human").scored.latents.columns(range(24)) > 0).mean(axis=0)
    never, sometimes = int(np.flatnonzero(rates == 0)[0]), int(np.argmin(abs(rates - 0.5)))
    out, only = tmp_path / "h.safetensors", f"{never},{sometimes}"
    assert main(["latents", str(place / "human"), "--as-human", "--latents", only, "-o", str(out)]) == 0
    assert HumanBuffer.load(out).latents == (never, sometimes)
    said = capsys.readouterr().err
    assert "1 of 2 chosen latents fire in them" in said
    assert f"warning: 1 of 2 latents never fire in the human buffer: {never}" in said


def test_demonstrations_of_evaluation_prompts_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "eval.jsonl"
    prompts = [row.prompt for row in read_rows(place / "human.jsonl", want={"answer"})]
    other.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ["else ?", *prompts[4:9]]))
    flags = ["--as-human", "-o", str(tmp_path / "h.safetensors"), "--disjoint-from", "lab:audit", str(other)]
    assert main(["latents", str(place / "human.jsonl"), *flags]) == 2
    said = capsys.readouterr().err
    assert "prompts are in" in said
    assert "eval.jsonl too: " in said or "lab:audit too: " in said
    assert "has the prompt of" in said
    assert not (tmp_path / "h.safetensors").exists()


# --- bad input ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--latents", "99"], "latent 99 does not exist"),
        (["--latents", "3,3"], "--latents names latent 3 twice"),
        (["--latents", "three"], "--latents three: neither numbers nor a features file"),
        (["--latents", "none.json#harms"], "none.json: No such file or directory"),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["--disjoint-from", "lab:audit"], "--disjoint-from is of use with --as-human only"),
        (["--as-human", "--resume"], "--resume is of no use with --as-human"),
        (["--states", "--latents", "3"], "--states is of no use with --latents"),
        (["--as-human"], "a human buffer is a .safetensors file"),
        (["--shard-size", "0"], "--shard-size: must be >= 1"),
        (["--engine", "spark"], "--engine"),
        (["--model", "no/such/folder/here"], "model folder no/such/folder/here does not exist"),
        (["--json", "lab/manifest.json/x"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: list[str],
    message: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "manifest.json").touch()
    assert main(["latents", str(place / "human.jsonl"), "-o", "out", *words]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "out").exists()


def test_other_settings_on_resume_are_refused_with_the_difference(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bytes_of(place / "human")
    words = [
        "latents",
        str(place / "audit.jsonl"),
        "-o",
        str(place / "human"),
        "--resume",
        "--max-length",
        "40",
    ]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "was begun with other settings: inputs: human.jsonl was " in said
    assert "config: max_length was None, is 40" in said
    assert bytes_of(place / "human") == before


@pytest.mark.long
def test_another_trunk_under_an_equal_head_is_refused(
    place: Path, tiny_sarm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (tmp_path / name / "model" for name in ("one", "other"))
    for folder in (one, other):
        shutil.copytree(tiny_sarm_folder, folder)
    tensors = load_file(other / "model.safetensors")
    tensors["sae.encoder.weight"] *= 2
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    data, out = str(place / "human.jsonl"), str(tmp_path / "latents")
    assert main(["latents", data, "--model", str(one), "-o", out]) == 0
    assert main(["latents", data, "--model", str(other), "-o", out, "--resume"]) == 2
    assert "was begun with other settings: config: model_fingerprint was " in capsys.readouterr().err
    assert main(["score", out, "--model", str(other), "-o", str(tmp_path / "scores")]) == 2
    assert "the heads are equal, trunk or autoencoder are not" in capsys.readouterr().err
    assert main(["score", out, "--model", str(one), "-o", str(tmp_path / "scores")]) == 0
    assert main(["latents", out, "--as-human", "-o", str(tmp_path / "human.safetensors")]) == 0
    known = HumanBuffer.load(tmp_path / "human.safetensors").model_fingerprint
    assert (
        known == json.loads((tmp_path / "latents/manifest.json").read_text())["config"]["model_fingerprint"]
    )


def test_a_folder_as_data_and_an_output_over_an_input_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["latents", str(place / "human"), "-o", str(place / "new")]) == 2
    assert "is a folder\n  hint: sarm latents reads files of answers" in capsys.readouterr().err
    data = str(place / "human.jsonl")
    assert main(["latents", data, "-o", data, "--overwrite"]) == 2
    assert "is an input too" in capsys.readouterr().err
    assert main(["latents", "--model", "M", "-o", str(place / "new")]) == 2
    assert "no data file was given" in capsys.readouterr().err


@pytest.mark.long
def test_overwrite_removes_latents_and_nothing_else(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").touch()
    words = ["latents", str(place / "audit.jsonl"), "-o"]
    assert main([*words, str(tmp_path / "thesis"), "--overwrite"]) == 2
    assert "is not a folder of latents" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "new"), "--latents", "3"]) == 0
    assert main([*words, str(tmp_path / "new"), "--overwrite"]) == 0
    assert bytes_of(tmp_path / "new") == bytes_of(place / "audit")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_row_the_template_refuses_is_named_and_gives_the_name_back(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, model = tmp_path / "data.jsonl", tmp_path / "out", tmp_path / "strict"
    shutil.copytree(world_folder() / "sarm", model)
    template = model / "chat_template.jinja"
    template.write_text(NO_PARROTS + template.read_text())
    good = {"prompt": "how do i bake a cake ?", "response": "first mix the flour ."}
    bad = {"prompt": [{"role": "parrot", "content": "hello"}], "response": "hello"}
    data.write_text("".join(json.dumps(row) + "\n" for row in (bad, good)))
    assert main(["latents", str(data), "--model", str(model), "-o", str(out), "--workers", workers]) == 2
    assert "data.jsonl:1: " in capsys.readouterr().err
    assert not out.exists()
