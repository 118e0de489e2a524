"""Building a SARM from any causal language model.

In: a model, texts and preference pairs. Out: a SARM checkpoint and how good it is.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.build.autoencoder import (
        AutoencoderConfig,
        DirectionTerm,
        LossPoint,
        Sparsity,
        TrainedAutoencoder,
        train_topk,
    )
    from sarm_control.build.head.comparisons import PreferenceRow
    from sarm_control.build.head.quality import HeadFigures, head_figures
    from sarm_control.build.pipeline import BuildConfig, Built, Inputs, Tools, build_sarm, check_build, silent
    from sarm_control.build.saving import save_built
    from sarm_control.build.sizes import Sizes, choose_sizes
    from sarm_control.build.states.activations import BATCH_TOKENS, sentence_positions
    from sarm_control.build.states.cache import load_states, save_states, states_key, trunk_fingerprint
    from sarm_control.build.states.material import Material, gather
    from sarm_control.build.states.source import Base, TrunkSource, cut_base, read_base
    from sarm_control.build.states.texts import Conversation, ConversationCorpus, read_pairs, read_texts

_HOME_OF = {
    "AutoencoderConfig": "autoencoder",
    "BATCH_TOKENS": "states.activations",
    "Base": "states.source",
    "BuildConfig": "pipeline",
    "Built": "pipeline",
    "Conversation": "states.texts",
    "ConversationCorpus": "states.texts",
    "DirectionTerm": "autoencoder",
    "HeadFigures": "head.quality",
    "Inputs": "pipeline",
    "LossPoint": "autoencoder",
    "Material": "states.material",
    "PreferenceRow": "head.comparisons",
    "Sizes": "sizes",
    "Sparsity": "autoencoder",
    "Tools": "pipeline",
    "TrainedAutoencoder": "autoencoder",
    "TrunkSource": "states.source",
    "build_sarm": "pipeline",
    "check_build": "pipeline",
    "choose_sizes": "sizes",
    "cut_base": "states.source",
    "gather": "states.material",
    "head_figures": "head.quality",
    "load_states": "states.cache",
    "read_base": "states.source",
    "read_pairs": "states.texts",
    "read_texts": "states.texts",
    "save_built": "saving",
    "save_states": "states.cache",
    "sentence_positions": "states.activations",
    "silent": "pipeline",
    "states_key": "states.cache",
    "train_topk": "autoencoder",
    "trunk_fingerprint": "states.cache",
}

_RENAMED = {
    "Parts": "TrunkSource",
}
"""Former names, for one version."""

__all__ = [
    "BATCH_TOKENS",
    "AutoencoderConfig",
    "Base",
    "BuildConfig",
    "Built",
    "Conversation",
    "ConversationCorpus",
    "DirectionTerm",
    "HeadFigures",
    "Inputs",
    "LossPoint",
    "Material",
    "PreferenceRow",
    "Sizes",
    "Sparsity",
    "Tools",
    "TrainedAutoencoder",
    "TrunkSource",
    "build_sarm",
    "check_build",
    "choose_sizes",
    "cut_base",
    "gather",
    "head_figures",
    "load_states",
    "read_base",
    "read_pairs",
    "read_texts",
    "save_built",
    "save_states",
    "sentence_positions",
    "silent",
    "states_key",
    "train_topk",
    "trunk_fingerprint",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
