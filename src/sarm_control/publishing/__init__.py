"""Model cards, and folders on the hub.

In: a run folder or a reward model. Out: the hub's README.md, and, only when it is asked for, an upload.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.publishing.card import CARD, Evidence, card_of, read_evidence
    from sarm_control.publishing.contents import Contents, contents_of
    from sarm_control.publishing.hub import upload

_HOME_OF = {
    "CARD": "card",
    "Contents": "contents",
    "Evidence": "card",
    "card_of": "card",
    "contents_of": "contents",
    "read_evidence": "card",
    "upload": "hub",
}

__all__ = ["CARD", "Contents", "Evidence", "card_of", "contents_of", "read_evidence", "upload"]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
