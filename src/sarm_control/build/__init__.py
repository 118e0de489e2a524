"""Building a SARM from any causal language model.

In: a model, texts and preference pairs. Out: a SARM checkpoint and how good it is.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.build.autoencoder import AutoencoderConfig
    from sarm_control.build.pipeline import (
        BuildConfig,
        Built,
        Inputs,
        Tools,
        build_sarm,
        check_build,
        silent,
    )
    from sarm_control.build.saving import save_built
    from sarm_control.build.sizes import Sizes, choose_sizes
    from sarm_control.build.states.source import Base, TrunkSource, cut_base, read_base
    from sarm_control.build.states.texts import read_pairs, read_texts

_HOME_OF = {
    "AutoencoderConfig": "autoencoder",
    "Base": "states.source",
    "BuildConfig": "pipeline",
    "Built": "pipeline",
    "Inputs": "pipeline",
    "TrunkSource": "states.source",
    "Sizes": "sizes",
    "Tools": "pipeline",
    "build_sarm": "pipeline",
    "check_build": "pipeline",
    "choose_sizes": "sizes",
    "cut_base": "states.source",
    "read_base": "states.source",
    "read_pairs": "states.texts",
    "read_texts": "states.texts",
    "save_built": "saving",
    "silent": "pipeline",
}

_RENAMED = {
    "Parts": "TrunkSource",
}
"""Former names, for one version."""

__all__ = [
    "AutoencoderConfig",
    "Base",
    "BuildConfig",
    "Built",
    "Inputs",
    "Sizes",
    "Tools",
    "TrunkSource",
    "build_sarm",
    "check_build",
    "choose_sizes",
    "cut_base",
    "read_base",
    "read_pairs",
    "read_texts",
    "save_built",
    "silent",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
