"""Contract tests of the package as installed: light to import, complete, one version."""

import importlib
import importlib.util
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import sarm_control
from sarm_control.extras import install
from tests.version_ends import project

HEAVY = {
    "torch",
    "transformers",
    "scipy",
    "sklearn",
    "pyarrow",
    "pandas",
    "sae_lens",
    "peft",
    "pydantic",
    "rich",
    "jinja2",
}


def modules_after(code: str) -> set[str]:
    """Top-level modules a fresh interpreter has loaded after running `code`."""
    program = f"{code}\nimport sys\nsys.stdout.write('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.rsplit("\n", 1)[-1].split()}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import sarm_control; dir(sarm_control)") & (HEAVY | {"numpy", "cyclopts"})


@pytest.mark.parametrize("name", ["errors", "embedded", "files", "console", "seeds"])
def test_the_ground_floor_loads_nothing_heavy(name: str) -> None:
    assert not modules_after(f"import sarm_control.{name}") & HEAVY


@pytest.mark.parametrize("name", sorted(set(sarm_control.__all__) - {"__version__"}))
def test_every_public_name_resolves_to_something_documented(name: str) -> None:
    value = getattr(sarm_control, name)
    assert callable(value)
    assert value.__name__ == name
    assert value.__doc__


def test_dir_lists_the_public_names_before_they_are_loaded() -> None:
    assert set(sarm_control.__all__) <= set(dir(sarm_control))


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"module 'sarm_control' has no attribute 'RewardModle'"):
        sarm_control.RewardModle  # noqa: B018 - the access is the test


RENAMED = {
    "build": {"Parts": "TrunkSource"},
    "comparison": {"Compared": "ComparisonResult"},
    "control": {"PayRule": "RewardRule", "Rewards": "RewardBreakdown", "told_forms": "named_forms"},
    "discovery": {
        "Corpus": "AnswerCorpus",
        "Endpoint": "ChatEndpoint",
        "Examination": "ExaminedDiscovery",
        "Settings": "DiscoverySettings",
    },
    "engines": {
        "Examination": "AdapterExamination",
        "Place": "ServerPlace",
        "take_up_state": "load_state_file",
    },
    "lab": {"Example": "FlatteryExample", "Paid": "JudgedAnswer"},
    "server": {"Settings": "ServiceSettings"},
    "server.ray": {"Answer": "AnswerToScore", "Paid": "AnswerReward"},
    "training": {"SarmReward": "PolicyReward"},
}


@pytest.mark.parametrize("room", RENAMED)
def test_a_former_name_gives_the_object_and_a_warning_with_the_new_name(room: str) -> None:
    door = importlib.import_module(f"sarm_control.{room}")
    for former, name in RENAMED[room].items():
        warning = rf"sarm_control\.{room}\.{former} is now sarm_control\.{room}\.{name}"
        for _ in range(2):  # every use warns, not the first alone
            with pytest.warns(FutureWarning, match=warning) as caught:
                assert getattr(door, former) is getattr(door, name)
            assert caught[0].filename == __file__
        assert former not in door.__all__


def test_the_installed_version_is_the_one_in_the_package() -> None:
    assert metadata.version("sarm-control") == sarm_control.__version__


def test_the_type_marker_is_shipped() -> None:
    spec = importlib.util.find_spec("sarm_control")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert (Path(spec.submodule_search_locations[0]) / "py.typed").is_file()


def test_hints_install_extras_that_there_are_from_the_clone() -> None:
    """There is no release: a name that pip would look for in an index leads nowhere."""
    folder = Path(sarm_control.__file__).parent
    texts = {
        path: path.read_text(encoding="utf-8")
        for form in ("py", "html")
        for path in folder.rglob(f"*.{form}")
    }
    assert not [path.name for path, text in texts.items() if "sarm-control[" in text]
    named = {
        extra
        for text in texts.values()
        for found in re.findall(r"\binstall\([\"'](\w+)[\"']|import_extra\([^,]+, \"(\w+)\"", text)
        for extra in filter(None, found)
    }
    assert named <= project()["optional-dependencies"].keys()
    assert {"rl", "serve", "explore", "report"} <= named
    assert install("rl") == 'pip install ".[rl]" in the clone'


def test_a_package_has_one_floor_in_all_extras() -> None:
    """The oldest end installs them together, and could not with two."""
    floors: dict[str, set[str]] = {}
    said = project()
    every = [said["dependencies"], *said["optional-dependencies"].values()]
    for requirement in (one for part in every for one in part):
        name, _, floor = requirement.partition(">=")
        floors.setdefault(name.partition("[")[0], set()).add(floor)
    assert not {name: found for name, found in floors.items() if len(found - {""}) > 1}
