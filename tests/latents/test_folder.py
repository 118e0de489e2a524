"""Latents folders: an exact round trip (golden), size at k = 192, and damage that is named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.errors import ConfigError, DataError
from sarm_control.files import sha256_file
from sarm_control.latents import LatentsFolder, is_latents, read_latents
from sarm_control.latents.rows import ScoredRows, roles
from sarm_control.latents.shard import Head, decode_answers, encode_shard
from sarm_control.reward_model.scored import Scored
from sarm_control.reward_model.sparse import SparseLatents
from tests.latents.folders import NAME, bytes_of, make_rows, make_scores, write_folder


@pytest.fixture(scope="module")
def found() -> ScoredRows:
    rows = make_rows(10)
    return ScoredRows(rows, make_scores(rows))


@pytest.fixture(scope="module")
def whole(found: ScoredRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("latents") / "whole", found)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "folder"))


def assert_same_scores(one: Scored, other: Scored) -> None:
    for name in ("rewards", "head", "truncated", "ended", "lengths"):
        before, after = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
    for name in ("indptr", "indices", "values"):
        before, after = getattr(one.latents, name), getattr(other.latents, name)
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
    assert (one.latents.size, one.fingerprint) == (other.latents.size, other.fingerprint)


WITHOUT_PANDAS = """
import importlib.abc, pathlib, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(f"no {name} here", name=name)

sys.meta_path.insert(0, Absent())
from sarm_control.latents import read_latents
from sarm_control.latents.rows import ScoredRows
from tests.latents.folders import make_rows, make_scores, write_folder

rows = make_rows(10)
folder = write_folder(pathlib.Path(sys.argv[1]), ScoredRows(rows, make_scores(rows)))
assert read_latents(folder).rows == rows
"""


@pytest.mark.long
def test_a_folder_is_written_and_read_without_pandas(whole: Path, tmp_path: Path) -> None:
    """It is no requirement of ours, and older releases of pyarrow fall back on it."""
    root = Path(__file__).resolve().parents[2]
    target = tmp_path / "latents"
    subprocess.run([sys.executable, "-c", WITHOUT_PANDAS, str(target)], cwd=root, check=True)
    assert bytes_of(target) == bytes_of(whole)


WITHOUT_THREADS = """
import os, pathlib, sys
import pyarrow.parquet
from sarm_control.latents.shard import Head, decode_answers
from tests.latents.folders import make_rows, make_scores

head = make_scores(make_rows(10)).head
data = pathlib.Path(sys.argv[1]).read_bytes()
before = len(os.listdir("/proc/self/task"))
assert len(decode_answers(data, Head(head, "")))
assert len(os.listdir("/proc/self/task")) == before
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs the list of threads that Linux gives")
def test_reading_scores_starts_no_thread_that_outlives_it(whole: Path) -> None:
    """Arrow's threads held the bytes, and now and then a process ended by SIGABRT."""
    root = Path(__file__).resolve().parents[2]
    path = whole / "answers-00000.parquet"
    subprocess.run([sys.executable, "-c", WITHOUT_THREADS, str(path)], cwd=root, check=True)


def test_rows_and_scores_come_back_to_the_bit(found: ScoredRows, whole: Path) -> None:
    back = read_latents(whole)
    assert back.rows == found.rows
    assert_same_scores(found.scored, back.scored)
    for j in range(len(found.scored)):
        assert back.scored.contributions(j) == found.scored.contributions(j)


def test_states_come_back_to_the_bit_when_they_are_asked_for(found: ScoredRows, tmp_path: Path) -> None:
    states = np.random.default_rng(0).normal(size=(len(found.scored), 3)).astype(np.float32)
    folder = write_folder(
        tmp_path / "states", ScoredRows(found.rows, replace(found.scored, states=states)), states=True
    )
    np.testing.assert_array_equal(read_latents(folder, states=True).scored.states, states)
    assert read_latents(folder).scored.states is None
    assert_same_scores(found.scored, read_latents(folder).scored)


