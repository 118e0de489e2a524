"""Benchmarks for machines not at hand run here at small sizes, so that they will run there (golden keys); the
server's takes nothing for right that is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_the_gpu_benchmark_runs_on_a_cpu_at_a_small_size() -> None:
    words = ["--shape", "tiny", "--cases", "4x8", "--prompt-tokens", "16", "--steps", "1", "--device", "cpu"]
    command = [sys.executable, str(BENCHMARKS / "gpu_ppo.py"), *words, "--sampler", "ours", "generate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [case["sampler"] for case in found["cases"]] == ["ours", "generate"]
    for case in found["cases"]:
        seconds = case["seconds"]
        assert (case["answers"], case["new_tokens"]) == (4, 8)
        phases = sum(seconds[phase] for phase in ("rollout", "reward", "logprobs", "update", "controls"))
        assert abs(phases / seconds["step"] - 1) < 0.05
        # a random policy of 512 words ends an answer of 8 tokens early about once in 60
        assert 16 <= case["answer_tokens_per_second"] * seconds["step"] <= 32
    assert found["cases"][1]["rollout/logprob_mismatch_max"] < 1e-4
    assert found["scoring"]["answers_per_second"] > 0


def test_the_benchmark_beside_trl_counts_the_products_of_a_step_of_ours() -> None:
    sizes = ["--answers", "4", "--prompt-tokens", "16", "--new-tokens", "8", "--steps", "1"]
    command = [sys.executable, str(BENCHMARKS / "ppo.py"), "--side", "ours", "--shape", "tiny", *sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    floor = found["floor"]
    # two layers of 9,216 weights; a vocabulary of 512 by a width of 32
    layers, head = 2 * 2 * 9216, 2 * 512 * 32
    decoded = 4 * (16 + 7) * layers + 4 * 8 * head
    # decoding, two passes for log-probabilities, one for the update and one back
    assert 5 * decoded <= floor["flops"] <= 8 * decoded
    assert floor["seconds"] == pytest.approx(floor["flops"] / floor["flops_a_second"])
    assert 0 < floor["seconds"] < found["seconds"][0]


def test_the_benchmark_of_batch_sizes_runs_at_a_small_size(tmp_path: Path) -> None:
    """Its print once read keys that its record of the processor no longer had; types say nothing of keys."""
    few = ["--width", "64", "--rows", "8", "--json", str(tmp_path / "batch_size.json")]
    command = [sys.executable, str(BENCHMARKS / "batch_size.py"), *few]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "batch_size.json").read_text())["table"]
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16", "float16"}


def test_golden_a_comparison_of_the_monitors_benchmark_is_the_committed_one(tmp_path: Path) -> None:
    """The untrained policy with itself, under other random numbers."""
    few = ["--arms", "the same policy", "--seeds", "200", "--draws", "1"]
    files = ["--runs", str(tmp_path / "runs.jsonl"), "--out", str(tmp_path / "monitors.json")]
    command = [sys.executable, str(BENCHMARKS / "monitors.py"), *few, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    [run] = json.loads((tmp_path / "monitors.json").read_text())["runs"]
    committed = json.loads((BENCHMARKS / "results" / "monitors.json").read_text())["runs"]
    [kept] = [one for one in committed if (one["arm"], one["seed"]) == ("the same policy", 200)]
    assert run["evaluations"][0]["fired"] == kept["evaluations"][0]["fired"]
    # their numbers had other names then
    values, then = (list(one["evaluations"][0]["values"].values()) for one in (run, kept))
    assert values == pytest.approx(then, abs=2e-3)


def test_the_rollouts_benchmark_counts_the_bytes_of_its_weights(tmp_path: Path) -> None:
    sizes = ["--shape", "tiny", "--prompts", "2", "--prompt-tokens", "16", "--new-tokens", "8"]
    few = ["--rounds", "1", "--seconds", "0.01", "--profile", "--json", str(tmp_path / "rollout.json")]
    command = [sys.executable, str(BENCHMARKS / "rollout.py"), *sizes, *few]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "rollout.json").read_text())
    found = result["types"]["float32"]
    # two layers of 9,216 weights and two norms each, the last norm, and a head of 512 words: the table
    assert found["weight_bytes"] == 4 * (2 * (9216 + 64) + 32 + 512 * 32)
    assert found["limit_seconds"] <= 8 * found["weight_bytes"] / found["bytes_a_second"]
    assert found["times_the_limit"] == pytest.approx(found["seconds"] / found["limit_seconds"])
    assert sum(found["pieces"].values()) == pytest.approx(1)
    assert found["logprobs_apart"] < 1e-5
    assert {"processor", "cores_of_others", "busy", "torch", "commit"} <= set(result["machine"])
    assert result["machine"]["processor"]["flags"]


def test_the_page_of_performance_says_what_the_results_say() -> None:
    """`python scripts/performance.py` writes it anew."""
    script = BENCHMARKS.parent / "scripts" / "performance.py"
    assert subprocess.run([sys.executable, str(script), "--check"], check=False).returncode == 0


def test_the_servers_benchmark_takes_no_wrong_answer_for_right() -> None:
    server = pytest.importorskip("server", exc_type=ImportError)
    bodies = [b'{"rewards": 0.5}', b'{"rewards": 0.6}', b'{"rewards": NaN}', b'{"rewards": null}', b"{", None]
    answers = server.Answers([server.Job(b"", 0.5)] * len(bodies))
    answers.bodies = bodies
    found = answers.load(1.0)
    assert (found.requests, found.lost, found.wrong) == (6, 1, 4)
    good = {"lost": 0, "wrong": 0}
    for lost in ({"lost": 1, "wrong": 0}, {"lost": 0, "wrong": 1}):
        pairs = [{"batched": good, "one_request_one_pass": lost}]
        assert server.failed({"all": good, "compared": {"pairs": pairs}})
        assert server.failed({"all": lost, "compared": {"pairs": []}})
    assert not server.failed({"all": good, "compared": {"pairs": []}})
    assert server.failed({"fuzz": {"server_errors": 1}})
    code = server.code()
    assert len(code["commit"]) == 40
    assert "torch" in code["versions"]
