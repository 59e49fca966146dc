"""Records of one shard that were polled and not processed: how events and labels are merged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from worker.contracts.records import Int64, Records


@dataclass(slots=True)
class Buffer:
    """Records of one topic partition that were polled and not taken."""

    topic: str
    partition: int
    next_offset: int
    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    _newest_ms: int | None = None  # known of what is here

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.offsets)

    def add(self, records: Records) -> None:
        """Append records that follow those added before."""
        self.offsets += records.offsets
        self.timestamps_ms += records.timestamps_ms
        self.keys += records.keys
        self.values += records.values
        self.next_offset = records.next_offset
        if self._newest_ms is not None:
            self._newest_ms = max([self._newest_ms, *records.timestamps_ms])

    def take(self, count: int) -> Records:
        """Return and drop the first ``count`` records."""
        whole = count == len(self.offsets)
        last = self.offsets[count - 1] + 1 if count else self._head()
        taken = Records(
            self.topic,
            self.partition,
            self.offsets[:count],
            self.timestamps_ms[:count],
            self.keys[:count],
            self.values[:count],
            self.next_offset if whole else last,
        )
        for column in (self.offsets, self.timestamps_ms, self.keys, self.values):
            del column[:count]
        self._newest_ms = None
        return taken

    def newest_ms(self) -> int:
        """Return the largest timestamp of what is here, which is not nothing."""
        if self._newest_ms is None:
            self._newest_ms = max(self.timestamps_ms)
        return self._newest_ms

    def _head(self) -> int:
        return self.offsets[0] if self.offsets else self.next_offset


class Inbox:
    """Merges the events and labels of one shard by record timestamp.

    A label goes before the first event that is not older than it: it was known then. While one side
    has nothing and is known to lag behind its log, the other side waits, so that a backlog is
    processed in the order in which it arose.
    """

    def __init__(
        self, events: str, labels: str | None, partition: int, events_next: int, labels_next: int
    ) -> None:
        self._events = Buffer(events, partition, events_next)
        self._labels = Buffer(labels or "", partition, labels_next)
        self._has_labels = labels is not None

    def __len__(self) -> int:
        return len(self._events) + len(self._labels)

    def waiting(self, topic: str) -> int:
        """Return how many records of a topic wait."""
        return len(self._events if topic == self._events.topic else self._labels)

    def ready(self, records_max: int, *, labels_end: bool) -> int:
        """Return how many events `take` would return."""
        if labels_end or not self._has_labels:
            return min(len(self._events), records_max)
        return len(self._ready(records_max, labels_end))

    def add(self, records: Records) -> None:
        """Append records that follow those added before."""
        mine = self._events if records.topic == self._events.topic else self._labels
        mine.add(records)

    def full(self, records_max: int) -> list[str]:
        """Return the topics of which at least ``records_max`` records wait."""
        return [b.topic for b in (self._events, self._labels) if len(b) >= records_max]

    def take(
        self, records_max: int, *, events_end: bool, labels_end: bool
    ) -> tuple[Records, Records, Int64]:
        """Return the next events and labels, and per label how many of the events come before it.

        Parameters
        ----------
        events_end, labels_end
            Whether nothing more is to be waited for on that side.
        """
        clock = self._ready(records_max, labels_end)
        count = len(clock)
        limit = self._next_ms(clock)
        events = self._events.take(count)
        times = np.array(self._labels.timestamps_ms, np.int64)
        all_labels = events_end and not len(self._events)
        known = len(times) if all_labels else _prefix(times, limit)
        labels = self._labels.take(known)
        before = np.searchsorted(clock, times[:known], side="left")
        return events, labels, np.maximum.accumulate(before.astype(np.int64))

    def _ready(self, records_max: int, labels_end: bool) -> Int64:
        """Return the running maximum of timestamps of the events that need not wait."""
        clock = np.maximum.accumulate(np.array(self._events.timestamps_ms[:records_max], np.int64))
        return clock if labels_end or not self._has_labels else clock[: self._covered(clock)]

    def _next_ms(self, clock: Int64) -> int:
        """Return the time up to which labels go with the events of ``clock``.

        That of the event after them, or their own where none is here.
        """
        newest_ms = int(clock[-1]) if len(clock) else -1
        later = self._events.timestamps_ms[len(clock) : len(clock) + 1]
        return max([newest_ms, *later])

    def _covered(self, clock: Int64) -> int:
        """Return how many events are no younger than the last label that is here."""
        if not len(self._labels):
            return 0
        return int(np.searchsorted(clock, self._labels.newest_ms(), side="right"))


def _prefix(times: Int64, limit: int) -> int:
    """Return how many of the first times are at most ``limit``."""
    later = np.flatnonzero(times > limit)
    return int(later[0]) if len(later) else len(times)