def test_shards_are_the_same_rows_in_the_same_order(found: ScoredRows, whole: Path) -> None:
    shards = list(LatentsFolder(whole).shards())
    assert [len(one.rows) for one in shards] == [4, 4, 2]
    assert [row for one in shards for row in one.rows] == found.rows
    np.testing.assert_array_equal(
        np.concatenate([one.scored.rewards for one in shards]), found.scored.rewards
    )


def test_others_read_the_tables_without_us(found: ScoredRows, whole: Path) -> None:
    table = pq.read_table([whole / f"answers-{shard:05d}.parquet" for shard in range(3)]).to_pydict()
    assert table["row"] == [number for number, row in enumerate(found.rows) for _ in row.answers]
    assert table["answer"] == [place for row in found.rows for place in range(len(row.answers))]
    assert table["role"] == [role for row in found.rows for role in roles(row)]
    indices, values = found.scored.latents.row(4)
    assert (table["indices"][4], table["values"][4]) == (indices.tolist(), values.tolist())
    rows = pq.read_table([whole / f"rows-{shard:05d}.parquet" for shard in range(3)]).to_pydict()
    assert [json.loads(text) for text in rows["json"]] == [row.raw for row in found.rows]
    assert (rows["file"][3], rows["line"][3], rows["kind"][3]) == ("data.jsonl", 4, "pair")


def test_the_manifest_says_what_is_there_and_no_clock_or_place(whole: Path, tmp_path: Path) -> None:
    said = json.loads((whole / "manifest.json").read_text())
    assert set(said["files"]) == {path.name for path in whole.iterdir()} - {"manifest.json"}
    for name, record in said["files"].items():
        assert record["sha256"] == sha256_file(whole / name)
        assert record["size"] == (whole / name).stat().st_size
    assert str(tmp_path.parent) not in json.dumps(said)


def test_equal_input_gives_equal_bytes(found: ScoredRows, whole: Path, tmp_path: Path) -> None:
    assert bytes_of(write_folder(tmp_path / "again", found)) == bytes_of(whole)


