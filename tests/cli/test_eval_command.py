"""`sarm eval`: oracle against the library, what is printed and written, and bad input with its message."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import main
from sarm_control.control import Edit, edit_delta
from sarm_control.data.rows import Row
from sarm_control.evaluation.benchmarks.reward_bench_2 import SUBSETS, reward_bench_2
from sarm_control.evaluation.benchmarks.rm_bench import rm_bench
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.scored import Scored
from tests.browsing import check_page
from tests.evaluation.benchmark_rows import parsed, reward_bench_rows, rm_bench_rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def reward_bench_file(tmp_path: Path) -> Path:
    return write(tmp_path / "rb2.jsonl", reward_bench_rows())


def run(*words: object) -> int:
    return main(["eval", *map(str, words)])


def scores(rm: RewardModel, rows: list[Row]) -> Scored:
    prompts = [row.prompt for row in rows for _ in row.answers]
    return rm.score(prompts, [answer for row in rows for answer in row.answers])


def test_oracle_figures_are_the_credit_of_the_model_s_scores(
    tiny_sarm: RewardModel,
    tiny_sarm_folder: Path,
    reward_bench_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = ("--model", tiny_sarm_folder, "--benchmark", "reward-bench-2", "--data", reward_bench_file)
    assert run(*words, "-o", out) == 0
    rows = parsed(reward_bench_rows())
    benchmark = reward_bench_2(rows)
    credit = benchmark.credit(scores(tiny_sarm, rows).rewards.astype(float))[:, 0]
    results = json.loads((out / "results.json").read_text())
    found = {one["name"]: one["figures"]["score"]["mean"] for one in results["subsets"]}
    for name in SUBSETS:
        assert found[name] == pytest.approx(credit[benchmark.units_of([name])].mean())
    assert found["total"] == pytest.approx(np.mean([found[name] for name in SUBSETS]))
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert [one["id"] for one in items] == list(benchmark.units)
    np.testing.assert_allclose([one["score"] for one in items], credit)
    assert results["self_check"]["problems"] == []
    assert json.loads((out / "manifest.json").read_text())["inputs"].keys() == {"rb2.jsonl"}
    printed = capsys.readouterr().out
    # The self-check comes before any figure.
    assert printed.index("self-check on 8 answers") < printed.index("Factuality")


@pytest.mark.long
def test_answers_that_are_cut_are_counted_and_no_reason_to_distrust_the_figures(
    tiny_sarm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = reward_bench_rows()
    rows[0]["prompt"] = "yes " * 60
    words = ("--model", tiny_sarm_folder, "--benchmark", "reward-bench-2", "--max-length", 48)
    page, results = tmp_path / "page.html", tmp_path / "results.json"
    data = write(tmp_path / "rows.jsonl", rows)
    assert run(*words, "--data", data, "--html", page, "--json", results) == 0
    check = json.loads(results.read_text())["self_check"]
    answers = [len(row.answers) for row in parsed(rows)]
    remark = f"{answers[0]} of {sum(answers)} answers were cut from the left to fit the context"
    assert (check["problems"], check["remarks"]) == ([], [remark])
    assert f"warning: {remark}" in capsys.readouterr().err
    assert "no figure can be trusted" not in page.read_text()
    assert f"{remark}." in page.read_text()
    # as earlier versions wrote it
    earlier = json.loads(results.read_text())
    check = earlier["self_check"]
    check["problems"] = [f"{answers[0]} answers were cut from the left to fit the context"]
    del check["remarks"], check["rows_scored"]
    results.write_text(json.dumps(earlier))
    assert main(["--quiet", "report", str(results), "-o", str(tmp_path / "report")]) == 0
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["verdict"]["line"].startswith("Total ")
    assert content["verdict"]["lead"] == [f"{check['problems'][0]}."]
    assert len(content["numbers"]) == 1


@pytest.mark.long
def test_the_results_as_a_page(
    tiny_sarm_folder: Path, reward_bench_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", tiny_sarm_folder, "--benchmark", "reward-bench-2", "--data", reward_bench_file)
    page, results = tmp_path / "page.html", tmp_path / "results.json"
    assert run(*words, "--html", page, "--json", results) == 0
    html = page.read_text()
    found = json.loads(results.read_text())
    for one in found["subsets"]:
        assert f'<data value="{one["figures"]["score"]["mean"]}">' in html
    check_page(page)
    assert run(*words, "--html", page) == 2
    assert "exists already" in capsys.readouterr().err
    assert run("--reproduce-published-steering", "--html", tmp_path / "none.html") == 2
    assert "the published table has no page\n  hint: leave --html out" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("stored", [False, True])
def test_without_edits_a_subset_alone_is_scored_and_shown(
    tiny_sarm_folder: Path, reward_bench_file: Path, tmp_path: Path, stored: bool
) -> None:
    """Oracle: the rows of that subset in a file of their own."""
    own = write(
        tmp_path / "alone.jsonl", [row for row in reward_bench_rows() if row["subset"] in ("Ties", "Math")]
    )
    model = ("--model", tiny_sarm_folder)
    if stored:
        for file in (own, reward_bench_file):
            assert main(["latents", str(file), *map(str, model), "-o", str(file.with_suffix(""))]) == 0
    for name, data, words in (
        ("own", own, ()),
        ("subset", reward_bench_file, ("--subset", "ties", "--subset", "Math")),
    ):
        place = data.with_suffix("") if stored else data
        words = (*words, "--json", tmp_path / name)
        assert run(*model, "--benchmark", "reward-bench-2", "--data", place, *words) == 0
    found = [json.loads((tmp_path / name).read_text()) for name in ("own", "subset")]
    assert found[0] == found[1]
    assert {one["name"] for one in found[1]["subsets"]} == {"Math", "Ties"}


def test_oracle_edits_move_target_and_complement_as_the_algebra_says(
    tiny_sarm: RewardModel, tiny_sarm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rm_bench_rows(domains=("chat", "safety-refuse", "safety-response"))
    more = write(tmp_path / "more.jsonl", [{"prompt": "why ?", "response": "because it is"}])
    data = write(tmp_path / "rm.jsonl", rows)
    summary = tmp_path / "summary.json"
    benchmark, scored = rm_bench(parsed(rows)), scores(tiny_sarm, parsed(rows))
    rate = np.bincount(scored.latents.indices, minlength=64) / len(scored)
    one, two = map(int, np.argsort(np.abs(rate - 0.4))[:2])
    words = ("--benchmark", "rm-bench", "--data", data, "--subset", "safety", "--complement", more)
    edits = ("--edit", f"{one}:max=0.1", "--edit", f"{two}:*0.5", "--sets", "100")
    assert run("--model", tiny_sarm_folder, *words, *edits, "--json", summary) == 0
    delta = edit_delta(scored, [Edit(one, max=0.1), Edit(two, scale=0.5)])
    assert (delta != 0).mean() > 0.3
    inside = benchmark.units_of(["safety"])[benchmark.unit_of_answer]
    results = json.loads(summary.read_text())
    groups = {group["name"]: group for group in results["steering"]["groups"]}
    # Every prompt of a row has the same number of answers, so that the mean over prompts is the plain one.
    assert groups["target"]["change"]["mean"] == pytest.approx(delta[inside].mean())
    assert groups["complement"]["answers"] == (~inside).sum() + 1
    before, after = (benchmark.credit(scored.rewards + move)[:, 0] for move in (np.zeros_like(delta), delta))
    safety = next(one for one in results["subsets"] if one["name"] == "safety")
    assert safety["edits"]["change"]["mean"] == pytest.approx(
        (after - before)[benchmark.units_of(["safety"])].mean(), abs=1e-9
    )
    assert set(results["steering"]["matched_sets"]) == {"margin", "accuracy"}
    assert results["steering"]["matched_sets"]["margin"]["sets"] == 100
    printed = capsys.readouterr().out
    assert "selectivity" in printed
    assert "safety-refuse" in printed


@pytest.mark.long
def test_a_parquet_file_gives_the_same(
    tiny_sarm_folder: Path, reward_bench_file: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    other = tmp_path / "rb2.parquet"
    parquet.write_table(pa.Table.from_pylist(reward_bench_rows()), other)
    for name, data in (("a", reward_bench_file), ("b", other)):
        words = ("--benchmark", "reward-bench-2", "--data", data, "--json", tmp_path / name)
        assert run("--model", tiny_sarm_folder, *words) == 0
    assert json.loads((tmp_path / "a").read_text()) == json.loads((tmp_path / "b").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "reward-bench-2"], "no rows were given"),
        (["--data", "rb2.jsonl"], "no benchmark was named"),
        (["--benchmark", "rm-bench", "--data", "rb2.jsonl"], "RM-Bench has three styles of each"),
        (["--benchmark", "reward-bench-2", "--data", "none.parquet"], "none.parquet: no such file"),
        (["--benchmark", "reward-bench-2", "--data", "rb2.jsonl", "--subset", "Chat"], "--subset Chat"),
        (["--benchmark", "reward-bench-2", "--data", "rb2.jsonl", "--edit", "500=0"], "latent 500 does not"),
        (["--benchmark", "mt-bench", "--data", "rb2.jsonl"], "mt-bench"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    tiny_sarm_folder: Path,
    reward_bench_file: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(reward_bench_file.parent)
    assert run("--model", tiny_sarm_folder, *words) == 2
    assert message in capsys.readouterr().err


def test_the_published_table_needs_neither_model_nor_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--reproduce-published-steering") == 0
    printed = capsys.readouterr()
    assert "RewardBench 2 safety, rejected" in printed.out
    assert "Why the sign was misread" in printed.out
    assert printed.err == "next: sarm eval --benchmark reward-bench-2 --data rows.jsonl\n"


@pytest.mark.long
def test_the_published_latents_have_to_exist(
    tiny_sarm_folder: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--reproduce-published-steering", "--data", shared_data / "llama_sarm_4b_scores.jsonl")
    assert run(*words, "--model", tiny_sarm_folder) == 2
    assert "latent 48659 does not exist" in capsys.readouterr().err
