"""Recorded events as records with offsets and timestamps, over one or many files."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.contracts.clock import NO_TIME_MS, EventClock
from worker.contracts.records import Int64, Records
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.streams.file_bytes import Progress
from worker.streams.file_formats import (
    Block,
    Layout,
    format_of,
    missing_column,
    names_in,
    parquet_rows,
    read_blocks,
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Events as records, and beside each its id and the truth about it, None where there is none.

    ``clock_ms`` is the largest timestamp so far per row: it never goes back.
    """

    records: Records
    ids: Sequence[Any]
    labels: Sequence[Any]
    clock_ms: Int64


@dataclass(slots=True)
class _Part:
    """Rows of one block that were read and not taken, from ``start`` on."""

    values: list[bytes]
    keys: list[bytes | None]
    timestamps_ms: list[int]
    clock_ms: Int64
    ids: Sequence[Any]
    labels: Sequence[Any]
    start: int = 0

    def __len__(self) -> int:
        return len(self.values) - self.start


class FileSource:
    """Events of JSONL, CSV and Parquet files, plain or compressed, in bounded memory.

    Offsets count the rows over all files (blank lines are none). A timestamp is the row's event
    time; where that cannot be read, or `EventClock` does not believe it, it is the largest one so
    far (-1 at the start): one row from 2099 must not make all labels known.

    Parameters
    ----------
    path
        A file, a directory, or a pattern such as ``day-*.jsonl.gz``; many files are read in the
        order of their names.
    label_column
        The column with the truth about the row, if there is one.

    Raises
    ------
    ConfigError
        There is no such file, its suffix is unknown, it lacks a column or is damaged.
    """

    def __init__(self, settings: Settings, path: Path, label_column: str | None = None) -> None:
        self._events = settings.events
        self._label = label_column
        self.paths = find_files(path)
        self._layout = _layout(settings, label_column)
        self._progress = Progress()
        self._clock = EventClock(settings.events.ahead_max)
        self._clock_ms = NO_TIME_MS
        self._parts: deque[_Part] = deque()
        self._blocks = self._read()
        self._failure: ConfigError | None = None
        self.rows_read = 0
        self.bytes_total = sum(one.stat().st_size for one in self.paths)
        all_parquet = all(format_of(one) == "parquet" for one in self.paths)
        self.rows_total = sum(map(parquet_rows, self.paths)) if all_parquet else None
        self._fill(1)  # A file of other columns is refused before anything is processed.

    @property
    def bytes_read(self) -> int:
        """Return how many bytes were read of ``bytes_total``, as stored."""
        return self._progress.bytes_read

    @property
    def exhausted(self) -> bool:
        """Return whether `take` has nothing more; may read ahead."""
        return self._fill(1) == 0

    def __iter__(self) -> Iterator[Records]:
        """Yield all records that are left, some thousand at a time."""
        while not self.exhausted:
            yield self.take(8_192).records

    def take(self, count: int) -> Rows:
        """Return the next rows, ``count`` of them unless the files end."""
        wanted = min(count, self._fill(count))
        values: list[bytes | None] = []
        keys: list[bytes | None] = []
        timestamps_ms: list[int] = []
        ids: list[Any] = []
        labels: list[Any] = []
        clocks: list[Int64] = [np.empty(0, np.int64)]
        while len(values) < wanted:
            part = self._parts[0]
            here = slice(part.start, min(len(part.values), part.start + wanted - len(values)))
            values += part.values[here]
            keys += part.keys[here]
            timestamps_ms += part.timestamps_ms[here]
            ids += part.ids[here]
            labels += part.labels[here]
            clocks.append(part.clock_ms[here])
            part.start = here.stop
            if not len(part):
                self._parts.popleft()
        start, self.rows_read = self.rows_read, self.rows_read + wanted
        offsets = list(range(start, self.rows_read))
        records = Records(
            self._events.topic, 0, offsets, timestamps_ms, keys, values, self.rows_read
        )
        return Rows(records, ids, labels, np.concatenate(clocks))

    def _fill(self, count: int) -> int:
        """Read until ``count`` rows are there or the files end; return how many are there.

        Where a file is damaged, the rows before are taken first.
        """
        ready = sum(map(len, self._parts))
        while ready < count and self._failure is None and (block := self._next()) is not None:
            self._parts.append(self._part(block))
            ready += len(block.values)
        if self._failure is not None and not ready:
            raise self._failure
        return ready

    def _next(self) -> Block | None:
        try:
            return next(self._blocks, None)
        except ConfigError as failure:
            self._failure = failure
            return None

    def _read(self) -> Iterator[Block]:
        for path in self.paths:
            is_first = True
            for block in read_blocks(path, self._layout, self._progress):
                if is_first and format_of(path) == "jsonl":
                    self._check_label(path, block)
                is_first = False
                yield block

    def _check_label(self, path: Path, block: Block) -> None:
        """Refuse a column that no line of the first block has: its name is likely misspelt."""
        if self._label is not None and all(v is None for v in block.wanted[self._label]):
            raise missing_column(path, self._label, names_in(block.values))

    def _part(self, block: Block) -> _Part:
        events = self._events
        default = events.fields[events.key].default
        keys = _keys(block.wanted[events.key], default)
        timestamps_ms, clock_ms = self._believe(block.time_ms)
        ids = block.wanted[events.id]
        labels = [None] * len(keys) if self._label is None else block.wanted[self._label]
        return _Part(block.values, keys, timestamps_ms.tolist(), clock_ms, ids, labels)

    def _believe(self, time_ms: Int64) -> tuple[Int64, Int64]:
        """Return the timestamp of each row, and the largest one so far."""
        valid = time_ms >= 0
        believed = valid.copy()
        believed[valid] = self._clock.accept(time_ms[valid])
        times = np.where(believed, time_ms, NO_TIME_MS)
        clock_ms = np.maximum.accumulate(np.concatenate(([self._clock_ms], times)))[1:]
        self._clock_ms = int(clock_ms[-1])
        return np.where(believed, time_ms, clock_ms), clock_ms


