"""What a reward model pays for, and where the pressure goes.

In: a reward model, pairs or sampled answers, attributes of answers. Out: prices of attributes, curves of
best-of-N.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.auditing.attribute_audit import audit
    from sarm_control.auditing.attributes.attribute import Attribute
    from sarm_control.auditing.attributes.battery import BATTERY, attributes_named
    from sarm_control.auditing.attributes.judge import Judge
    from sarm_control.auditing.attributes.own_attributes import OwnAttributes, load_attributes
    from sarm_control.auditing.attributes.text_edits import (
        EDITS,
        Contrast,
        TextEdit,
        Wording,
        added_before,
        added_behind,
        put_before,
        put_behind,
    )
    from sarm_control.auditing.best_of_n import Pressure, kl_bound
    from sarm_control.auditing.causal_prices import CausalPrice, WordingPrice
    from sarm_control.auditing.certificates import Movement, Verdict, certificate
    from sarm_control.auditing.comparing.price_changes import PriceChange, PriceChanges, price_changes
    from sarm_control.auditing.comparing.run_samples import RunMovement, run_movements, steps_of
    from sarm_control.auditing.comparing.text import changes_text, run_text
    from sarm_control.auditing.finding import AttributeFinding
    from sarm_control.auditing.mechanism.carrying import OwnLatent, own_latent
    from sarm_control.auditing.mechanism.token_rewards import TokenReward, token_rewards
    from sarm_control.auditing.mending.mend import Mend
    from sarm_control.auditing.mending.proposal import mend, mendable, unwanted
    from sarm_control.auditing.on_pairs import Accuracy, accuracy
    from sarm_control.auditing.partial_prices import PartialPrice
    from sarm_control.auditing.result import Audit, Example
    from sarm_control.auditing.table import AttributeTable, attribute_table
    from sarm_control.auditing.text import audit_text, controls_text, mend_hint

_HOME_OF = {
    "changes_text": "comparing.text",
    "run_text": "comparing.text",
    "Accuracy": "on_pairs",
    "accuracy": "on_pairs",
    "Example": "result",
    "PriceChange": "comparing.price_changes",
    "PriceChanges": "comparing.price_changes",
    "price_changes": "comparing.price_changes",
    "RunMovement": "comparing.run_samples",
    "run_movements": "comparing.run_samples",
    "steps_of": "comparing.run_samples",
    "OwnLatent": "mechanism.carrying",
    "own_latent": "mechanism.carrying",
    "TokenReward": "mechanism.token_rewards",
    "token_rewards": "mechanism.token_rewards",
    "Verdict": "certificates",
    "Audit": "result",
    "AttributeFinding": "finding",
    "audit": "attribute_audit",
    "audit_text": "text",
    "controls_text": "text",
    "mend_hint": "text",
    "Movement": "certificates",
    "certificate": "certificates",
    "Attribute": "attributes.attribute",
    "Judge": "attributes.judge",
    "OwnAttributes": "attributes.own_attributes",
    "load_attributes": "attributes.own_attributes",
    "Wording": "attributes.text_edits",
    "WordingPrice": "causal_prices",
    "added_before": "attributes.text_edits",
    "added_behind": "attributes.text_edits",
    "put_before": "attributes.text_edits",
    "put_behind": "attributes.text_edits",
    "AttributeTable": "table",
    "BATTERY": "attributes.battery",
    "CausalPrice": "causal_prices",
    "Contrast": "attributes.text_edits",
    "EDITS": "attributes.text_edits",
    "Mend": "mending.mend",
    "PartialPrice": "partial_prices",
    "Pressure": "best_of_n",
    "TextEdit": "attributes.text_edits",
    "attribute_table": "table",
    "attributes_named": "attributes.battery",
    "kl_bound": "best_of_n",
    "mend": "mending.proposal",
    "mendable": "mending.proposal",
    "unwanted": "mending.proposal",
}

__all__ = [
    "BATTERY",
    "EDITS",
    "Accuracy",
    "Attribute",
    "AttributeFinding",
    "AttributeTable",
    "Audit",
    "CausalPrice",
    "Contrast",
    "Example",
    "Judge",
    "Mend",
    "Movement",
    "OwnAttributes",
    "OwnLatent",
    "PartialPrice",
    "Pressure",
    "PriceChange",
    "PriceChanges",
    "RunMovement",
    "TextEdit",
    "TokenReward",
    "Verdict",
    "Wording",
    "WordingPrice",
    "accuracy",
    "added_before",
    "added_behind",
    "attribute_table",
    "attributes_named",
    "audit",
    "audit_text",
    "certificate",
    "changes_text",
    "controls_text",
    "kl_bound",
    "load_attributes",
    "mend",
    "mend_hint",
    "mendable",
    "own_latent",
    "price_changes",
    "put_before",
    "put_behind",
    "run_movements",
    "run_text",
    "steps_of",
    "token_rewards",
    "unwanted",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
