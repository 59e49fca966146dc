"""One thing to write: an event or a label, with its key and the time it belongs to."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Kind = Literal["event", "label"]


class Item(NamedTuple):
    """An event or a label as bytes; ``time_ms`` is the event time, or when the label is known."""

    kind: Kind
    time_ms: int
    key: bytes | None
    value: bytes | None


def in_time_order(events: Iterable[Item], labels: Iterable[Item]) -> Iterator[Item]:
    """Yield both streams merged by time, each in its own order; at one instant events come first.

    Reads one item ahead of each. A stream that runs back in time is not sorted, only merged.

    Examples
    --------
    >>> events = [Item("event", 1, b"a", b"{}"), Item("event", 3, b"a", b"{}")]
    >>> labels = [Item("label", 1, b"a", b"{}")]
    >>> [(item.kind, item.time_ms) for item in in_time_order(events, labels)]
    [('event', 1), ('label', 1), ('event', 3)]
    """
    return heapq.merge(events, labels, key=lambda item: item.time_ms)
