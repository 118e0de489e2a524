"""Puts the work of many requests into common batches: an event loop submits, threads do the work.

This module depends on neither models nor HTTP. A worker takes whatever waits when it becomes free. So batches
grow with the load, and no request waits for a batch to fill.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ItemResult(NamedTuple, Generic[R]):
    """The result of item `place` of a batch, or the error why it has none."""

    place: int
    result: "R | Exception"


Work: TypeAlias = Callable[[Sequence[T]], Iterator[Sequence[ItemResult[R]]]]
"""A function that gives one result for each item, in parts of any size and order."""


def isolated(
    work: Work[T, R], items: Sequence[T], owners: Sequence[Hashable]
) -> Iterator[Sequence[ItemResult[R]]]:
    """The results of `work`, where no owner's items can fail those of another.

    Where the work raises, what has no result yet is tried again, owner by owner. The error of an owner alone
    is the result of its items.

    Args:
        work: is given all items first.
        items: [N].
        owners: [N] whose they are, such as the request of each.
    """
    missing = set(range(len(items)))
    try:
        for results in work(items):
            missing -= {one.place for one in results}
            yield results
    except Exception as error:
        if len(set(owners)) == 1:
            yield [ItemResult(place, error) for place in sorted(missing)]
            return
        left: dict[Hashable, list[int]] = {}
        for place in sorted(missing):
            left.setdefault(owners[place], []).append(place)
        for owner, places in left.items():
            for results in isolated(work, [items[place] for place in places], [owner] * len(places)):
                yield [ItemResult(places[one.place], one.result) for one in results]


class QueueFull(Exception):
    """More items wait than are allowed.

    Args:
        retry_after: estimated seconds until the waiting items are done.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class Closed(Exception):
    """The batcher was closed and takes no more work."""


# told apart by identity: two requests may hold equal items, and tickets are keys of dicts
@dataclass(eq=False)
class _Ticket(Generic[T, R]):
    """One request: its items, and the future its caller waits for."""

    items: Sequence[T]
    future: "asyncio.Future[list[R]]"
    loop: asyncio.AbstractEventLoop
    results: list[R | None] = field(init=False)
    missing: int = field(init=False)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.results = [None] * len(self.items)
        self.missing = len(self.items)

    def put(self, place: int, result: "R | Exception") -> bool:
        """Stores a result; returns whether it was the last one missing."""
        if isinstance(result, Exception):
            self.error = self.error or result
        else:
            self.results[place] = result
        self.missing -= 1
        return self.missing == 0


class Batcher(Generic[T, R]):
    """A queue in front of workers. Each worker has a thread of its own.

    Args:
        workers: the work function of each thread, for example one for each device.
        most_at_once: items that a worker takes at a time, >= 1; a larger request is taken alone.
        most_waiting: items that may wait, >= 1; a request that finds an empty queue is always accepted.
    """

    def __init__(self, workers: Sequence[Work[T, R]], *, most_at_once: int, most_waiting: int) -> None:
        self._most_at_once = most_at_once
        self._most_waiting = most_waiting
        self._queue: deque[_Ticket[T, R]] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._closed = False
        self._seconds_per_item = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"sarm-worker-{number}", daemon=True)
            for number, work in enumerate(workers)
        ]

    def start(self) -> None:
        """Starts the workers."""
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether every worker runs and the batcher accepts work."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def submit(self, items: Sequence[T]) -> "asyncio.Future[list[R]]":
        """Puts the items of one request into the queue. Call it from an event loop.

        Returns:
            The results in the order of the items. Cancelling it takes the request out of the queue.

        Raises:
            QueueFull: too many items wait already.
            Closed: after `close`.
        """
        loop = asyncio.get_running_loop()
        ticket: _Ticket[T, R] = _Ticket(items, loop.create_future(), loop)
        if not items:
            ticket.future.set_result([])
            return ticket.future
        with self._changed:
            if self._closed:
                raise Closed("the server is shutting down")
            if self._waiting and self._waiting + len(items) > self._most_waiting:
                # at least a second: told 0, a client would ask in a loop
                raise QueueFull(max(1.0, self._waiting * self._seconds_per_item))
            self._queue.append(ticket)
            self._waiting += len(items)
            self._changed.notify()
        ticket.future.add_done_callback(lambda _: self._forget(ticket))
        return ticket.future

    def close(self, timeout: float | None = None) -> bool:
        """Refuses new work, finishes what was accepted, and ends the workers.

        Args:
            timeout: seconds to wait for them; None waits as long as it takes.

        Returns:
            Whether everything was done; the rest is cancelled.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if end is None else max(0.0, end - time.monotonic()))
        with self._changed:
            left, self._queue = self._queue, deque()
        for ticket in left:
            # a future may only be touched in the thread of its event loop
            ticket.loop.call_soon_threadsafe(ticket.future.cancel)
        return not left and not any(thread.is_alive() for thread in self._threads)

    def _forget(self, ticket: _Ticket[T, R]) -> None:
        """Removes a cancelled request from the queue, so that it no longer takes up room."""
        if ticket.future.cancelled():
            with self._changed:
                # a worker may have taken it already
                if ticket in self._queue:
                    self._queue.remove(ticket)
                    self._waiting -= len(ticket.items)

    def _run(self, work: Work[T, R]) -> None:
        while True:
            taken = self._take()
            if not taken:
                return
            started = time.monotonic()
            self._answer(work, [(ticket, place) for ticket in taken for place in range(len(ticket.items))])
            spent = time.monotonic() - started
            with self._changed:
                per_item = spent / sum(len(ticket.items) for ticket in taken) / len(self._threads)
                # an exponential moving mean, which starts at the first measurement
                self._seconds_per_item += (0.1 if self._seconds_per_item else 1.0) * (
                    per_item - self._seconds_per_item
                )

    def _take(self) -> list[_Ticket[T, R]]:
        """Waits for requests and takes as many as fit; returns none once the batcher is closed and empty."""
        with self._changed:
            while True:
                taken: list[_Ticket[T, R]] = []
                count = 0
                while self._queue:
                    if taken and count + len(self._queue[0].items) > self._most_at_once:
                        break
                    ticket = self._queue.popleft()
                    self._waiting -= len(ticket.items)
                    # a cancelled request: its caller went away or ran out of time
                    if not ticket.future.cancelled():
                        taken.append(ticket)
                        count += len(ticket.items)
                if taken or self._closed:
                    return taken
                self._changed.wait()

    def _answer(self, work: Work[T, R], places: "Sequence[tuple[_Ticket[T, R], int]]") -> None:
        """Does the work for these items of requests; a request that cannot be answered fails no other."""
        items = [ticket.items[place] for ticket, place in places]
        for results in isolated(work, items, [ticket for ticket, _ in places]):
            given = [(*places[one.place], one.result) for one in results]
            _hand_over([ticket for ticket, place, result in given if ticket.put(place, result)])


def _hand_over(done: "Sequence[_Ticket[T, R]]") -> None:
    """Wakes each event loop once, however many of its requests are done."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Ticket[T, R]]] = {}
    for ticket in done:
        by_loop.setdefault(ticket.loop, []).append(ticket)
    for loop, tickets in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, tickets)


def _resolve(tickets: "Sequence[_Ticket[T, R]]") -> None:
    for ticket in tickets:
        # cancelled while it was computed
        if ticket.future.done():
            continue
        if ticket.error is not None:
            ticket.future.set_exception(ticket.error)
        else:
            ticket.future.set_result([result for result in ticket.results if result is not None])
