"""The batcher alone, without models or HTTP: who waits, who is answered with whom, what goes wrong."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pytest

from sarm_control.server.scoring.batcher import Batcher, Closed, ItemResult, QueueFull


def doubled(items: Sequence[int]) -> Iterator[Sequence[ItemResult[int]]]:
    """Two at a time, the last ones first."""
    places = list(range(len(items)))[::-1]
    for start in range(0, len(places), 2):
        yield [ItemResult(place, 2 * items[place]) for place in places[start : start + 2]]


class Gate:
    """Work that waits to be let through, and notes what it was given together."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, items: Sequence[int]) -> Iterator[Sequence[ItemResult[int]]]:
        self.taken.append(list(items))
        self.entered.set()
        assert self.open.wait(30)
        yield from doubled(items)

    async def busy(self) -> None:
        """Returns once a worker is at work."""
        await asyncio.to_thread(self.entered.wait, 30)


def run(batcher: Batcher[int, int], scenario: Callable[[], Awaitable[None]]) -> None:
    batcher.start()
    try:
        asyncio.run(asyncio.wait_for(scenario(), 30))
    finally:
        batcher.close(10)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_request_gets_its_own_results_in_its_order(workers: int) -> None:
    batcher: Batcher[int, int] = Batcher([doubled] * workers, most_at_once=7, most_waiting=10_000)

    async def scenario() -> None:
        asked = [list(range(n, n + n % 5)) for n in range(200)]
        found = await asyncio.gather(*(batcher.submit(items) for items in asked))
        assert found == [[2 * item for item in items] for items in asked]

    run(batcher, scenario)


def test_what_waits_is_taken_together_up_to_the_limit() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher([gate], most_at_once=4, most_waiting=100)

    async def scenario() -> None:
        first = batcher.submit([0])
        await gate.busy()
        later = [batcher.submit([number]) for number in range(1, 6)]
        large = batcher.submit([6] * 9)
        gate.open.set()
        assert await asyncio.gather(first, *later, large) == [[0], [2], [4], [6], [8], [10], [12] * 9]

    run(batcher, scenario)
    assert gate.taken == [[0], [1, 2, 3, 4], [5], [6] * 9]


def test_a_full_queue_refuses_and_a_request_that_gave_up_makes_room() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher([gate], most_at_once=1, most_waiting=2)

    async def scenario() -> None:
        first = batcher.submit([0])
        await gate.busy()
        waiting = batcher.submit([1, 2])
        with pytest.raises(QueueFull) as full:
            batcher.submit([3])
        assert full.value.retry_after >= 1
        assert batcher.waiting == 2
        waiting.cancel()
        gate.open.set()
        assert await first == [0]
        assert await batcher.submit([4]) == [8]

    run(batcher, scenario)
    assert gate.taken == [[0], [4]]


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    batcher: Batcher[int, int] = Batcher([doubled], most_at_once=1, most_waiting=2)

    async def scenario() -> None:
        assert await batcher.submit([1] * 9) == [2] * 9
        assert await batcher.submit([]) == []

    run(batcher, scenario)


def test_an_item_that_fails_fails_its_request_alone() -> None:
    def work(items: Sequence[int]) -> Iterator[Sequence[ItemResult[int]]]:
        yield [ItemResult(n, ValueError("odd") if item % 2 else item) for n, item in enumerate(items)]

    batcher: Batcher[int, int] = Batcher([work], most_at_once=9, most_waiting=99)

    async def scenario() -> None:
        found = await asyncio.gather(*(batcher.submit([n, 4]) for n in range(4)), return_exceptions=True)
        assert [str(one) for one in found] == ["[0, 4]", "odd", "[2, 4]", "odd"]

    run(batcher, scenario)


def test_work_that_breaks_is_tried_request_by_request() -> None:
    gate = Gate()

    def work(items: Sequence[int]) -> Iterator[Sequence[ItemResult[int]]]:
        yield [ItemResult(0, 2 * items[0])]
        if 7 in items:
            raise RuntimeError("seven")
        yield [ItemResult(n, 2 * item) for n, item in enumerate(items) if n]

    def gated(items: Sequence[int]) -> Iterator[Sequence[ItemResult[int]]]:
        list(gate(items))
        return work(items)

    batcher: Batcher[int, int] = Batcher([gated], most_at_once=9, most_waiting=99)

    async def scenario() -> None:
        first = batcher.submit([1])
        await gate.busy()
        asked = [batcher.submit(items) for items in ([2, 3], [4, 7], [5])]
        gate.open.set()
        found = await asyncio.gather(first, *asked, return_exceptions=True)
        assert [str(one) for one in found] == ["[2]", "[4, 6]", "seven", "[10]"]
        assert await batcher.submit([8]) == [16]

    run(batcher, scenario)


def test_what_was_answered_before_work_broke_is_not_worked_on_again() -> None:
    gate, given = Gate(), list[list[int]]()

    def work(items: Sequence[int]) -> Iterator[Sequence[ItemResult[int]]]:
        list(gate(items))
        given.append(list(items))
        yield [ItemResult(n, item) for n, item in enumerate(items) if item < 5]
        if 9 in items:
            raise RuntimeError("nine")
        yield [ItemResult(n, item) for n, item in enumerate(items) if item >= 5]

    batcher: Batcher[int, int] = Batcher([work], most_at_once=99, most_waiting=99)

    async def scenario() -> None:
        first = batcher.submit([0])
        await gate.busy()
        asked = [batcher.submit(items) for items in ([7], [1, 6], [2, 9], [3])]
        gate.open.set()
        found = await asyncio.gather(first, *asked, return_exceptions=True)
        assert [str(one) for one in found] == ["[0]", "[7]", "[1, 6]", "nine", "[3]"]

    run(batcher, scenario)
    assert given == [[0], [7, 1, 6, 2, 9, 3], [7], [6], [9]]


def test_closing_answers_what_was_taken_and_takes_nothing_more() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher([gate], most_at_once=1, most_waiting=9)

    async def scenario() -> None:
        taken = [batcher.submit([number]) for number in range(4)]
        await gate.busy()
        closing = asyncio.create_task(asyncio.to_thread(batcher.close, 20))
        while batcher.alive:
            await asyncio.sleep(0.01)
        with pytest.raises(Closed):
            batcher.submit([9])
        gate.open.set()
        assert await asyncio.gather(*taken) == [[0], [2], [4], [6]]
        assert await closing

    run(batcher, scenario)


def test_closing_in_a_hurry_cancels_what_waits() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher([gate], most_at_once=1, most_waiting=9)

    async def scenario() -> None:
        first, second = batcher.submit([1]), batcher.submit([2])
        await gate.busy()
        assert not await asyncio.to_thread(batcher.close, 0.05)
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.open.set()
        assert await first == [2]

    run(batcher, scenario)
