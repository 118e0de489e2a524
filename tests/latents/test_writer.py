"""A folder being made: whatever is lost or damaged on the way, it ends with the same bytes (metamorphic)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sarm_control.errors import ConfigError, DataError, OutputError
from sarm_control.latents.manifest import mark_of
from sarm_control.latents.rows import ScoredRows
from sarm_control.latents.shard import encode_shard
from sarm_control.latents.writer import LatentsWriter, check_same, set_latents_aside
from tests.latents.folders import NAME, about, bytes_of, make_rows, make_scores, write_folder

SHARDS = 3


@pytest.fixture(scope="module")
def found() -> ScoredRows:
    rows = make_rows(9)
    return ScoredRows(rows, make_scores(rows))


@pytest.fixture(scope="module")
def expected(found: ScoredRows, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return bytes_of(write_folder(tmp_path_factory.mktemp("latents") / "whole", found, shard_rows=3))


def put(writer: LatentsWriter, found: ScoredRows, shard: int) -> None:
    rows = found.rows[3 * shard : 3 * shard + 3]
    start = sum(len(row.answers) for row in found.rows[: 3 * shard])
    count = sum(len(row.answers) for row in rows)
    part = ScoredRows(rows, found.scored.take(np.arange(start, start + count)))
    data = encode_shard(part, first=3 * shard, names={NAME: str(NAME)}, mark=mark_of(writer.about))
    writer.put(shard, data, rows=len(rows), answers=count)


def finish(writer: LatentsWriter, found: ScoredRows) -> dict[str, bytes]:
    for shard in writer.missing():
        put(writer, found, shard)
    writer.finish()
    return bytes_of(writer.path)


@pytest.fixture
def begun(found: ScoredRows, tmp_path: Path) -> LatentsWriter:
    """A folder in which shards 0 and 2 are done, as if killed in the middle of shard 1."""
    writer = LatentsWriter(tmp_path / "folder", about(found), SHARDS)
    writer.start(found.scored.head)
    put(writer, found, 0)
    put(writer, found, 2)
    (writer.path / ".progress" / "answers-00001.parquet.7.part").write_bytes(b"half")
    (writer.path / "rows-00001.parquet").write_bytes(b"no record yet")
    return writer


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    begun: LatentsWriter, found: ScoredRows, expected: dict[str, bytes]
) -> None:
    again = LatentsWriter(begun.path, begun.about, SHARDS)
    assert again.resume(found.scored.head) == []
    assert again.missing() == [1]
    assert finish(again, found) == expected


def test_shards_may_come_in_any_order(
    begun: LatentsWriter, found: ScoredRows, expected: dict[str, bytes], tmp_path: Path
) -> None:
    writer = LatentsWriter(tmp_path / "other", begun.about, SHARDS)
    writer.start(found.scored.head)
    for shard in (2, 0, 1):
        put(writer, found, shard)
    writer.finish()
    assert bytes_of(writer.path) == expected


def test_a_shard_damaged_meanwhile_is_named_and_made_again(
    begun: LatentsWriter, found: ScoredRows, expected: dict[str, bytes]
) -> None:
    path = begun.path / "answers-00002.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    (begun.path / "rows-00000.parquet").unlink()
    said = begun.resume(found.scored.head)
    assert ["rows-00000.parquet is missing" in said[0], "answers-00002.parquet is cut" in said[1]] == [
        True,
        True,
    ]
    assert begun.missing() == [0, 1, 2]
    assert finish(begun, found) == expected


def test_a_finished_folder_is_left_as_it_is_and_repaired_where_damaged(
    begun: LatentsWriter, found: ScoredRows, expected: dict[str, bytes]
) -> None:
    finish(begun, found)
    assert begun.resume(found.scored.head) == []
    assert begun.missing() == []
    assert (begun.path / "manifest.json").is_file()
    assert finish(begun, found) == expected
    path = begun.path / "answers-00001.parquet"
    path.write_bytes(path.read_bytes()[::-1])
    assert "answers-00001.parquet was altered" in begun.resume(found.scored.head)[0]
    assert not (begun.path / "manifest.json").exists()
    assert finish(begun, found) == expected


@pytest.mark.parametrize("left", [(), (".progress",), (".progress", "head.safetensors")])
def test_a_run_killed_at_its_very_beginning_starts_again(
    begun: LatentsWriter, found: ScoredRows, expected: dict[str, bytes], left: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "early"
    folder.mkdir()
    if ".progress" in left:
        (folder / ".progress").mkdir()
    if "head.safetensors" in left:
        (folder / "head.safetensors").write_bytes(b"half")
    writer = LatentsWriter(folder, begun.about, SHARDS)
    assert writer.resume(found.scored.head) == []
    assert finish(writer, found) == expected


def test_another_plan_is_refused_with_the_difference(begun: LatentsWriter, found: ScoredRows) -> None:
    other = LatentsWriter(begun.path, about(found, [1, 2], dtype="bfloat16"), SHARDS)
    with pytest.raises(
        ConfigError,
        match=r"was begun with other settings: config: chosen was None, is \[1, 2\]; config: dtype",
    ):
        other.resume(found.scored.head)
    finish(begun, found)
    with pytest.raises(ConfigError, match="was begun with other settings"):
        other.resume(found.scored.head)


def test_another_model_with_an_equal_head_is_refused(begun: LatentsWriter, found: ScoredRows) -> None:
    of = [LatentsWriter(begun.path, about(found, model_fingerprint=model), SHARDS) for model in "ab"]
    set_latents_aside(begun.path)
    of[0].start(found.scored.head)
    with pytest.raises(
        ConfigError, match="was begun with other settings: config: model_fingerprint was a, is b"
    ):
        of[1].resume(found.scored.head)


def test_a_finished_folder_whose_manifest_lacks_a_file_is_not_gone_on_with(
    begun: LatentsWriter, found: ScoredRows
) -> None:
    finish(begun, found)
    said = json.loads((begun.path / "manifest.json").read_text())
    del said["files"]["answers-00001.parquet"]
    (begun.path / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(
        DataError, match=r"manifest\.json is damaged: it does not name answers-00001\.parquet"
    ):
        begun.resume(found.scored.head)


def test_differences_are_counted_when_they_are_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a was 0, is 1; .* and 2 more"):
        check_same(tmp_path, dict.fromkeys("abcdef", 0), dict.fromkeys("abcdef", 1))


def test_what_is_there_is_not_written_over(begun: LatentsWriter, found: ScoredRows, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder exists already"):
        begun.start(found.scored.head)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    with pytest.raises(OutputError, match="mine exists already"):
        LatentsWriter(mine, begun.about, SHARDS).resume(found.scored.head)
    with pytest.raises(OutputError, match="mine exists and is not a folder of latents"):
        set_latents_aside(mine)
    assert (mine / "thesis.tex").exists()
    set_latents_aside(begun.path)
    assert not begun.path.exists()
    shutil.rmtree(mine)
    set_latents_aside(mine)


def test_a_finished_folder_is_kept_until_the_one_that_replaces_it_is_done(
    begun: LatentsWriter, found: ScoredRows
) -> None:
    finished = finish(begun, found)
    set_latents_aside(begun.path)
    begun.start(found.scored.head)
    assert begun.discard_if_empty()
    assert (begun.path / "manifest.json").is_file()
    set_latents_aside(begun.path)
    begun.start(found.scored.head)
    # a second start over, after the first was killed, does not lose the finished one
    set_latents_aside(begun.path)
    begun.start(found.scored.head)
    waiting = begun.path.with_name(f".{begun.path.name}.replaced")
    assert (waiting / "manifest.json").is_file()
    assert finish(begun, found) == finished
    assert [path.name for path in begun.path.parent.iterdir()] == [begun.path.name]
