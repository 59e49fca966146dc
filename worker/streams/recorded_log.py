"""A log whose events topic is completed by a recording: what retention took comes from the file.

The file is what ``riverwatch-produce record --envelope`` writes: every line says which partition
and offset its record had, so positions are those of the log. Whoever folds compares the offsets
with the journal's rows, so a recording that lacks a record is noticed there.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from worker.contracts.records import Records
from worker.errors import ConfigError
from worker.streams import Log, Reader
from worker.streams.file_bytes import Progress, lines_of


class _Line(msgspec.Struct):
    partition: int
    offset: int
    timestamp_ms: int
    value_base64: str | None
    key: str | None = None
    key_base64: str | None = None


class _Span(NamedTuple):
    first: int
    end: int


class RecordedLog:
    """A log of which the topic ``events`` begins where the recording does.

    Raises
    ------
    ConfigError
        A line is no envelope, or a partition's offsets do not ascend.
    """

    def __init__(self, log: Log, events: str, path: Path) -> None:
        self._log, self._events, self._path = log, events, path
        self.partitions = log.partitions
        self.committed, self.settle, self.last_records, self.writer = (
            log.committed, log.settle, log.last_records, log.writer,
        )  # fmt: skip
        self._spans: dict[int, _Span] = {}
        for line in self._lines():
            span = self._spans.get(line.partition, _Span(line.offset, line.offset))
            if line.offset < span.end:
                raise self._refusal("offsets that ascend", f"{line.offset} after {span.end - 1}")
            self._spans[line.partition] = _Span(span.first, line.offset + 1)

    def log_range(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the range of the log, from the recording's first record of it on."""
        first, end = self._log.log_range(topic, partition)
        if topic == self._events and partition in self._spans:
            first = min(first, self._spans[partition].first)
        return first, end

    def reader(self, topic: str, partition: int, offset: int) -> Reader:
        """Return a reader of the recording where the log has lost the offset, then of the log."""
        first = self._log.log_range(topic, partition)[0]
        if topic != self._events or offset >= first or partition not in self._spans:
            return self._log.reader(topic, partition, offset)
        lines = (
            line for line in self._lines()
            if line.partition == partition and offset <= line.offset < first
        )  # fmt: skip
        return _RecordedReader(self._log.reader(topic, partition, first), lines, topic, offset)

    def _lines(self) -> Iterator[_Line]:
        decoder = msgspec.json.Decoder(_Line)
        for block in lines_of(self._path, Progress()):
            for line in block:
                try:
                    yield decoder.decode(line)
                except msgspec.MsgspecError:
                    raise self._refusal("lines with partition and offset", "another one") from None

    def _refusal(self, expected: str, got: str) -> ConfigError:
        hint = "riverwatch-produce record --envelope writes such files"
        return ConfigError(str(self._path), expected=expected, got=got, hint=hint)


class _RecordedReader:
    """Records of a recording, and after them those of a log."""

    def __init__(self, log: Reader, lines: Iterator[_Line], topic: str, offset: int) -> None:
        self._log, self._lines, self._topic = log, lines, topic
        self._position: int | None = offset

    @property
    def position(self) -> int:
        """Return the next offset."""
        return self._log.position if self._position is None else self._position

    def poll(self, timeout_ms: int, records_max: int) -> Records | None:
        """Return the next records; None where the recording ends, and then as the log."""
        if self._position is None:
            return self._log.poll(timeout_ms, records_max)
        found = [line for _, line in zip(range(records_max), self._lines, strict=False)]
        if not found:
            self._position = None
            return None
        self._position = found[-1].offset + 1
        return Records(
            self._topic,
            found[0].partition,
            [line.offset for line in found],
            [line.timestamp_ms for line in found],
            [_bytes(line.key_base64, line.key) for line in found],
            [_bytes(line.value_base64, None) for line in found],
            self._position,
        )

    def close(self) -> None:
        """Give back what the log's reader has."""
        self._log.close()


def _bytes(encoded: str | None, text: str | None) -> bytes | None:
    if encoded is not None:
        return b64decode(encoded)
    return None if text is None else text.encode()
