"""Data sets of the hub, streamed from a server on this machine that stands in the hub's place.

The clients read where the hub is when they are imported, so that each look is a process of its own.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sarm_control.data.files.places.hub import HubName, hub_name
from sarm_control.errors import DataError
from tests.data.hub_server import REVISION, rows, serve

LOOK = """
import json, sys
from pathlib import Path
from sarm_control.data import read_rows
from sarm_control.errors import SarmError
from sarm_control.files import manifest

found = []
for name, limit in json.loads(sys.argv[1]):
    try:
        given = read_rows(name, want={"pair"}, limit=limit)
        inputs = manifest("score", inputs=[Path(name)], config={})["inputs"]
        found.append({"rows": [row.raw for row in given], "where": given[-1].where, "inputs": list(inputs)})
    except SarmError as error:
        found.append({"error": str(error), "hint": error.hint})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = serve()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def look(home: Path, endpoint: str, *asked: tuple[str, int | None], **more: str) -> tuple[list[Any], str]:
    """What a process finds, and what it says; with another cache of the client's than before."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "client"),
        "XDG_CACHE_HOME": str(home / "cache"),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(asked)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.long
def test_a_stream_is_kept_by_revision_and_read_without_a_network(hub: str, home: Path) -> None:
    pytest.importorskip("datasets", reason='streaming needs the extra "data"')
    train = "hf:me/pairs/train"
    found, said = look(
        home, hub, (train, 5), (train, 3), ("hf:me/pairs/test", None), ("hf:me/pairs", 1),
        ("hf:me/pairs/x", 1), ("hf:me/none", 1), (f"{train}[:2]", None),
    )  # fmt: skip
    five, three, test, both, unknown, none, sliced = found
    assert five["rows"] == rows("train", 5)
    assert five["where"] == "hf:me/pairs/train: row 5"
    assert five["inputs"] == [f"hf:me/pairs@{REVISION}/train"]
    assert three["rows"] == rows("train", 3)
    assert test["rows"] == rows("test", 7)
    assert sliced["rows"] == rows("train", 2)
    assert both == {
        "error": "hf:me/pairs: it has the splits train, test",
        "hint": "give one of them: hf:me/pairs/train",
    }
    assert "hf:me/pairs/x: the data set cannot be read: " in unknown["error"]
    assert "hf:me/none: the hub has no such data set or revision" in none["error"]
    assert f"5 rows of revision {REVISION[:12]}, kept in" in said
    kept = sorted(path.name for path in (home / "cache").rglob("*.zst"))
    assert kept == ["--test--all.jsonl.zst", "--train--5.jsonl.zst"]

    for endpoint, offline in ((hub, {"HF_HUB_OFFLINE": "1"}), ("http://127.0.0.1:9", {})):
        found, said = look(
            home,
            endpoint,
            (train, 4),
            ("hf:me/pairs/test", 100),
            (train, 6),
            ("hf:me/none/train", 1),
            **offline,
        )
        assert found[0]["rows"] == rows("train", 4)
        assert found[0]["inputs"] == five["inputs"]
        assert found[1]["rows"] == rows("test", 7)
        assert found[2]["error"] == f"{train}: the hub cannot be reached, and no copy of 6 rows is there"
        assert "connect once" in found[3]["hint"]
        assert f"its copy of revision {REVISION[:12]} is read" in said


def test_without_the_package_the_extra_is_named(hub: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "datasets.py").write_text("raise ImportError('no datasets here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ((found,), _) = look(home, hub, ("hf:me/pairs/train", 20), PYTHONPATH=path)
    assert "needs the package datasets, which cannot be imported: no datasets here" in found["error"]
    assert found["hint"] == 'pip install ".[data]" in the clone'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf:a/b", ("a/b", None, None, None, None)),
        ("hf:a/b/train", ("a/b", None, None, "train", None)),
        ("hf:a/b:en", ("a/b", None, "en", None, None)),
        ("hf:a/b@v1.2:en-US/test", ("a/b", "v1.2", "en-US", "test", None)),
        ("hf:a/b/train[:100]", ("a/b", None, None, "train", 100)),
    ],
)
def test_names(text: str, parts: tuple[Any, ...]) -> None:
    assert hub_name(Path(text)) == HubName(*parts)


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:a/b/c/d", "hf:a/b:x/y/z", "hf:../x", "hf:a/b/train[1:]"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(DataError, match="no name of a data set on the hub") as caught:
        hub_name(Path(text))
    assert "hf:owner/name" in str(caught.value.hint)
