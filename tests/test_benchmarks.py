"""Benchmarks for machines not at hand run here at small sizes, so that they will run there (golden keys)."""

import json
import subprocess
import sys
from pathlib import Path

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
