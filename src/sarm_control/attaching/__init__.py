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
    from sarm_control.attaching.report import FitReport
    from sarm_control.attaching.sizes import DictionarySizes, choose_dictionary_sizes
    from sarm_control.attaching.stability import Stability
    from sarm_control.attaching.training import DictionaryConfig, TrainedDictionary, train_dictionary

_HOME_OF = {
    "Contributions": "contributions",
    "DictionaryConfig": "training",
    "DictionarySizes": "sizes",
    "Explained": "explained",
    "FitData": "fit",
    "FitReport": "report",
    "Fitted": "fit",
    "LatentContribution": "contributions",
    "Stability": "stability",
    "StateSet": "fit",
    "TrainedDictionary": "training",
    "choose_dictionary_sizes": "sizes",
    "fit_dictionary": "fit",
    "measure_fit": "fit",
    "train_dictionary": "training",
}

__all__ = [
    "Contributions",
    "DictionaryConfig",
    "DictionarySizes",
    "Explained",
    "FitData",
    "FitReport",
    "Fitted",
    "LatentContribution",
    "Stability",
    "StateSet",
    "TrainedDictionary",
    "choose_dictionary_sizes",
    "fit_dictionary",
    "measure_fit",
    "train_dictionary",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
