"""The commands `discover`, `compare` and `evaluate` as functions, with the same defaults."""

from sarm_control.functions.as_functions import Evaluation, compare, discover, evaluate

__all__ = ["Evaluation", "compare", "discover", "evaluate"]