def test_at_k_192_an_answer_takes_at_most_1300_bytes() -> None:
    """Random values do not compress: real ones take no more."""
    rng = np.random.default_rng(0)
    n, size, k = 400, 65_536, 192
    rows = make_rows(3 * n)[2::3]
    pairs = [(rng.choice(size, k, replace=False), rng.normal(size=k)) for _ in range(n)]
    latents = SparseLatents.from_rows(pairs, size)
    scored = make_scores(rows, size=8, k=2)
    scored = Scored(
        **{**vars(scored), "latents": latents, "head": np.zeros(size, np.float32), "rewards": scored.rewards}
    )
    data = encode_shard(ScoredRows(rows, scored), first=0, names={NAME: "data.jsonl"})
    assert k * 4 < len(data.answers) / n < 1300 < 4 * size
    assert_same_scores(scored, decode_answers(data.answers, Head(scored.head, scored.fingerprint)))


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    size=st.sampled_from([5, 65_536, 65_537, 200_000]),
    seed=st.integers(0, 9),
)
def test_any_number_of_stored_pairs_survives(counts: list[int], size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = make_rows(3 * len(counts))[2::3]
    pairs = [(rng.choice(size, count, replace=False), rng.normal(size=count)) for count in counts]
    scored = make_scores(rows, size=8, k=2)
    head = np.zeros(size, np.float32)
    scored = Scored(**{**vars(scored), "latents": SparseLatents.from_rows(pairs, size), "head": head})
    data = encode_shard(ScoredRows(rows, scored), first=0, names={NAME: "data.jsonl"})
    assert_same_scores(scored, decode_answers(data.answers, Head(head, scored.fingerprint)))


def test_chosen_latents_alone_are_kept_and_rewards_stay_whole(found: ScoredRows, tmp_path: Path) -> None:
    chosen = (2, 7, 11)
    folder = write_folder(tmp_path / "some", found, chosen=chosen)
    back = read_latents(folder, latents=[11, 2]).scored
    np.testing.assert_array_equal(back.latents.columns(chosen), found.scored.latents.columns(chosen))
    assert set(back.latents.indices.tolist()) <= set(chosen)
    np.testing.assert_array_equal(back.rewards, found.scored.rewards)
    with pytest.raises(ConfigError, match="holds 3 chosen latents, and this needs all of them"):
        read_latents(folder)
    with pytest.raises(ConfigError, match="holds 3 chosen latents, 5 is not among them"):
        read_latents(folder, latents=[2, 5])


def test_only_latents_folders_are_taken_for_such(whole: Path, tmp_path: Path) -> None:
    assert is_latents(whole)
    assert not is_latents(tmp_path)
    assert not is_latents(tmp_path / "none")
    (tmp_path / "manifest.json").write_text('{"command": "build"}')
    assert not is_latents(tmp_path)
    with pytest.raises(DataError, match="is a folder, but not one of latents"):
        read_latents(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["answers-00001.parquet", "rows-00002.parquet", "head.safetensors"])
@pytest.mark.parametrize(
    ("damage", "message"), [(Path.unlink, "is missing"), (cut, "is cut: "), (alter, "was altered: ")]
)
def test_a_file_that_is_missing_cut_or_altered_is_named(
    folder: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder / name)
    with pytest.raises(DataError, match=f"{name} {message}"):
        read_latents(folder)


def test_a_shard_of_another_run_is_told_from_an_altered_one(
    found: ScoredRows, folder: Path, tmp_path: Path
) -> None:
    other = write_folder(
        tmp_path / "other", ScoredRows(found.rows, make_scores(found.rows, seed=1)), note="x"
    )
    shutil.copy(other / "answers-00001.parquet", folder)
    with pytest.raises(DataError, match=r"answers-00001\.parquet is a shard of another run"):
        read_latents(folder)


def test_a_manifest_that_is_no_manifest_is_named(folder: Path) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    for broken in ({**said, "files": 3}, {**said, "config": {}}):
        (folder / "manifest.json").write_text(json.dumps(broken))
        with pytest.raises(DataError, match=r"manifest\.json is damaged"):
            read_latents(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: not JSON"):
        read_latents(folder)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (["answers-00001.parquet"], "it does not name answers-00001.parquet"),
        (["rows-00002.parquet"], "it does not name rows-00002.parquet"),
        (["rows-00000.parquet", "answers-00000.parquet"], "it does not name answers-00000.parquet"),
        (
            ["rows-00002.parquet", "answers-00002.parquet"],
            "hold 8 rows and 20 answers, but it counts 10 and 24",
        ),
        (["head.safetensors"], "it does not name"),
    ],
)
def test_a_manifest_that_lacks_a_file_is_damaged(folder: Path, lost: list[str], message: str) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    said["files"] = {name: record for name, record in said["files"].items() if name not in lost}
    (folder / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match=f"manifest.json is damaged: .*({message})"):
        read_latents(folder)


def test_the_model_a_folder_is_of_comes_back_with_its_scores(found: ScoredRows, tmp_path: Path) -> None:
    known = read_latents(write_folder(tmp_path / "known", found, model_fingerprint="model-a")).scored
    assert known.take(np.arange(2)).model_fingerprint == "model-a"
    assert Scored.concatenate([known, known]).model_fingerprint == "model-a"
    assert Scored.concatenate([known, found.scored]).model_fingerprint is None


def test_a_folder_that_was_not_finished_says_how_to_finish_it(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / ".progress").mkdir()
    with pytest.raises(DataError, match="was not finished") as caught:
        read_latents(folder)
    assert "--resume" in (caught.value.hint or "")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_latent_that_is_nan_is_refused_naming_the_row(found: ScoredRows, bad: float) -> None:
    values = found.scored.latents.values.copy()
    values[found.scored.latents.indptr[7]] = bad  # the first answer of the fourth row
    latents = SparseLatents(
        found.scored.latents.indptr, found.scored.latents.indices, values, found.scored.latents.size
    )
    broken = Scored(**{**vars(found.scored), "latents": latents})
    with pytest.raises(DataError, match=r"data\.jsonl:4: the model gave a latent or reward that is NaN"):
        encode_shard(ScoredRows(found.rows, broken), first=0, names={NAME: "data.jsonl"})
