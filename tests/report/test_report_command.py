"""`sarm report` over real runs, a comparison and a discovery: oracle against their files, bad input."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.report.length import length_correlations
from tests.browsing import check_page
from tests.evaluation.benchmark_rows import reward_bench_rows
from tests.pages.test_pages import Parsed
from tests.present import present

pytestmark = pytest.mark.long

STEPS = 3


def train(out: Path, *words: str) -> Path:
    settings = [f"training.steps={STEPS}", "training.prompts_per_step=8", "training.reference_answers=16"]
    flags = [word for one in settings for word in ("--set", one)]
    assert main(["--quiet", "train", *flags, *words, "-o", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, their comparison and a discovery."""
    place = tmp_path_factory.mktemp("reported")
    penalty = ["--penalize", "15:tau=0,target_rate=0.1"]
    train(place / "none", "--set", "training.seed=0")
    train(place / "ours", "--set", "training.seed=0", *penalty)
    train(place / "again", "--set", "training.seed=1", *penalty)
    runs = [str(place / name) for name in ("none", "ours", "again")]
    words = ["--rows", "24", "--gold", "lab", "-o", str(place / "report")]
    assert main(["--quiet", "compare", *runs, *words]) == 0
    assert main(["--quiet", "discover", "-o", str(place / "found")]) == 0
    return place


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    given = [str(folder / name) for name in ("none", "ours", "again", "found")]
    place = folder / "whole"
    assert main(["--quiet", "report", *given, "-o", str(place)]) == 0
    return place


def read(path: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(path.read_text())
    return written


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_page_has_its_parts_in_the_order_of_the_work(out: Path) -> None:
    content = read(out / "report.json")
    assert content["format"] == "sarm-report-1"
    assert [section["id"] for section in content["sections"]] == [
        "asked",
        "found",
        "map",
        "training",
        "training-map",
        "changed",
        "ledger",
        "monitors",
        "answers",
        "length",
        "made",
        "limits",
        "files",
    ]
    html = (out / "report.html").read_text()
    assert len(html) < 5_000_000
    text = "".join(Parsed(html).texts)
    assert content["verdict"]["line"] in text
    for number in content["numbers"]:
        assert number["value"] in text
        assert "95 % interval" in number["interval"] or "too few" in number["interval"]


def test_oracle_curves_are_the_metrics_with_seeds_as_a_band(folder: Path, out: Path) -> None:
    figure = read(out / "report.json")["figures"]["training-objective-kl"]["rows"]
    kept = {name: rows(folder / name / "metrics.jsonl") for name in ("none", "ours", "again")}
    alone = [row for row in figure if row["series"] == "no control"]
    assert [row["y"] for row in alone] == [row["objective/kl"] for row in kept["none"]]
    assert all(row["low"] is None for row in alone)
    band = [row for row in figure if row["series"] == "ours (2 seeds)"]
    both = np.array([[row["objective/kl"] for row in kept[name]] for name in ("ours", "again")])
    np.testing.assert_allclose([row["y"] for row in band], both.mean(axis=0))
    np.testing.assert_allclose([row["low"] for row in band], both.min(axis=0))
    np.testing.assert_allclose([row["high"] for row in band], both.max(axis=0))


def test_oracle_the_discovery_and_the_comparison_are_taken_as_they_are(folder: Path, out: Path) -> None:
    content = read(out / "report.json")
    assert content["comparison"] == read(folder / "report" / "report.json")
    effects = {row["value"] for row in content["figures"]["effects-found"]["rows"]}
    harms = read(folder / "found" / "features.json")["lists"]["harms"]
    assert {one["effect"] for one in harms[:6]} <= effects
    assert content["manifest"]["inputs"]


def test_the_configuration_is_said_in_words(out: Path) -> None:
    text = "".join(Parsed((out / "report.html").read_text()).texts)
    assert "alpha None" not in text
    assert "<dt>Edits</dt><dd>none</dd>" in (out / "report.html").read_text()
    assert "for the latent to fire in 10 % of answers" in text
    assert f"3 runs of {STEPS} steps by PPO." in text


def test_a_run_without_controls_is_called_that(out: Path) -> None:
    content = read(out / "report.json")
    labels = {str(row.get("label")) for figure in content["figures"].values() for row in figure["rows"]}
    assert {"ours \u2212 no control", "no control \u2212 base", "no control"} <= labels
    assert not any("none" in label for label in labels)
    tags = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', (out / "report.html").read_text())
    assert {"no control", "ours \u2212 no control"} <= set(tags)
    assert "none" not in " ".join(tags)


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in reward_bench_rows())
    (folder / "rows.jsonl").write_text(lines)
    words = ["--benchmark", "reward-bench-2", "--data", str(folder / "rows.jsonl"), "--subset", "Safety"]
    for name, edits in (("edited", ["--edit", "15=0"]), ("plain", [])):
        more = words if edits else words[:4]
        assert main(["--quiet", "eval", *more, *edits, "--sets", "100", "-o", str(folder / name)]) == 0
    return folder


