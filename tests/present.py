"""What a test expects to be there, for the type checker too."""

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value itself; the test fails where it is None."""
    assert value is not None, "None, where the test expects a value"
    return value
