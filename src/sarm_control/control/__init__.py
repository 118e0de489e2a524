"""Controls: what changes the reward a policy sees. Edits, penalties and the human-KL term."""

from sarm_control.control.edits import Edit, apply_edits, edit_delta, load_edits, parse_edit
from sarm_control.control.penalties import Penalty, parse_penalty

__all__ = ["Edit", "Penalty", "apply_edits", "edit_delta", "load_edits", "parse_edit", "parse_penalty"]
