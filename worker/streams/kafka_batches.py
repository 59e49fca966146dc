"""Record batches of Kafka's format 2, unpacked by a kernel instead of the client's Python.

kafka-python spends 6 to 8 µs a record on varints and on objects with thirteen fields. Here one
kernel finds where everything lies and Python only cuts keys and values out: 0.6 to 0.8 µs.
Checksums, aborted transactions and markers are judged as the client does, by its own methods.

Source of the layout: Apache Kafka, "Message format", record batch version 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from kafka.errors import CorruptRecordError
from numba import njit
from numpy.typing import NDArray

_APPEND_TIME = 1
_NONE = -1  # the length of a key or value that is null


class Row(NamedTuple):
    """One record without its headers, which no input of a worker has a meaning for."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@njit(cache=True)
def _varint(data: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Return a zigzag varint and the place after it, which is -1 where the bytes end too early."""
    value = np.uint64(0)
    for i in range(10):
        if at >= len(data):
            return 0, -1
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(127)) << np.uint64(7 * i)
        if byte < np.uint64(128):
            half, sign = np.int64(value >> np.uint64(1)), np.int64(value & np.uint64(1))
            return int(half ^ -sign), at
    return 0, -1


@njit(cache=True)
def scan(data: NDArray[np.uint8], at: int, places: NDArray[np.int64]) -> bool:
    """Find the records that lie one after the other from ``at`` to the end of ``data``.

    Parameters
    ----------
    places
        Filled, a row per record: timestamp and offset from the batch's first, begin and length of
        the key, begin and length of the value; a length of -1 is null.

    Returns
    -------
    bool
        Whether there were exactly as many as rows, none reaching beyond its own length.
    """
    for i in range(len(places)):
        length, at = _varint(data, at)
        end = at + length
        if at < 0 or length < 1 or end > len(data):
            return False
        at += 1  # attributes, unused
        for column in range(2):
            places[i, column], at = _varint(data, at)
            if at < 0:
                return False
        for column in (2, 4):
            size, at = _varint(data, at)
            if at < 0 or size < _NONE or at + size > end:
                return False
            places[i, column], places[i, column + 1] = at, size
            at += max(size, 0)
        if at >= end:  # at least the number of headers follows
            return False
        at = end
    return at == len(data)


def rows_of(batch: Any) -> list[Row]:
    """Return the records of one of the client's record batches, its checksum already checked.

    Raises
    ------
    CorruptRecordError
        As the client's own: the bytes are no records.
    """
    batch._maybe_uncompress()
    data = bytes(batch._buffer)
    places = np.empty((batch.records_count, 6), np.int64)
    if not scan(np.frombuffer(data, np.uint8), batch._pos, places):
        raise CorruptRecordError(f"records at offset {batch.base_offset} are damaged")
    times_ms = places[:, 0] + batch.first_timestamp
    if batch.timestamp_type == _APPEND_TIME:
        times_ms[:] = batch.max_timestamp
    offsets = places[:, 1] + batch.base_offset
    columns = (
        offsets.tolist(),
        times_ms.tolist(),
        _cut(data, places[:, 2:4]),
        _cut(data, places[:, 4:6]),
    )
    return list(map(tuple.__new__, repeat(Row), zip(*columns, strict=True)))


def _cut(data: bytes, places: NDArray[np.int64]) -> list[bytes | None]:
    """Return what lies at begin and length, None where the length says null."""
    begins, ends = places[:, 0].tolist(), places.sum(axis=1).tolist()
    if (places[:, 1] >= 0).all():
        return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return [
        None if end < begin else data[begin:end] for begin, end in zip(begins, ends, strict=True)
    ]


def with_fast_rows(partition_records: type) -> type:
    """Return the client's class of fetched records, taking `Row` instead of its own records."""

    class FastPartitionRecords(partition_records):  # type: ignore[misc]  # no types
        def __init__(self, fetch_offset: int, tp: Any, records: Any, *rest: Any, **words: Any):
            super().__init__(fetch_offset, tp, records, *rest, **words)
            self._rows: list[Row] = []  # of the batch that is being taken
            self._taken = 0
            self._batches = self._batches_of(tp, records)

        def take(self, n: int | None = None) -> list[Row]:
            found: list[Row] = []
            try:
                self._maybe_raise_next_inline_exception()
                while n is None or len(found) < n:
                    if self._taken == len(self._rows):
                        rows = next(self._batches, None)
                        if rows is None:
                            break
                        self._rows, self._taken = rows, 0
                    most = len(self._rows) if n is None else self._taken + n - len(found)
                    found += self._rows[self._taken : most]
                    self._taken = min(most, len(self._rows))
                    self.next_fetch_offset = self._rows[self._taken - 1].offset + 1
            except Exception as error:
                if not found:
                    self.drain()  # fetched again: to take from what broke would never end a poll
                    raise
                self._next_inline_exception = error  # of the next call, as the client does
            return found

        def _batches_of(self, tp: Any, records: Any) -> Iterator[list[Row]]:
            batch = records.next_batch()
            while batch is not None:
                if batch.magic != 2:
                    raise CorruptRecordError(f"{tp}: message format {batch.magic}, expected 2")
                if self.check_crcs and not batch.validate_crc():
                    raise CorruptRecordError(f"{tp}@{batch.base_offset}: failed crc check")
                self.leader_epoch = batch.leader_epoch
                if not self._is_hidden(batch):
                    self.bytes_read += batch.size_in_bytes
                    rows = rows_of(batch)
                    self.records_read += len(rows)
                    if batch.base_offset < self.fetch_offset:  # a batch is fetched whole
                        rows = [row for row in rows if row.offset >= self.fetch_offset]
                    if rows:
                        yield rows
                # Also over what compaction removed, and over markers and aborted batches.
                self.next_fetch_offset = batch.next_offset
                batch = records.next_batch()
            self.drain()

        def _is_hidden(self, batch: Any) -> bool:
            """Return whether a read_committed reader must not see a batch."""
            if batch.has_producer_id():
                self._consume_aborted_transactions_up_to(batch.last_offset)
                if self._contains_abort_marker(batch):
                    self.aborted_producer_ids.discard(batch.producer_id)
                elif self._is_batch_aborted(batch):
                    return True
            return bool(batch.is_control_batch)

    return FastPartitionRecords
