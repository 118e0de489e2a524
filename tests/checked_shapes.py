"""Checks the shapes and types that the numeric core's signatures name, in every test.

A signature such as `Float[Tensor, "N T"]` is a claim. With this hook each call is held against it, so that a
swapped axis is an error at the function that got it, and not a wrong number much later.
"""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# An int is a float here, as it is to other type checkers.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

CHECKED = (
    "sarm_control.control.density_ratio.logistic",
    "sarm_control.control.density_ratio.mmd",
    "sarm_control.control.density_ratio.separation",
    "sarm_control.statistics",
    "sarm_control.training.algorithm.importance_weights",
    "sarm_control.training.algorithm.losses",
)

install_import_hook(CHECKED, f"{__name__}.checked")
