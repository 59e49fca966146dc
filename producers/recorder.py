"""Records a topic to a file of lines: what was committed until now, in timestamp order."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from producers.brokers import away, count_partitions
from producers.player import Watcher
from worker.errors import TransientError

_BUFFERED_MAX = 5_000
_SILENCE_SECONDS_MAX = 30.0
_POLL_MS = 200


class Recorded(NamedTuple):
    """One record of a topic as it was found."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of a topic's records: lines written, and those that are no line by themselves."""

    written: int
    left_out: int


def read_topic(bootstrap: str, topic: str, since_ms: int | None = None) -> Iterator[Recorded]:
    """Yield the committed records from ``since_ms`` (None: the first) until the end as of now.

    Partitions are merged by record timestamp; each keeps its own order. At most about 5,000 records
    per partition are held.

    Raises
    ------
    TransientError
        The broker or the topic is not there, or says nothing for 30 s: try again later.
    """
    count = count_partitions(bootstrap, [topic])[topic]
    try:
        consumer = _connect(bootstrap)
    except KafkaError as error:
        raise away(bootstrap, error) from error
    try:
        partitions = [TopicPartition(topic, number) for number in range(count)]
        yield from _merged(consumer, _assign(consumer, partitions, since_ms))
    except KafkaError as error:
        raise TransientError(f"topic {topic}", "records", type(error).__name__) from error
    finally:
        consumer.close(autocommit=False, timeout_ms=5_000)


def record(
    records: Iterator[Recorded],
    write: Callable[[bytes], None],
    envelope: bool = False,
    limit: int | None = None,
    watcher: Watcher | None = None,
) -> Recording:
    """Write records as lines until there are no more or ``limit`` are written.

    Without the envelope a line is the value as it is; a tombstone, or a value with a line feed, is
    no line and is left out. The envelope is a JSON object with partition, offset, timestamp_ms, key
    (text, or null with key_base64) and value_base64 (null for a tombstone).

    Examples
    --------
    >>> found = [Recorded(0, 7, 1_000, b"c1", b'{"amount":1}'), Recorded(0, 8, 2_000, b"c1", None)]
    >>> record(iter(found), print)
    b'{"amount":1}'
    Recording(written=1, left_out=1)
    """
    written = left_out = 0
    for found in records:
        if written == limit:
            break
        line = _enveloped(found) if envelope else _plain(found)
        if watcher is not None:
            watcher.advance(found.timestamp_ms)
        if line is None:
            left_out += 1
        else:
            write(line)
            written += 1
    return Recording(written, left_out)


def _plain(found: Recorded) -> bytes | None:
    return None if found.value is None or b"\n" in found.value else found.value


def _enveloped(found: Recorded) -> bytes:
    line: dict[str, object] = {
        "partition": found.partition,
        "offset": found.offset,
        "timestamp_ms": found.timestamp_ms,
    }
    try:
        line["key"] = None if found.key is None else found.key.decode()
    except UnicodeDecodeError:
        line["key"], line["key_base64"] = None, _base64(found.key)
    line["value_base64"] = _base64(found.value)
    return json.dumps(line, separators=(",", ":")).encode()


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _connect(bootstrap: str) -> Any:  # Any: kafka-python ships no types
    """Return a reader of committed records outside of any group."""
    return KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        bootstrap_timeout_ms=10_000,
        request_timeout_ms=10_000,
        max_poll_records=_BUFFERED_MAX,
        retry_backoff_ms=10,
    )


def _assign(
    consumer: Any, partitions: list[TopicPartition], since_ms: int | None
) -> dict[TopicPartition, int]:
    """Take the partitions at their start; return where each ends now, open transactions aside."""
    consumer.assign(partitions)
    ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
    starts = consumer.beginning_offsets(partitions)
    if since_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        starts = {p: ends[p] if found.get(p) is None else found[p].offset for p in partitions}
    for partition, offset in starts.items():
        consumer.seek(partition, offset)
    return ends


def _merged(consumer: Any, ends: dict[TopicPartition, int]) -> Iterator[Recorded]:
    """Yield the oldest head of all partitions, reading on while one that may be older is empty."""
    buffers: dict[TopicPartition, deque[Recorded]] = {partition: deque() for partition in ends}
    heard = time.monotonic()
    while unread := {p for p, end in ends.items() if consumer.position(p) < end}:
        _pause_full(consumer, buffers, unread)
        polled = consumer.poll(timeout_ms=_POLL_MS)
        if polled:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENCE_SECONDS_MAX:
            raise TransientError("kafka", "records up to the end", "none for 30 s")
        _take(polled, ends, buffers)
        yield from _oldest(buffers, {p for p in unread if consumer.position(p) < ends[p]})
    yield from _oldest(buffers, set())


def _take(
    polled: dict[TopicPartition, list[Any]],
    ends: dict[TopicPartition, int],
    buffers: dict[TopicPartition, deque[Recorded]],
) -> None:
    """Buffer what was polled, up to where each partition ended when the recording began."""
    for partition, found in polled.items():
        buffers[partition].extend(
            Recorded(r.partition, r.offset, r.timestamp, r.key, r.value)
            for r in found
            if r.offset < ends[partition]
        )


def _oldest(
    buffers: dict[TopicPartition, deque[Recorded]], unread: set[TopicPartition]
) -> Iterator[Recorded]:
    """Take records from the buffers in time order until one of an unread partition is empty."""
    while all(buffers[p] for p in unread):
        heads = [(buffer[0].timestamp_ms, p) for p, buffer in buffers.items() if buffer]
        if not heads:
            return
        yield buffers[min(heads)[1]].popleft()


def _pause_full(
    consumer: Any, buffers: dict[TopicPartition, deque[Recorded]], unread: set[TopicPartition]
) -> None:
    """Read on only where the merge waits, or where the buffer is not full yet."""
    for partition, buffer in buffers.items():
        if partition not in unread or len(buffer) >= _BUFFERED_MAX:
            consumer.pause(partition)
        else:
            consumer.resume(partition)
