"""Processes that were launched together end with nothing of that left: real ones, on gloo."""

import pytest

from tests.connecting import GROUPS
from tests.training.together import launch

pytestmark = pytest.mark.long


@pytest.mark.parametrize("command", GROUPS)
def test_nothing_holds_the_group_when_the_work_is_done(command: str) -> None:
    """Whoever holds it holds its threads, which abort the process if Python shuts down under them."""
    ended = launch(command, module="tests.connecting")
    assert [(one.code, one.errors) for one in ended] == [(0, ""), (0, "")]
