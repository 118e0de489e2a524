"""The page on data files has the table and the columns of the code."""

from pathlib import Path

from sarm_control.data.files.forms import LIST_COLUMNS, TEXT_COLUMNS, files_table

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_table_is_the_code_s() -> None:
    assert files_table() in PAGE


def test_every_column_is_named() -> None:
    assert not [name for name in TEXT_COLUMNS | LIST_COLUMNS if f"`{name}`" not in PAGE]
