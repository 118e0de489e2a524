"""Results in a notebook: golden (what is shown), property (escaped, no script), oracle (as the commands)."""

import inspect
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sarm_control
from sarm_control.cli import compare as compare_command
from sarm_control.cli import discover as discover_command
from sarm_control.cli import eval as eval_command
from sarm_control.cli import main
from sarm_control.cli._discover_flags import ControlFlags, SearchFlags
from sarm_control.control import estimate_kl
from sarm_control.data import rows_of
from sarm_control.discovery import Discovery
from sarm_control.errors import MissingExtraError, SarmError
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.notebooks import Bar, data_frame, html_table
from sarm_control.reward_model import RewardModel, Scored
from tests.present import present

pytest.importorskip("pandas")


class Reader(HTMLParser):
    """Balanced tags, their names, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def shown(value: Any) -> Reader:
    reader = Reader(value._repr_html_())
    assert reader.tags <= {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "span"}
    return reader


@pytest.fixture(scope="module")
def lab() -> RewardModel:
    return RewardModel.from_pretrained("lab")


@pytest.fixture(scope="module")
def scored(lab: RewardModel) -> Scored:
    return lab.score(["what is bread ?"] * 7, ["bread is food .", "i hope this helps !"] * 3 + ["yes"])


@pytest.fixture(scope="module")
def found() -> Discovery:
    return sarm_control.discover(random_sets=50)


def test_scored_shows_what_paid_and_the_parts_sum_to_the_reward(scored: Scored) -> None:
    html = scored._repr_html_()
    text = shown(scored).text
    assert "7 scored answers, the first 5" in text
    first = html.split("<strong>answer 0: reward ")[1].split("<strong>answer 1")[0]
    parts = [float(value) for value in re.findall(r"</span> ([+-][\d.e-]+)</td>", first)]
    assert sum(parts) == pytest.approx(float(scored.rewards[0]), abs=1e-3 * max(map(abs, parts)))
    widths = [int(width) for width in re.findall(r"width:(\d+)px;top", first)]
    assert np.argsort(np.abs(parts[:8])).tolist() == np.argsort(widths[:8], kind="stable").tolist()


def test_scored_as_a_frame_has_a_row_for_each_answer(scored: Scored) -> None:
    frame = scored.to_pandas()
    assert frame["reward"].to_numpy() == pytest.approx(scored.rewards)
    assert frame["latents"].tolist() == [len(scored.contributions(j)) for j in range(7)]


def test_a_reward_model_says_what_it_is(lab: RewardModel, tiny_sarm: RewardModel) -> None:
    assert re.fullmatch(
        r"RewardModel\(sarm, \S*lab\S*, \d+ latents, k=\d+, read at end_of_turn, float32 on cpu, head \w+\)",
        repr(lab),
    )
    assert "built in memory, 64 latents, k=8" in repr(tiny_sarm)


def test_effects_and_discoveries_show_their_largest(found: Discovery) -> None:
    text = shown(found).text
    for name, items in found.lists.items():
        assert name in text
        for one in items:
            assert f"\n{one.latent}\n" in text
    table = shown(found.table).text
    assert f"{len(found.table)} tested latents" in table
    largest = int(found.table["latent"][np.argmax(np.abs(found.table["effect"]))])
    assert present(re.search(r"rate rejected\n(\d+)\n", table))[1] == str(largest)


def test_a_table_of_effects_as_a_frame_is_the_table(found: Discovery) -> None:
    frame = found.to_pandas()
    assert frame.index.tolist() == found.table["latent"].tolist()
    assert frame["effect"].to_numpy() == pytest.approx(found.table["effect"])
    assert list(frame.columns) == list(found.table.names[1:])


@pytest.mark.long
def test_discover_finds_what_the_command_finds(
    found: Discovery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["discover", "-o", str(tmp_path / "found"), "--random-sets", "50", "--json"]
    assert main([*words, str(tmp_path / "found.json")]) == 0
    capsys.readouterr()
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["counts"] == found.counts
    assert {name: [one.as_json() for one in items] for name, items in found.lists.items()} == told["lists"]


def test_the_functions_have_the_defaults_of_the_commands() -> None:
    def defaults(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters.values()
        return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}

    flags = {**vars(SearchFlags()), **vars(ControlFlags())}
    pairs = (
        (sarm_control.discover, {**flags, **defaults(discover_command.discover)}),
        (sarm_control.compare, defaults(compare_command.compare)),
        (sarm_control.evaluate, defaults(eval_command.eval)),
    )
    for function, command in pairs:
        own = defaults(function)
        shared = set(own) & set(command) - {"model", "subset"}
        assert len(shared) >= 2
        assert {name: own[name] for name in shared} == {name: command[name] for name in shared}


def test_evaluate_reads_rows_and_tries_edits(tiny_sarm: RewardModel) -> None:
    rows = [
        {
            "id": str(i),
            "prompt": f"how do i open the {thing} ?",
            "chosen": ["sorry i cannot"],
            "rejected": ["sure here", "yes", "open it"],
            "subset": "Safety",
        }
        for i, thing in enumerate(("door", "lock", "bread", "bomb"))
    ]
    result = sarm_control.evaluate(tiny_sarm, "reward-bench-2", rows, edits=["3=0"], sets=100)
    assert result.to_pandas().loc["Safety", "units"] == 4
    assert "Safety" in shown(result).text
    assert result.steering is not None
    plain = sarm_control.evaluate(tiny_sarm, "reward-bench-2", rows, subset=["Safety"])
    assert plain.steering is None
    with pytest.raises(SarmError, match="'mmlu' is no benchmark") as caught:
        sarm_control.evaluate(tiny_sarm, "mmlu", rows)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.hint == "benchmarks: reward-bench-2, rm-bench"
    with pytest.raises(SarmError, match="64"):
        sarm_control.evaluate(tiny_sarm, "reward-bench-2", rows, edits=["64=0"])


def test_compare_without_runs_says_how() -> None:
    with pytest.raises(SarmError, match="no run folder was given"):
        sarm_control.compare()


def test_an_estimate_says_when_it_is_a_bound() -> None:
    generator = np.random.default_rng(0)
    near = estimate_kl(generator.normal(size=(200, 2)), generator.normal(size=(200, 2)))
    far = estimate_kl(generator.normal(9, size=(200, 2)), generator.normal(size=(200, 2)))
    assert "at least" not in shown(near).text
    assert f"{near.value:.3g} nats" in shown(near).text
    assert "a lower bound: the samples are too far apart" in shown(far).text


def test_cells_are_escaped_and_bars_keep_to_their_cell() -> None:
    nasty = "<script>alert('x')</script>"
    html = html_table(nasty, (nasty,), [(nasty,), (Bar(-5.0, 2.0, nasty),)], nasty)
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 5
    assert "left:0px;width:90px" in html
    assert "width:0px" in html_table("", ("",), [(Bar(float("nan"), 1.0, "-"),)])


def test_without_pandas_a_frame_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch, scored: Scored) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="a data frame needs pandas") as caught:
        scored.to_pandas()
    assert caught.value.hint == 'pip install ".[audit]" in the clone'


def test_a_frame_of_no_rows_is_empty() -> None:
    assert len(data_frame([], "latent")) == 0


def test_an_audit_shows_its_prices_and_its_answers_as_frames(tiny_sarm: RewardModel) -> None:
    things = ("bread", "door", "lock", "bomb", "answer", "steps", "user", "system")
    rows = [
        {
            "prompt": f"what is the {thing} ?",
            "chosen": f"the {thing} is good .",
            "rejected": f"no ! {thing} !",
        }
        for thing in things
    ]
    read = rows_of(rows, want={"pair"})
    audit = sarm_control.audit(tiny_sarm, ScoredRows(read, score_rows(tiny_sarm, read)), most=8)
    text = shown(audit).text
    assert all(one.attribute.words in text for one in audit.findings)
    assert "price in SDs" in text
    assert audit.to_pandas().index.tolist() == [one.attribute.name for one in audit.findings]
    frame = audit.table.to_pandas()
    assert frame["answer"].tolist() == list(audit.table.answers)
    assert frame["reward"].to_numpy() == pytest.approx(audit.table.rewards)
