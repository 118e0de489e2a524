"""Scores kept on disk.

In: `Scored` rows. Out: folders of latents, and the human buffer that a policy is compared with. Large jobs
run in several processes or on Ray.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.latents.disjoint import check_disjoint
    from sarm_control.latents.extraction import Engine, Job, ModelSpec, extract, in_this_process, plan
    from sarm_control.latents.folder import LatentsFolder, is_latents, read_latents
    from sarm_control.latents.human import (
        SMALLEST_BUFFER,
        Coverage,
        HumanBuffer,
        check_finite,
        check_known,
        check_same_model,
        choose_latents,
        latent_features,
    )
    from sarm_control.latents.manifest import Manifest, read_manifest
    from sarm_control.latents.ranks import Ranks, launched
    from sarm_control.latents.ray_workers import on_ray
    from sarm_control.latents.rows import ScoredRows, check_tokens, roles, score_rows, template_check
    from sarm_control.latents.survey_folder import survey
    from sarm_control.latents.workers import in_processes
    from sarm_control.latents.writer import LatentsWriter, set_latents_aside

_HOME_OF = {
    "Coverage": "human",
    "Engine": "extraction",
    "HumanBuffer": "human",
    "Job": "extraction",
    "LatentsFolder": "folder",
    "LatentsWriter": "writer",
    "Manifest": "manifest",
    "ModelSpec": "extraction",
    "Ranks": "ranks",
    "SMALLEST_BUFFER": "human",
    "ScoredRows": "rows",
    "check_disjoint": "disjoint",
    "check_finite": "human",
    "check_known": "human",
    "check_same_model": "human",
    "check_tokens": "rows",
    "choose_latents": "human",
    "extract": "extraction",
    "in_processes": "workers",
    "in_this_process": "extraction",
    "is_latents": "folder",
    "latent_features": "human",
    "launched": "ranks",
    "on_ray": "ray_workers",
    "plan": "extraction",
    "read_latents": "folder",
    "read_manifest": "manifest",
    "roles": "rows",
    "score_rows": "rows",
    "set_latents_aside": "writer",
    "survey": "survey_folder",
    "template_check": "rows",
}

__all__ = [
    "SMALLEST_BUFFER",
    "Coverage",
    "Engine",
    "HumanBuffer",
    "Job",
    "LatentsFolder",
    "LatentsWriter",
    "Manifest",
    "ModelSpec",
    "Ranks",
    "ScoredRows",
    "check_disjoint",
    "check_finite",
    "check_known",
    "check_same_model",
    "check_tokens",
    "choose_latents",
    "extract",
    "in_processes",
    "in_this_process",
    "is_latents",
    "latent_features",
    "launched",
    "on_ray",
    "plan",
    "read_latents",
    "read_manifest",
    "roles",
    "score_rows",
    "set_latents_aside",
    "survey",
    "template_check",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
