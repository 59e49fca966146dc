"""Labels of a replay: from a column that became known later, or from a file, in time order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from worker.contracts.clock import NO_TIME_MS
from worker.contracts.records import Int64, Records
from worker.contracts.settings import FieldSettings, Settings
from worker.streams.file_bytes import Progress
from worker.streams.file_formats import (
    Block,
    Layout,
    missing_column,
    names_in,
    read_blocks,
)
from worker.streams.file_source import Rows, find_files

END_MS = 1 << 62
"""A time after every label."""

_TRIM = 65_536
_TRUTHS = {"0": 0, "1": 1, "false": 0, "true": 1}
_FIELDS = {
    "event_id": FieldSettings(type="string"),
    "label": FieldSettings(type="string"),
    "time": FieldSettings(type="timestamp", unit="ms"),
    "weight": FieldSettings(type="float", default=1.0),
    "source": FieldSettings(type="string", default=""),
}
_REQUIRED = ("event_id", "label", "time")


class _Line(msgspec.Struct, omit_defaults=True, gc=False):
    """A label as `worker.contracts.messages.LabelMessage` has it; types are checked later."""

    event_id: Any
    label: Any
    time: int | None = None
    weight: Any = None
    source: Any = None


_encode = msgspec.json.Encoder().encode


class Labels(Protocol):
    """Where a replay's labels come from."""

    def add(self, rows: Rows) -> None:
        """Note events that are handed out now."""

    def take(self, until_ms: int, count: int | None = None) -> Records:
        """Return the labels known until a time, inclusive, in time order; at most ``count``."""

    @property
    def exhausted(self) -> bool:
        """Return whether no label is left."""


