"""The queue of events that count as negative unless somebody labels them in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import msgspec

from worker.contracts.records import Int64
from worker.errors import StateDamagedError

PER_EVENT_MAX = 8
"""Events that mature before one event, at most: after a gap the rest follow event by event."""

_CHUNK = 512
Item = tuple[int, int, str]
"""Event time of the shard when the event came, its number, its id."""


class MaturityQueue:
    """Events in the order in which they came, oldest first: so also in that of the shard's clock.

    All of it is in memory, 150 B an event. The store has it in chunks of 512 under ``kind:N``; of
    those only the last is ever written again, and what is left behind is deleted. ``ends`` says
    how many have gone by at each end; with it a queue is restored.
    """

    def __init__(self, kind: str, ends: Sequence[int] = (0, 0)) -> None:
        self._kind = kind
        self._first, self._next = ends
        self._restored = self._first // _CHUNK * _CHUNK
        self._items: list[Item] = []  # those that have left are deleted many at once
        self._left = 0
        self._dirty: dict[int, None] = {}
        self._kept_from = self._first // _CHUNK

    @property
    def ends(self) -> tuple[int, int]:
        """Return how many events have left, and how many have come."""
        return self._first, self._next

    def __len__(self) -> int:
        return len(self._items) - self._left

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items[self._left :])

    def append(self, clock_ms: int, number: int, event_id: str) -> None:
        """Add an event that came at this event time, no earlier than those before it."""
        self._items.append((clock_ms, number, event_id))
        self._dirty[self._next // _CHUNK] = None
        self._next += 1

    def until(self, clock_ms: int, events: int) -> list[str]:
        """Return the ids that may mature before ``events`` more events, up to a time."""
        some = self._items[self._left : self._left + PER_EVENT_MAX * events]
        return [event_id for _, _, event_id in takewhile(lambda one: one[0] <= clock_ms, some)]

    def take(self, clock_ms: Int64, maturity_ms: int, number: int) -> list[tuple[int, Item]]:
        """Return and drop what matures, each with the index of the event before which it does.

        Parameters
        ----------
        clock_ms
            The shard's event time with each event of a batch; it does not decrease.
        number
            Events that came before this one cannot be found at the first event of the batch, one
            more at each that follows: they are dropped.
        """
        taken: list[tuple[int, Item]] = []
        place, here = 0, 0
        while len(self):
            came_ms, came, _ = self._items[self._left]
            first = int(clock_ms.searchsorted(came_ms + maturity_ms))
            if here == PER_EVENT_MAX:
                place, here = place + 1, 0
            if first > place:
                place, here = first, 0
            if place >= len(clock_ms):
                break
            if came < number + place:
                self._pop()
                continue
            taken.append((place, self._pop()))
            here += 1
        return taken

    def forget(self, number: int) -> None:
        """Drop the events that came before the ``number``-th: they cannot be found any more."""
        while len(self) and self._items[self._left][1] < number:
            self._pop()

    @property
    def dirty_count(self) -> int:
        """Return how many keys the store does not have yet."""
        return len(self._dirty)

    def take_dirty(self) -> tuple[list[str], list[bytes | None]]:
        """Return names and bytes of the changed chunks, None for those left behind, and call them
        clean.
        """
        first = self._first // _CHUNK
        gone = range(self._kept_from, first)
        changed = [chunk for chunk in self._dirty if chunk >= first]
        self._dirty.clear()
        self._kept_from = first
        names = [str(chunk) for chunk in (*gone, *changed)]
        return names, [*[None for _ in gone], *map(self._chunk, changed)]

    def owed(self) -> list[str]:
        """Return the keys of all chunks, in order, to be given to `load` one after the other."""
        last = -(-self._next // _CHUNK)
        return [f"{self._kind}:{chunk}" for chunk in range(self._first // _CHUNK, last)]

    def load(self, chunk: str, value: bytes | None) -> None:
        """Take a chunk after a restart.

        Raises
        ------
        StateDamagedError
            It is not there, or another: the space is to be rebuilt from the log.
        """
        rows = [] if value is None else msgspec.msgpack.decode(value, type=list[Item])
        end = min(self._next, (int(chunk) + 1) * _CHUNK)
        if self._restored != int(chunk) * _CHUNK or self._restored + len(rows) != end:
            expected = f"{end - self._restored} events"
            raise StateDamagedError(f"store {self._kind}:{chunk}", expected, str(len(rows)))
        self._items.extend(rows[max(0, self._first - self._restored) :])
        self._restored = end

    def _pop(self) -> Item:
        item = self._items[self._left]
        self._first += 1
        self._left += 1
        if self._left > _CHUNK and 2 * self._left > len(self._items):
            del self._items[: self._left]
            self._left = 0
        return item

    def _chunk(self, chunk: int) -> bytes:
        """Return a chunk's events; those that have left are needed for the places of the rest."""
        start = chunk * _CHUNK - self._first
        rows = self._items[self._left + max(0, start) : self._left + max(0, start + _CHUNK)]
        return msgspec.msgpack.encode([(0, 0, "")] * max(0, -start) + rows)
