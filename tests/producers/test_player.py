"""Playing items: all of them, in time order, and as many as asked for."""

from __future__ import annotations

from collections.abc import Iterator

from producers.items import Item, in_time_order
from producers.pacing import Pacer
from producers.player import first_events, play


class Shelf:
    """A destination that keeps what it was sent."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.times: list[int] = []

    def send(self, item: Item) -> None:
        self.items.append(item)

    def advance(self, time_ms: int) -> None:
        self.times.append(time_ms)


def _event(time_ms: int) -> Item:
    return Item("event", time_ms, b"c1", b"{}")


def _label(time_ms: int) -> Item:
    return Item("label", time_ms, b"c1", b"{}")


def test_play_hands_over_every_item_in_order_and_counts_them() -> None:
    """What goes in comes out, and the watcher hears of each."""
    items, shelf = [_event(1), _label(2), _event(3)], Shelf()
    assert play(items, shelf, Pacer(), shelf) == 3
    assert shelf.items == items
    assert shelf.times == [1, 2, 3]


def test_play_reads_no_item_before_the_one_ahead_was_sent() -> None:
    """A source is never read ahead: bounded memory whatever its length."""
    shelf = Shelf()

    def source() -> Iterator[Item]:
        for index in range(3):
            assert len(shelf.items) == index
            yield _event(index)

    assert play(source(), shelf, Pacer()) == 3


def test_events_and_labels_merge_by_time_with_events_first() -> None:
    """Two sorted streams become one; at one instant the event goes first."""
    merged = in_time_order([_event(1), _event(5)], [_label(1), _label(3), _label(9)])
    assert list(merged) == [_event(1), _label(1), _label(3), _event(5), _label(9)]


def test_a_stream_that_runs_back_keeps_its_own_order() -> None:
    """A late event is not moved: the recorded order of each stream is what is played."""
    merged = list(in_time_order([_event(5), _event(2)], [_label(3)]))
    assert [item for item in merged if item.kind == "event"] == [_event(5), _event(2)]
    assert len(merged) == 3


def test_a_limit_counts_events_and_keeps_the_labels_between_them() -> None:
    """Two events and the label between them: nothing after the second event is read."""
    items = [_event(1), _label(2), _event(3), _label(4), _event(5)]
    assert list(first_events(items, 2)) == [_event(1), _label(2), _event(3)]


def test_without_a_limit_everything_is_played() -> None:
    """None is no bound."""
    assert len(list(first_events([_event(1)] * 5, None))) == 5