class LabelQueue:
    """Labels that wait for their time; of one time, in the order in which they were added."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._times: list[int] = []
        self._keys: list[bytes | None] = []
        self._values: list[bytes | None] = []
        self._head = 0
        self._taken = 0

    def __len__(self) -> int:
        return len(self._times) - self._head

    @property
    def last_ms(self) -> int:
        """Return the time of the last label that waits."""
        return self._times[-1]

    def add(
        self, times: Sequence[int], keys: Sequence[bytes | None], values: Sequence[bytes]
    ) -> None:
        """Add labels in any order of time; cheap while none is older than the last that waits."""
        is_behind = bool(len(self) and times and times[0] < self._times[-1])
        self._times += times
        self._keys += keys
        self._values += values
        if is_behind or any(a > b for a, b in pairwise(times)):
            self._sort()

    def take(self, until_ms: int, count: int | None = None) -> Records:
        """Return and forget the labels until a time; see `Labels.take`."""
        end = bisect_right(self._times, until_ms, lo=self._head)
        if count is not None:
            end = min(end, self._head + count)
        here = slice(self._head, end)
        start, self._taken = self._taken, self._taken + end - self._head
        records = Records(
            self._topic, 0, list(range(start, self._taken)), self._times[here],
            self._keys[here], self._values[here], self._taken,
        )  # fmt: skip
        self._head = end
        if self._head > max(_TRIM, len(self)):
            self._trim()
        return records

    def _trim(self) -> None:
        for column in (self._times, self._keys, self._values):
            del column[: self._head]
        self._head = 0

    def _sort(self) -> None:
        self._trim()
        order = np.argsort(np.array(self._times, np.int64), kind="stable").tolist()
        self._times = [self._times[i] for i in order]
        self._keys = [self._keys[i] for i in order]
        self._values = [self._values[i] for i in order]


class ColumnLabels:
    """The truth in the rows themselves, known ``delay_ms`` after the time of the row.

    The truth about a row is known 1 ms after the row was read, at the earliest, also where the row
    came late: so where the events are cut into polls makes no difference. Rows without a truth, an
    id or a time give no label.
    """

    def __init__(self, topic: str, delay_ms: int) -> None:
        self._delay_ms = delay_ms
        self._queue = LabelQueue(topic)

    def add(self, rows: Rows) -> None:
        """Note the truth about events."""
        records = rows.records
        times = np.array(records.timestamps_ms, np.int64) + self._delay_ms
        known_ms = np.maximum(times, rows.clock_ms + 1).tolist()
        found: list[tuple[int, bytes | None, bytes]] = []
        for i, (event_id, value) in enumerate(zip(rows.ids, rows.labels, strict=True)):
            label = _truth(value)
            if label is None or event_id is None or records.timestamps_ms[i] < 0:
                continue
            try:
                found.append((known_ms[i], records.keys[i], _encode(_Line(event_id, label))))
            except UnicodeEncodeError:  # an id that is not UTF-8: its event is refused as well
                continue
        if found:
            self._queue.add(*map(list, zip(*found, strict=True)))

    def take(self, until_ms: int, count: int | None = None) -> Records:
        """Return the labels known until a time; see `Labels.take`."""
        return self._queue.take(until_ms, count)

    @property
    def exhausted(self) -> bool:
        """Return whether no label waits."""
        return not len(self._queue)


class FileLabels:
    """Labels of a file with the columns event_id, label, time and, if it has them, weight, source.

    A time is ISO 8601, or a number in the unit of the events' times (milliseconds where those are
    ISO). A label without one is known with the label before it. What is no label at all goes
    through unchanged and is refused later. A file that is in time order is read as it is needed,
    any other is held in memory.

    Raises
    ------
    ConfigError
        The file is missing, damaged or lacks a column.
    """

    def __init__(self, settings: Settings, path: Path, topic: str) -> None:
        unit = settings.events.time.unit
        self._layout = Layout(
            _FIELDS, tuple(_FIELDS), _REQUIRED, "time", "ms" if unit == "iso" else unit, True
        )
        self._paths = find_files(path)
        self._queue = LabelQueue(topic)
        is_sorted = self._check()
        self._last_ms = NO_TIME_MS
        self._blocks = self._read()
        self._ended = False
        while not is_sorted and not self._ended:
            self._read_on()

    def add(self, rows: Rows) -> None:
        """Do nothing: the file knows its labels."""

    def take(self, until_ms: int, count: int | None = None) -> Records:
        """Return the labels known until a time; see `Labels.take`."""
        while not self._ended and self._wants_more(until_ms, count):
            self._read_on()
        return self._queue.take(until_ms, count)

    @property
    def exhausted(self) -> bool:
        """Return whether no label is left; may read ahead."""
        while not self._ended and not len(self._queue):
            self._read_on()
        return not len(self._queue)

    def _wants_more(self, until_ms: int, count: int | None) -> bool:
        if not len(self._queue):
            return True
        return self._queue.last_ms <= until_ms and (count is None or len(self._queue) < count)

    def _check(self) -> bool:
        """Return whether times never go back."""
        self._last_ms, is_sorted = NO_TIME_MS, True
        for block in self._read():
            before_ms = self._last_ms
            times = np.concatenate(([before_ms], self._filled(block.time_ms)))
            is_sorted = is_sorted and bool((np.diff(times) >= 0).all())
        return is_sorted

    def _read(self) -> Iterator[Block]:
        for path in self._paths:
            is_first = True
            for block in read_blocks(path, self._layout, Progress()):
                for name in _REQUIRED if is_first else ():
                    if all(value is None for value in block.wanted[name]):
                        raise missing_column(path, name, names_in(block.values))
                is_first = False
                yield block

    def _read_on(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            self._ended = True
            return
        wanted = (block.wanted[name] for name in ("event_id", "label", "weight", "source"))
        rows = zip(block.values, block.time_ms.tolist(), *wanted, strict=True)
        times = self._filled(block.time_ms).tolist()
        self._queue.add(times, [None] * len(times), [_rewritten(*row) for row in rows])

    def _filled(self, time_ms: Int64) -> Int64:
        """Return the times with the last good one wherever there is none."""
        good = np.where(time_ms >= 0, np.arange(1, len(time_ms) + 1), 0)
        filled = np.concatenate(([self._last_ms], time_ms))[np.maximum.accumulate(good)]
        self._last_ms = int(filled[-1])
        return filled


def _rewritten(
    line: bytes, time_ms: int, event_id: Any, label: Any, weight: Any, source: Any
) -> bytes:
    """Return a label with its time in ms, or the line as it was where it is no label."""
    if time_ms < 0 or event_id is None or label is None:
        return line
    try:
        return _encode(_Line(event_id, _truth(label), time_ms, weight, source))
    except UnicodeEncodeError:
        return line


def _truth(value: Any) -> Any:
    """Return 0, 1, None for none, or a value that is refused later, as it was.

    >>> _truth("1"), _truth(False), _truth(1.0), _truth(""), _truth("yes"), _truth(2)
    (1, 0, 1, None, 'yes', 2)
    """
    if isinstance(value, str):
        return _TRUTHS.get(value.lower(), value or None)
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    return int(value) if value in (0, 1) else value
