"""Unpacking of record batches, against the client's own on batches that the client builds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from worker.streams.kafka_batches import rows_of

UNHURRIED = settings(deadline=None)
"""The first example may wait for the kernel to be compiled."""
FIRST_MS = 1_700_000_000_000
Payload = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
PAYLOADS = st.lists(
    st.tuples(
        st.integers(-(2**40), 2**40),
        st.none() | st.binary(max_size=200),
        st.none() | st.binary(max_size=400),
        st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2),
    ),
    min_size=1,
    max_size=30,
)


def batch_bytes(payloads: list[Payload], codec: int = 0) -> bytearray:
    """Return a batch as the client's producer would send it, from offset 0."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=False, producer_id=-1,
        producer_epoch=-1, base_sequence=-1, batch_size=1 << 20,
    )  # fmt: skip
    for i, (delta_ms, key, value, headers) in enumerate(payloads):
        builder.append(i, FIRST_MS + delta_ms, key, value, headers)
    return bytearray(builder.build())


def with_base(data: bytearray, offset: int) -> bytearray:
    """Return the batch as the broker would store it; the checksum leaves the base offset out."""
    data[:8] = offset.to_bytes(8, "big")
    return data


def expected(data: bytearray) -> list[tuple[Any, ...]]:
    """Return the records as the client itself reads them."""
    return [(r.offset, r.timestamp, r.key, r.value) for r in DefaultRecordBatch(data)]


@UNHURRIED
@given(payloads=PAYLOADS, codec=st.sampled_from((0, 1, 3)), offset=st.integers(0, 2**50))
def test_rows_are_those_that_the_client_reads(
    payloads: list[Payload], codec: int, offset: int
) -> None:
    """Plain, gzip and lz4; null and empty keys and values; any order of times; with headers."""
    data = with_base(batch_bytes(payloads, codec), offset)
    assert [tuple(row) for row in rows_of(DefaultRecordBatch(data))] == expected(data)


def test_a_topic_that_stamps_at_append_gives_one_time_to_all() -> None:
    """The attribute's fourth bit: the batch's largest timestamp is every record's."""
    data = batch_bytes([(0, b"k", b"v", []), (5, b"k", b"w", [])])
    data[22] |= 8
    assert [row.timestamp for row in rows_of(DefaultRecordBatch(data))] == [FIRST_MS + 5] * 2


@UNHURRIED
@given(payloads=PAYLOADS, data=st.data())
def test_damage_behind_the_checksum_never_leads_out_of_the_buffer(
    payloads: list[Payload], data: st.DataObject
) -> None:
    """Refused, or read as that many records made of the batch's own bytes; never more."""
    good = batch_bytes(payloads)
    place = data.draw(st.integers(61, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))
    try:
        rows = list(rows_of(DefaultRecordBatch(bad)))
    except CorruptRecordError:
        return
    assert len(rows) == len(payloads)
    assert sum(len(row.key or b"") + len(row.value or b"") for row in rows) <= len(bad)


def test_a_batch_that_ends_too_early_is_corrupt() -> None:
    """Its count says two records, its bytes hold one and a half."""
    data = batch_bytes([(0, b"k", b"v" * 50, []), (0, b"k", b"v" * 50, [])])
    with pytest.raises(CorruptRecordError, match="offset 0 are damaged"):
        list(rows_of(DefaultRecordBatch(data[:-20])))
