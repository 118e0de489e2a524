"""How results show themselves in a notebook, and how tables become pandas frames."""

from sarm_control.notebooks.shown import Bar, data_frame, ends_of, html_table, number, span

__all__ = ["Bar", "data_frame", "ends_of", "html_table", "number", "span"]