def test_oracle_an_evaluation_alone_says_whether_the_edits_helped(evaluated: Path, tmp_path: Path) -> None:
    assert main(["--quiet", "report", str(evaluated / "edited"), "-o", str(tmp_path / "r")]) == 0
    results = read(evaluated / "edited" / "results.json")
    change = results["subsets"][-1]["edits"]["change"]
    assert change["low"] < 0 < change["high"]
    content = read(tmp_path / "r" / "report.json")
    line = "The edits show no clear change of the benchmark's total: a null result."
    assert content["verdict"] == {"line": line, "meaning": "unclear", "lead": []}
    assert [tile["detail"] for tile in content["numbers"]] == ["reward-bench-2, n = 23 items"] * 2
    html = (tmp_path / "r" / "report.html").read_text()
    values = [change["mean"], *(one["change"]["mean"] for one in results["steering"]["groups"])]
    assert all(f'<data value="{value}">' in html for value in values)
    assert "among the same edits on 100 sets of random latents" in html
    check_page(tmp_path / "r" / "report.html")


def test_evaluations_stand_beside_other_findings(evaluated: Path, tmp_path: Path) -> None:
    given = [str(evaluated / name) for name in ("found", "edited", "plain")]
    assert main(["--quiet", "report", *given, "-o", str(tmp_path / "r")]) == 0
    content = read(tmp_path / "r" / "report.json")
    ids = [section["id"] for section in content["sections"]]
    assert [one for one in ids if one.startswith("benchmark")] == ["benchmark", "benchmark-2"]
    assert {"benchmark-edited", "benchmark-plain", "effects-found"} <= set(content["figures"])
    assert len(content["manifest"]["inputs"]) == 3
    assert "sarm eval --benchmark NAME" not in (tmp_path / "r" / "report.html").read_text()


