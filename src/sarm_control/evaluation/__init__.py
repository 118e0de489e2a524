"""Evaluates a reward model: benchmarks, edits, and recorded scores.

In: a reward model and rows. Out: benchmark figures, probes of edits, reranked candidates, and whether
recorded scores are reproduced.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.evaluation.annotated_rows import annotate, count_long_prompts, replaced_fields
    from sarm_control.evaluation.answer_places import AnswerTable, answer_table
    from sarm_control.evaluation.benchmarks.benchmark import Benchmark
    from sarm_control.evaluation.benchmarks.data import local_rows
    from sarm_control.evaluation.benchmarks.report import SubsetResult, benchmark_results
    from sarm_control.evaluation.benchmarks.reward_bench_2 import REWARD_BENCH_2_FILES, reward_bench_2
    from sarm_control.evaluation.benchmarks.rm_bench import RM_BENCH_FILES, rm_bench
    from sarm_control.evaluation.benchmarks.self_check import SelfCheck, self_check
    from sarm_control.evaluation.benchmarks.steering import Steering, steering
    from sarm_control.evaluation.benchmarks.text import benchmark_text, edits_text
    from sarm_control.evaluation.coverage import answer_coverage
    from sarm_control.evaluation.preferences import best_of_n, pair_accuracy
    from sarm_control.evaluation.probing.most_moved import change_bins, most_moved
    from sarm_control.evaluation.probing.probe import Probe, probe, probe_text, probed_rows
    from sarm_control.evaluation.probing.rescoring import rescored_delta
    from sarm_control.evaluation.recorded.published_steering import (
        PUBLISHED,
        from_model,
        from_records,
        published_text,
    )
    from sarm_control.evaluation.recorded.verification import (
        PUBLISHED_STEERED_LATENTS,
        RewardCheck,
        Verification,
        read_recorded,
        verify,
    )
    from sarm_control.evaluation.reranking.candidates import (
        CandidateSets,
        candidate_sets,
        check_candidates,
    )
    from sarm_control.evaluation.reranking.reranking import Reranking, rerank, win_shares
    from sarm_control.evaluation.reranking.single_latents import LatentImpact, single_latents
    from sarm_control.evaluation.reranking.text import (
        changed_choices,
        impacts_text,
        reranked_rows,
        reranking_text,
    )

_HOME_OF = {
    "AnswerTable": "answer_places",
    "answer_table": "answer_places",
    "win_shares": "reranking.reranking",
    "Benchmark": "benchmarks.benchmark",
    "CandidateSets": "reranking.candidates",
    "LatentImpact": "reranking.single_latents",
    "PUBLISHED": "recorded.published_steering",
    "PUBLISHED_STEERED_LATENTS": "recorded.verification",
    "Probe": "probing.probe",
    "REWARD_BENCH_2_FILES": "benchmarks.reward_bench_2",
    "RM_BENCH_FILES": "benchmarks.rm_bench",
    "Reranking": "reranking.reranking",
    "RewardCheck": "recorded.verification",
    "SelfCheck": "benchmarks.self_check",
    "Steering": "benchmarks.steering",
    "SubsetResult": "benchmarks.report",
    "Verification": "recorded.verification",
    "annotate": "annotated_rows",
    "answer_coverage": "coverage",
    "change_bins": "probing.most_moved",
    "changed_choices": "reranking.text",
    "most_moved": "probing.most_moved",
    "benchmark_results": "benchmarks.report",
    "benchmark_text": "benchmarks.text",
    "best_of_n": "preferences",
    "candidate_sets": "reranking.candidates",
    "check_candidates": "reranking.candidates",
    "count_long_prompts": "annotated_rows",
    "edits_text": "benchmarks.text",
    "from_model": "recorded.published_steering",
    "from_records": "recorded.published_steering",
    "impacts_text": "reranking.text",
    "local_rows": "benchmarks.data",
    "pair_accuracy": "preferences",
    "probe": "probing.probe",
    "probe_text": "probing.probe",
    "probed_rows": "probing.probe",
    "published_text": "recorded.published_steering",
    "read_recorded": "recorded.verification",
    "replaced_fields": "annotated_rows",
    "rerank": "reranking.reranking",
    "reranked_rows": "reranking.text",
    "reranking_text": "reranking.text",
    "rescored_delta": "probing.rescoring",
    "reward_bench_2": "benchmarks.reward_bench_2",
    "rm_bench": "benchmarks.rm_bench",
    "self_check": "benchmarks.self_check",
    "single_latents": "reranking.single_latents",
    "steering": "benchmarks.steering",
    "verify": "recorded.verification",
}

__all__ = [
    "PUBLISHED",
    "PUBLISHED_STEERED_LATENTS",
    "REWARD_BENCH_2_FILES",
    "RM_BENCH_FILES",
    "AnswerTable",
    "Benchmark",
    "CandidateSets",
    "LatentImpact",
    "Probe",
    "Reranking",
    "RewardCheck",
    "SelfCheck",
    "Steering",
    "SubsetResult",
    "Verification",
    "annotate",
    "answer_coverage",
    "answer_table",
    "benchmark_results",
    "benchmark_text",
    "best_of_n",
    "candidate_sets",
    "change_bins",
    "changed_choices",
    "check_candidates",
    "count_long_prompts",
    "edits_text",
    "from_model",
    "from_records",
    "impacts_text",
    "local_rows",
    "most_moved",
    "pair_accuracy",
    "probe",
    "probe_text",
    "probed_rows",
    "published_text",
    "read_recorded",
    "replaced_fields",
    "rerank",
    "reranked_rows",
    "reranking_text",
    "rescored_delta",
    "reward_bench_2",
    "rm_bench",
    "self_check",
    "single_latents",
    "steering",
    "verify",
    "win_shares",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
