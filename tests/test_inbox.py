"""The inbox: how events and labels of one shard are merged."""

from __future__ import annotations

from worker.contracts.records import Records
from worker.inbox import Inbox


def records(topic: str, times: list[int], first: int = 0) -> Records:
    n = len(times)
    offsets = list(range(first, first + n))
    return Records(topic, 0, offsets, times, [None] * n, [b"v"] * n, first + n)


def inbox(events: list[int], labels: list[int]) -> Inbox:
    made = Inbox("e", "l", 0, 0, 0)
    made.add(records("e", events))
    if labels:
        made.add(records("l", labels))
    return made


def test_a_label_goes_before_the_first_event_that_is_not_older() -> None:
    """On a tie the label was known when the event came."""
    events, labels, before = inbox([10, 20, 30], [5, 20, 25]).take(
        10, events_end=True, labels_end=True
    )
    assert (events.offsets, labels.offsets) == ([0, 1, 2], [0, 1, 2])
    assert before.tolist() == [0, 1, 2]


def test_events_wait_for_a_label_log_that_lags() -> None:
    """Events younger than the last label here wait until more labels come."""
    box = inbox([10, 20, 30], [15])
    events, labels, before = box.take(10, events_end=True, labels_end=False)
    assert (events.offsets, labels.offsets, before.tolist()) == ([0], [0], [1])
    assert len(box) == 2


def test_all_events_wait_when_the_label_log_lags_and_none_is_here() -> None:
    """Nothing is known about labels yet, so no event may overtake them."""
    events, labels, _ = inbox([10], []).take(10, events_end=True, labels_end=False)
    assert not len(events)
    assert not len(labels)


def test_labels_wait_for_an_event_log_that_lags() -> None:
    """A label younger than the last event here waits until more events come."""
    _, labels, _ = inbox([10, 20], [15, 40]).take(10, events_end=False, labels_end=True)
    assert labels.offsets == [0]


def test_the_batch_is_bounded_and_leaves_later_labels() -> None:
    """Labels beyond the next event stay for the next batch; positions follow."""
    box = inbox([10, 20, 30], [5, 35])
    events, labels, _ = box.take(2, events_end=True, labels_end=True)
    assert (events.next_offset, labels.next_offset) == (2, 1)
    events, labels, before = box.take(2, events_end=True, labels_end=True)
    assert (events.offsets, labels.offsets, before.tolist()) == ([2], [1], [1])


def test_the_position_moves_over_markers_only_when_all_is_taken() -> None:
    """The offset after a poll may lie beyond its last record; a part ends at its own last."""
    box = Inbox("e", None, 0, 0, 0)
    box.add(Records("e", 0, [0, 1], [1, 2], [None] * 2, [b""] * 2, 9))
    assert box.take(1, events_end=True, labels_end=True)[0].next_offset == 1
    assert box.take(1, events_end=True, labels_end=True)[0].next_offset == 9


def test_labels_up_to_the_next_event_go_with_the_batch() -> None:
    """Else two full buffers, labels before the next event and events after them, wait for ever."""
    box = inbox([50, 60], [20, 30])
    events, labels, before = box.take(10, events_end=False, labels_end=False)
    assert (events.offsets, labels.offsets, before.tolist()) == ([], [0, 1], [0, 0])


def test_an_old_event_does_not_hold_back_labels() -> None:
    """Order is by the running maximum of event timestamps: a late event changes nothing."""
    _, labels, before = inbox([10, 50, 20, 60], [30]).take(10, events_end=True, labels_end=True)
    assert labels.offsets == [0]
    assert before.tolist() == [1]


def test_full_names_the_topics_that_wait() -> None:
    """Topics with too many waiting records are to be paused."""
    assert inbox([1, 2, 3], [1]).full(2) == ["e"]