def find_files(path: Path) -> list[Path]:
    """Return the files that a path names: itself, a directory's, or those that fit a pattern.

    Raises
    ------
    ConfigError
        There is none.
    """
    if path.is_dir():
        found = [one for one in sorted(path.iterdir()) if one.is_file() and _is_readable(one)]
    elif path.exists():
        found = [path]
    else:
        found = [Path(one) for one in sorted(glob.glob(str(path)))]  # noqa: PTH207  # absolute too
    if not found:
        hint = "no file in it has a known suffix" if path.is_dir() else "look at the path"
        raise ConfigError(
            str(path), expected="a file, a directory or a pattern", got="no file", hint=hint
        )
    for one in found:
        format_of(one)
    return found


def _is_readable(path: Path) -> bool:
    try:
        return bool(format_of(path))
    except ConfigError:
        return False


def _layout(settings: Settings, label_column: str | None) -> Layout:
    events = settings.events
    required = [name for name, field in events.fields.items() if field.is_required]
    wanted = [events.id, events.key] + ([label_column] if label_column else [])
    return Layout(
        fields=events.fields,
        wanted=tuple(dict.fromkeys(wanted)),
        required=tuple(dict.fromkeys((*required, *wanted))),
        time=events.time.field,
        time_unit=events.time.unit,
    )


def _keys(values: Sequence[Any], default: object) -> list[bytes | None]:
    if set(map(type, values)) == {int}:  # 0.4 us a row less than one by one
        return [b"%d" % value for value in values]
    return [_key(value, default) for value in values]


def _key(value: object, default: object) -> bytes | None:
    """Return a Kafka key as a producer would set it; None where the field holds no id."""
    if value is None:
        value = default
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            return None
    return b"%d" % value if isinstance(value, int) and not isinstance(value, bool) else None
