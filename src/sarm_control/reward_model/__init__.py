"""Token ids into rewards.

In: encoded conversations. Out: `Scored`, the rewards and the sparse latents that make them.
Holds checkpoints, trunk, autoencoder and linear head. Names that need torch load on first use.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.reward_model.attached import (
        COPIED,
        AttachedAutoencoder,
        point_to_copy,
        pointed_at,
        read_attached,
        write_edited_weights,
    )
    from sarm_control.reward_model.autoencoder import Autoencoder, TopK, normalise
    from sarm_control.reward_model.description import (
        Description,
        check_checkpoint,
        describe,
        head_of,
        latents_of,
        read_head,
        read_model_fingerprint,
        read_template,
    )
    from sarm_control.reward_model.files.checkpoint import (
        TensorEntry,
        configuration_folder,
        find_folder,
        from_checkpoint,
        load_tensors,
        read_index,
        stored_type,
    )
    from sarm_control.reward_model.files.classifier_config import (
        ATTACHED,
        ClassifierConfig,
        is_attached,
        read_classifier_config,
    )
    from sarm_control.reward_model.files.config import SarmConfig, is_sarm, read_config
    from sarm_control.reward_model.files.conversion import convert
    from sarm_control.reward_model.files.finite import NonFiniteError, OnNonfinite, not_finite_rows
    from sarm_control.reward_model.head import ATTACH, LinearHead, no_latents
    from sarm_control.reward_model.ready_made import Activation, ReadyMadeAutoencoder, RmsNorm
    from sarm_control.reward_model.reward_model import RewardModel
    from sarm_control.reward_model.scored import CONSTANT, RESIDUAL, Contribution, Kind, Scored
    from sarm_control.reward_model.sparse import FloatArray, IndexArray, SparseLatents
    from sarm_control.reward_model.state_head import StateHead
    from sarm_control.reward_model.trunk.batching import (
        Padded,
        PaddingSide,
        check_embeddings,
        length_sorted_batches,
        pad_batch,
        scoring_batch_tokens,
    )
    from sarm_control.reward_model.trunk.cache_argument import cache_argument
    from sarm_control.reward_model.trunk.placement import check_placement, dtype_of
    from sarm_control.reward_model.trunk.pooling import Pooling, pool_states
    from sarm_control.reward_model.trunk.pre_activations import pre_topk
    from sarm_control.reward_model.trunk.torch_backend import (
        has_bfloat16,
        has_tiles,
        rounded_factors,
        whole_factors,
        with_own_memory,
    )
    from sarm_control.reward_model.trunk.trunk import (
        Trunk,
        base_config,
        base_folder,
        cut_config,
        load_trunk,
        quiet_transformers,
        takes_sdpa,
        trunk_config,
    )

_HOME_OF = {
    "scoring_batch_tokens": "trunk.batching",
    "ATTACH": "head",
    "Activation": "ready_made",
    "AttachedAutoencoder": "attached",
    "Autoencoder": "autoencoder",
    "CONSTANT": "scored",
    "COPIED": "attached",
    "pointed_at": "attached",
    "ClassifierConfig": "files.classifier_config",
    "Contribution": "scored",
    "Description": "description",
    "FloatArray": "sparse",
    "IndexArray": "sparse",
    "Kind": "scored",
    "LinearHead": "head",
    "NonFiniteError": "files.finite",
    "OnNonfinite": "files.finite",
    "Padded": "trunk.batching",
    "PaddingSide": "trunk.batching",
    "Pooling": "trunk.pooling",
    "RESIDUAL": "scored",
    "ReadyMadeAutoencoder": "ready_made",
    "RewardModel": "reward_model",
    "RmsNorm": "ready_made",
    "SarmConfig": "files.config",
    "Scored": "scored",
    "SparseLatents": "sparse",
    "StateHead": "state_head",
    "TensorEntry": "files.checkpoint",
    "TopK": "autoencoder",
    "Trunk": "trunk.trunk",
    "base_config": "trunk.trunk",
    "base_folder": "trunk.trunk",
    "cache_argument": "trunk.cache_argument",
    "check_embeddings": "trunk.batching",
    "check_placement": "trunk.placement",
    "convert": "files.conversion",
    "cut_config": "trunk.trunk",
    "check_checkpoint": "description",
    "describe": "description",
    "dtype_of": "trunk.placement",
    "find_folder": "files.checkpoint",
    "from_checkpoint": "files.checkpoint",
    "has_bfloat16": "trunk.torch_backend",
    "has_tiles": "trunk.torch_backend",
    "head_of": "description",
    "is_attached": "files.classifier_config",
    "is_sarm": "files.config",
    "latents_of": "description",
    "length_sorted_batches": "trunk.batching",
    "load_tensors": "files.checkpoint",
    "load_trunk": "trunk.trunk",
    "no_latents": "head",
    "normalise": "autoencoder",
    "not_finite_rows": "files.finite",
    "pad_batch": "trunk.batching",
    "point_to_copy": "attached",
    "pool_states": "trunk.pooling",
    "pre_topk": "trunk.pre_activations",
    "quiet_transformers": "trunk.trunk",
    "read_attached": "attached",
    "read_config": "files.config",
    "read_head": "description",
    "read_index": "files.checkpoint",
    "read_model_fingerprint": "description",
    "read_template": "description",
    "rounded_factors": "trunk.torch_backend",
    "whole_factors": "trunk.torch_backend",
    "with_own_memory": "trunk.torch_backend",
    "ATTACHED": "files.classifier_config",
    "configuration_folder": "files.checkpoint",
    "stored_type": "files.checkpoint",
    "read_classifier_config": "files.classifier_config",
    "takes_sdpa": "trunk.trunk",
    "trunk_config": "trunk.trunk",
    "write_edited_weights": "attached",
}

__all__ = [
    "ATTACH",
    "ATTACHED",
    "CONSTANT",
    "COPIED",
    "RESIDUAL",
    "Activation",
    "AttachedAutoencoder",
    "Autoencoder",
    "ClassifierConfig",
    "Contribution",
    "Description",
    "FloatArray",
    "IndexArray",
    "Kind",
    "LinearHead",
    "NonFiniteError",
    "OnNonfinite",
    "Padded",
    "PaddingSide",
    "Pooling",
    "ReadyMadeAutoencoder",
    "RewardModel",
    "RmsNorm",
    "SarmConfig",
    "Scored",
    "SparseLatents",
    "StateHead",
    "TensorEntry",
    "TopK",
    "Trunk",
    "base_config",
    "base_folder",
    "cache_argument",
    "check_checkpoint",
    "check_embeddings",
    "check_placement",
    "configuration_folder",
    "convert",
    "cut_config",
    "describe",
    "dtype_of",
    "find_folder",
    "from_checkpoint",
    "has_bfloat16",
    "has_tiles",
    "head_of",
    "is_attached",
    "is_sarm",
    "latents_of",
    "length_sorted_batches",
    "load_tensors",
    "load_trunk",
    "no_latents",
    "normalise",
    "not_finite_rows",
    "pad_batch",
    "point_to_copy",
    "pointed_at",
    "pool_states",
    "pre_topk",
    "quiet_transformers",
    "read_attached",
    "read_classifier_config",
    "read_config",
    "read_head",
    "read_index",
    "read_model_fingerprint",
    "read_template",
    "rounded_factors",
    "scoring_batch_tokens",
    "stored_type",
    "takes_sdpa",
    "trunk_config",
    "whole_factors",
    "with_own_memory",
    "write_edited_weights",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
