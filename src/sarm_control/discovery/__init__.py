"""Finds the latents that promote or harm a goal, from scored pairs.

In: pairs with their scores. Out: tested effects, lists of latents, controls for those that harm, evidence at
several levels, and names. A latent that the tests found to promote or harm is a *called* latent.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.discovery.discovery import (
        Discovery,
        DiscoverySettings,
        check_column,
        check_rows,
        discover,
    )
    from sarm_control.discovery.effects.effects import margin_effects
    from sarm_control.discovery.effects.residual_effect import ResidualEffect
    from sarm_control.discovery.evidence.closing import CLOSING
    from sarm_control.discovery.evidence.examine import (
        Depth,
        ExaminedDiscovery,
        check_counterfactuals,
        check_states,
        examine,
    )
    from sarm_control.discovery.evidence.probes import best_latent
    from sarm_control.discovery.features import Feature, ends_of_effect, load_features, select
    from sarm_control.discovery.labels.autointerp import name_latent
    from sarm_control.discovery.labels.chat_endpoint import ChatEndpoint
    from sarm_control.discovery.labels.examples import AnswerCorpus
    from sarm_control.discovery.labels.labels import Label, label_from, labels_text
    from sarm_control.discovery.labels.reply_cache import Replies
    from sarm_control.discovery.pairs.margins import PairLatents, auroc_of
    from sarm_control.discovery.pairs.prompt_pairs import group_by_prompt
    from sarm_control.discovery.pairs.targets import parse_target
    from sarm_control.discovery.report import controls_yaml, summary_text
    from sarm_control.discovery.suggested_controls.control_effects import good_correlation
    from sarm_control.discovery.suggested_controls.joint_controls import joint_controls, stand_in
    from sarm_control.discovery.suggested_controls.suggestion import material_latents, suggested

_HOME_OF = {
    "ResidualEffect": "effects.residual_effect",
    "CLOSING": "evidence.closing",
    "AnswerCorpus": "labels.examples",
    "Depth": "evidence.examine",
    "Discovery": "discovery",
    "ChatEndpoint": "labels.chat_endpoint",
    "ExaminedDiscovery": "evidence.examine",
    "Feature": "features",
    "Label": "labels.labels",
    "PairLatents": "pairs.margins",
    "Replies": "labels.reply_cache",
    "DiscoverySettings": "discovery",
    "best_latent": "evidence.probes",
    "auroc_of": "pairs.margins",
    "check_column": "discovery",
    "check_rows": "discovery",
    "check_counterfactuals": "evidence.examine",
    "check_states": "evidence.examine",
    "controls_yaml": "report",
    "discover": "discovery",
    "ends_of_effect": "features",
    "examine": "evidence.examine",
    "good_correlation": "suggested_controls.control_effects",
    "group_by_prompt": "pairs.prompt_pairs",
    "joint_controls": "suggested_controls.joint_controls",
    "label_from": "labels.labels",
    "labels_text": "labels.labels",
    "load_features": "features",
    "margin_effects": "effects.effects",
    "material_latents": "suggested_controls.suggestion",
    "name_latent": "labels.autointerp",
    "parse_target": "pairs.targets",
    "select": "features",
    "stand_in": "suggested_controls.joint_controls",
    "suggested": "suggested_controls.suggestion",
    "summary_text": "report",
}

_RENAMED = {
    "Corpus": "AnswerCorpus",
    "Endpoint": "ChatEndpoint",
    "Examination": "ExaminedDiscovery",
    "Settings": "DiscoverySettings",
}
"""Former names, for one version."""

__all__ = [
    "CLOSING",
    "AnswerCorpus",
    "ChatEndpoint",
    "Depth",
    "Discovery",
    "DiscoverySettings",
    "ExaminedDiscovery",
    "Feature",
    "Label",
    "PairLatents",
    "Replies",
    "ResidualEffect",
    "auroc_of",
    "best_latent",
    "check_column",
    "check_counterfactuals",
    "check_rows",
    "check_states",
    "controls_yaml",
    "discover",
    "ends_of_effect",
    "examine",
    "good_correlation",
    "group_by_prompt",
    "joint_controls",
    "label_from",
    "labels_text",
    "load_features",
    "margin_effects",
    "material_latents",
    "name_latent",
    "parse_target",
    "select",
    "stand_in",
    "suggested",
    "summary_text",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
