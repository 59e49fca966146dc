"""Taking fetched records batch by batch, against the client's own class over the same bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import IsolationLevel, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c

from worker.streams.kafka_batches import with_fast_rows

CLIENTS = Fetcher.PartitionRecords
PLACE = TopicPartition("transactions", 0)
_CONTROL = 0x20
_FIRST = 100  # the offset of the first batch


@dataclass(frozen=True)
class Fetched:
    """A batch of the log: offsets are kept or were removed by compaction, at its end too.

    ``producer`` -1 has no transaction; ``marker`` 0 aborts one, 1 commits it.
    """

    kept: tuple[bool, ...]
    producer: int = -1
    marker: int | None = None
    is_damaged: bool = False


def bytes_of(batch: Fetched, base: int) -> bytes:
    """Return the batch as the broker stores it."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=batch.producer >= 0,
        producer_id=batch.producer, producer_epoch=0, base_sequence=0, batch_size=1 << 20,
    )  # fmt: skip
    if batch.marker is not None:
        builder.append(0, 1_000, struct.pack(">hh", 0, batch.marker), b"", [])
    for i, is_kept in enumerate(batch.kept):
        if is_kept and batch.marker is None:
            builder.append(i, 1_000 + i, b"k%d" % (base + i), b"v", [])
    data = bytearray(builder.build())
    data[:8] = struct.pack(">q", base)
    if batch.marker is not None:
        data[22] |= _CONTROL
    data[23:27] = struct.pack(">i", len(batch.kept) - 1)
    data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
    if batch.is_damaged:
        data[-1] ^= 1
    return bytes(data)


class Counted:
    """What the client is told of a partition that is read to its end."""

    def __init__(self) -> None:
        self.records = -1

    def record(self, place: Any, size: int, records: int) -> None:
        self.records = records


def taken(
    kind: Any, batches: list[Fetched], start: int, counts: list[int | None]
) -> list[tuple[Any, ...]]:
    """Return what each `take` gives, and where the next fetch would begin."""
    data, base, aborted, opened = b"", _FIRST, [], {}
    for batch in batches:
        data += bytes_of(batch, base)
        if batch.producer >= 0 and batch.marker is None:
            opened.setdefault(batch.producer, base)
        first = opened.pop(batch.producer, None) if batch.marker is not None else None
        if first is not None and batch.marker == 0:
            aborted.append(SimpleNamespace(producer_id=batch.producer, first_offset=first))
        base += len(batch.kept)
    counted = Counted()
    part = kind(
        start, PLACE, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=aborted, metric_aggregator=counted,
    )  # fmt: skip
    found: list[tuple[Any, ...]] = []
    for count in counts:
        try:
            rows = [(r.offset, r.timestamp, r.key, r.value) for r in part.take(count)]
        except CorruptRecordError:
            return [*found, ("damaged", part.next_fetch_offset)]
        found.append((rows, part.next_fetch_offset, counted.records, bool(part)))
        if not part:
            break
    return found


KEPT = st.lists(st.booleans(), min_size=1, max_size=5).filter(any).map(tuple)
BATCHES = st.lists(
    st.builds(Fetched, KEPT)
    | st.builds(Fetched, KEPT, st.sampled_from([1, 2]))
    | st.builds(Fetched, st.just((True,)), st.sampled_from([1, 2]), st.sampled_from([0, 1])),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=300)
@given(
    batches=BATCHES,
    damaged=st.none() | st.integers(0, 7),
    ahead=st.integers(0, 12),
    counts=st.lists(st.none() | st.integers(1, 7), min_size=1, max_size=20),
)
def test_records_are_taken_as_the_client_takes_them(
    batches: list[Fetched], damaged: int | None, ahead: int, counts: list[int | None]
) -> None:
    """From the middle of a batch, in portions of any size, over aborted transactions, markers,
    holes and up to damage: the same records, and the same place to go on.
    """
    if damaged is not None and damaged < len(batches):
        # Before damage the client stays where a hole begins at a batch's end; here it is passed.
        batches = [replace(one, kept=(*one.kept[:-1], True)) for one in batches]
        batches[damaged] = replace(batches[damaged], is_damaged=True)
    wanted = taken(CLIENTS, batches, _FIRST + ahead, counts)
    assert taken(with_fast_rows(CLIENTS), batches, _FIRST + ahead, counts) == wanted


def test_what_turned_out_damaged_is_not_kept_in_line() -> None:
    """The client would take nothing from it again and again, within one poll that never ends."""
    good, bad = bytes_of(Fetched((True,)), 100), bytes_of(Fetched((True,), is_damaged=True), 101)
    for data, calls in ((bad, 1), (good + bad, 2)):
        drained: list[Any] = []
        part = with_fast_rows(CLIENTS)(
            100, PLACE, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED,
            on_drain=drained.append,
        )  # fmt: skip
        for _ in range(calls - 1):
            assert [row.offset for row in part.take(5)] == [100]
        assert part
        with pytest.raises(CorruptRecordError):
            part.take(5)
        assert not part
        assert drained == [part]