def test_a_failed_self_check_stops_every_reassuring_sentence(evaluated: Path, tmp_path: Path) -> None:
    results = read(evaluated / "plain" / "results.json")
    results["self_check"]["problems"] = ["rewards depend on the batch"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main(["--quiet", "report", str(tmp_path / "results.json"), "-o", str(tmp_path / "r")]) == 0
    verdict = read(tmp_path / "r" / "report.json")["verdict"]
    assert verdict["line"].startswith("The self-check failed: no figure can be trusted")
    assert verdict["lead"] == ["The self-check of the scores found: rewards depend on the batch."]
    assert verdict["meaning"] == "bad"


def test_figures_of_several_sources_have_names_of_their_own(evaluated: Path, tmp_path: Path) -> None:
    """Two discoveries in folders of one name, two evaluations; the names are the same in another order."""
    other = tmp_path / "other"
    shutil.copytree(evaluated / "found", other / "found")
    features = read(other / "found" / "features.json")
    features["lists"]["harms"][0]["effect"] -= 0.5
    (other / "found" / "features.json").write_text(json.dumps(features))
    given = [evaluated / "found", other / "found", evaluated / "edited", evaluated / "plain"]
    rows: list[dict[str, Any]] = []
    for place, paths in enumerate((given, [given[1], given[0], given[3], given[2]])):
        out = tmp_path / f"r{place}"
        words = ["--figures", str(tmp_path / f"figures{place}"), "-o", str(out)]
        assert main(["--quiet", "report", *map(str, paths), *words]) == 0
        figures = read(out / "report.json")["figures"]
        files = {path.name for path in (tmp_path / f"figures{place}").glob("*.csv")}
        assert files == {f"{name}.csv" for name in figures}
        rows.append({name: one["rows"] for name, one in figures.items() if name != "latent-map"})
        ids = re.findall(r'\bid="([^"]+)"', (out / "report.html").read_text())
        assert len(ids) == len(set(ids))
        assert set(re.findall(r"url\(#([^)]+)\)", (out / "report.html").read_text())) <= set(ids)
    assert rows[0] == rows[1]
    names = {name for name in rows[0] if name.startswith("effects")}
    assert len(names) == 2
    assert "effects-other-found" in names
    assert len({json.dumps(rows[0][name]) for name in names}) == 2


def test_each_figure_has_its_files(folder: Path, tmp_path: Path) -> None:
    words = ["-o", str(tmp_path / "r"), "--figures", str(tmp_path / "figures")]
    assert main(["--quiet", "report", str(folder / "found"), *words]) == 0
    names = set(read(tmp_path / "r" / "report.json")["figures"])
    files = {path.name for path in (tmp_path / "figures").iterdir()}
    assert files == {f"{name}.{form}" for name in names for form in ("svg", "pdf", "png", "csv")}


def test_oracle_correlations_of_length_and_reward() -> None:
    generator = np.random.default_rng(0)
    length, noise = generator.normal(size=40), generator.normal(size=40)
    reward = 0.8 * length + 0.6 * noise
    table = [
        {"policy": policy, "prompt": str(place), "length": length[place], "reward": sign * reward[place]}
        for policy, sign in (("base", 1), ("ours", -1))
        for place in range(40)
    ]
    base, ours = length_correlations(table)
    assert (base.policy, ours.policy) == ("base", "ours")
    assert base.value == pytest.approx(np.corrcoef(length, reward)[0, 1])
    assert ours.value == pytest.approx(-base.value)
    low, high = present(base.low), present(base.high)
    assert low < base.value < high < 1
    assert ours.low == pytest.approx(-high)
    # two answers to a prompt count as one
    assert length_correlations([*table, *table])[0].n == 40
    assert length_correlations([{**row, "length": 3} for row in table]) == []
    assert length_correlations(table[:3])[0].low is None


def test_a_run_alone_says_that_nothing_is_known_and_what_would_tell(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(folder / "ours"), "-o", str(tmp_path / "alone")]) == 0
    said = capsys.readouterr()
    assert "Whether it worked is not known yet" in said.out
    assert f"next: sarm compare {folder / 'ours'}" in said.err
    text = "".join(Parsed((tmp_path / "alone" / "report.html").read_text()).texts)
    assert f"sarm compare {folder / 'ours'} --prompts held_out.jsonl" in text


def test_a_discovery_alone_has_a_page(folder: Path, tmp_path: Path) -> None:
    assert (
        main(["--quiet", "report", str(folder / "found" / "features.json"), "-o", str(tmp_path / "r")]) == 0
    )
    lists = read(folder / "found" / "features.json")["lists"]
    line = read(tmp_path / "r" / "report.json")["verdict"]["line"]
    assert line == f"{len(lists['harms'])} latents harm the goal, {len(lists['promotes'])} promote it."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "error: nothing was given to report\n  hint: sarm report runs/NAME -o report"),
        (["absent"], "absent does not exist"),
        (["report/ledger.parquet"], "not UTF-8"),
        (["empty"], "empty is nothing that a report knows"),
        (["other.json"], "other.json is nothing that a report knows"),
        (["report", "report/report.json"], "several comparisons were given"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    given: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "other.json").write_text("{}")
    assert main(["report", *(str(folder / one) for one in given), "-o", str(tmp_path / "r")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_name_in_use_is_kept(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder / "none"), "-o", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_anybody_can_read_the_page(out: Path) -> None:
    check_page(out / "report.html")
