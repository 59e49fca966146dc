"""Plays items, recorded or generated, in time order and with their spacing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from producers.items import Item
from producers.pacing import Pacer


class Destination(Protocol):
    """Where items go: topics, or files."""

    def send(self, item: Item) -> None:
        """Take one item; may block, and may raise for an item sent earlier."""


class Watcher(Protocol):
    """Who is told how far it went."""

    def advance(self, time_ms: int) -> None:
        """Note that an item of this recorded time was handed over."""


def play(
    items: Iterable[Item],
    destination: Destination,
    pacer: Pacer,
    watcher: Watcher | None = None,
) -> int:
    """Send each item when it is due; return how many there were. Reads one item ahead, keeps none.

    Examples
    --------
    >>> class Shelf(list):
    ...     send = list.append
    >>> play([Item("event", 0, b"a", b"{}")], Shelf(), Pacer())
    1
    """
    count = 0
    for item in items:
        pacer.wait(item.time_ms)
        destination.send(item)
        count += 1
        if watcher is not None:
            watcher.advance(item.time_ms)
    return count


def first_events(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """Yield items up to and including the ``limit``-th event; labels do not count. None: all.

    Examples
    --------
    >>> both = [Item("event", 0, b"a", b"{}"), Item("label", 1, b"a", b"{}")]
    >>> [item.kind for item in first_events(both * 2, 2)]
    ['event', 'label', 'event']
    """
    if limit is None:
        yield from items
        return
    events = 0
    for item in items:
        yield item
        events += item.kind == "event"
        if events == limit:
            return
