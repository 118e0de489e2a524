"""Attaching a dictionary to any reward model with a linear head.

In: a reward model and texts. Out: the reward model with a sparse autoencoder of its state, and how much of
its rewards that explains.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.attaching.contributions import Contributions, LatentContribution
    from sarm_control.attaching.explained import Explained
    from sarm_control.attaching.fit import FitData, Fitted, StateSet, fit_dictionary, measure_fit
    from sarm_control.attaching.pipeline import (
        AttachConfig,
        Attached,
        attach,
        attach_dictionary,
        check_attach,
        refuse_latents,
        sized,
    )
    from sarm_control.attaching.ready_made import read_dictionary
    from sarm_control.attaching.report import FitReport
    from sarm_control.attaching.saving import save_attached_model
    from sarm_control.attaching.sizes import DictionarySizes, choose_dictionary_sizes
    from sarm_control.attaching.stability import Stability
    from sarm_control.attaching.states import PooledStates, collect_pooled_states
    from sarm_control.attaching.training import DictionaryConfig, TrainedDictionary, train_dictionary

_HOME_OF = {
    "AttachConfig": "pipeline",
    "Attached": "pipeline",
    "Contributions": "contributions",
    "DictionaryConfig": "training",
    "DictionarySizes": "sizes",
    "Explained": "explained",
    "FitData": "fit",
    "FitReport": "report",
    "Fitted": "fit",
    "LatentContribution": "contributions",
    "PooledStates": "states",
    "Stability": "stability",
    "StateSet": "fit",
    "TrainedDictionary": "training",
    "attach": "pipeline",
    "attach_dictionary": "pipeline",
    "check_attach": "pipeline",
    "read_dictionary": "ready_made",
    "refuse_latents": "pipeline",
    "choose_dictionary_sizes": "sizes",
    "collect_pooled_states": "states",
    "fit_dictionary": "fit",
    "measure_fit": "fit",
    "save_attached_model": "saving",
    "sized": "pipeline",
    "train_dictionary": "training",
}

__all__ = [
    "AttachConfig",
    "Attached",
    "Contributions",
    "DictionaryConfig",
    "DictionarySizes",
    "Explained",
    "FitData",
    "FitReport",
    "Fitted",
    "LatentContribution",
    "PooledStates",
    "Stability",
    "StateSet",
    "TrainedDictionary",
    "attach",
    "attach_dictionary",
    "check_attach",
    "choose_dictionary_sizes",
    "collect_pooled_states",
    "fit_dictionary",
    "measure_fit",
    "read_dictionary",
    "refuse_latents",
    "save_attached_model",
    "sized",
    "train_dictionary",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
