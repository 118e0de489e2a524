"""What a reward model pays for, and where the pressure goes.

In: a reward model, pairs or sampled answers, attributes of answers. Out: prices of attributes, curves of best-of-N.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.audit.attributes.attribute import Attribute
    from sarm_control.audit.attributes.battery import BATTERY, attributes_named
    from sarm_control.audit.attributes.text_edits import EDITS, TextEdit
    from sarm_control.audit.causal_prices import CausalPrice
    from sarm_control.audit.partial_prices import PartialPrice
    from sarm_control.audit.pressure import Pressure, kl_bound
    from sarm_control.audit.table import AttributeTable, attribute_table

_HOME_OF = {
    "Attribute": "attributes.attribute",
    "AttributeTable": "table",
    "BATTERY": "attributes.battery",
    "CausalPrice": "causal_prices",
    "EDITS": "attributes.text_edits",
    "PartialPrice": "partial_prices",
    "Pressure": "pressure",
    "TextEdit": "attributes.text_edits",
    "attribute_table": "table",
    "attributes_named": "attributes.battery",
    "kl_bound": "pressure",
}

__all__ = [
    "BATTERY",
    "EDITS",
    "Attribute",
    "AttributeTable",
    "CausalPrice",
    "PartialPrice",
    "Pressure",
    "TextEdit",
    "attribute_table",
    "attributes_named",
    "kl_bound",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
