"""Records a topic to a file of lines: what was committed until now, in timestamp order."""

from __future__ import annotations

import base64
import heapq
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from producers.brokers import away, count_partitions
from producers.player import Watcher
from worker.errors import TransientError

_POLL_RECORDS = 2_000
_SILENCE_SECONDS_MAX = 30.0
_POLL_MS = 200


class Recorded(NamedTuple):
    """One record of a topic as it was found."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of a topic's records: lines written, and those that are no line by themselves."""

    written: int
    left_out: int


def read_topic(bootstrap: str, topic: str, since_ms: int | None = None) -> Iterator[Recorded]:
    """Yield the committed records from ``since_ms`` (None: the first) until the end as of now.

    Partitions are merged by record timestamp; each keeps its own order. Each has a client of its
    own, which holds one fetch (1 MB): kafka-python 3.0.12 may never again return what it had
    fetched of a partition that was paused and resumed, so the faster ones cannot be held back in
    one client.

    Raises
    ------
    TransientError
        The broker or the topic is not there, or says nothing for 30 s: try again later.
    """
    count = count_partitions(bootstrap, [topic])[topic]
    partitions = [TopicPartition(topic, number) for number in range(count)]
    try:
        with ExitStack() as stack:
            ranges = _ranges(_connect(bootstrap, stack), partitions, since_ms)
            streams = [
                _read(_connect(bootstrap, stack), partition, start, end)
                for partition, (start, end) in ranges.items()
                if start < end
            ]
            yield from heapq.merge(*streams, key=lambda found: found.timestamp_ms)
    except KafkaError as error:
        raise TransientError(f"topic {topic}", "records", type(error).__name__) from error


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
    if found.headers:
        line["headers"] = {k: (v or b"").decode(errors="replace") for k, v in found.headers}
    return json.dumps(line, separators=(",", ":")).encode()


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _connect(bootstrap: str, stack: ExitStack) -> Any:  # Any: kafka-python ships no types
    """Return a reader of committed records outside of any group; the stack closes it."""
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            bootstrap_timeout_ms=10_000,
            request_timeout_ms=10_000,
            max_poll_records=_POLL_RECORDS,
            retry_backoff_ms=10,
        )
    except KafkaError as error:
        raise away(bootstrap, error) from error
    stack.callback(consumer.close, autocommit=False, timeout_ms=5_000)
    return consumer


def _ranges(
    consumer: Any, partitions: list[TopicPartition], since_ms: int | None
) -> dict[TopicPartition, tuple[int, int]]:
    """Return per partition the offsets [start, end) to read, open transactions left out."""
    ends = consumer.end_offsets(partitions)
    starts = consumer.beginning_offsets(partitions)
    if since_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        starts = {p: ends[p] if found.get(p) is None else found[p].offset for p in partitions}
    return {p: (starts[p], ends[p]) for p in partitions}


def _read(consumer: Any, partition: TopicPartition, start: int, end: int) -> Iterator[Recorded]:
    """Yield one partition's committed records with start <= offset < end."""
    consumer.assign([partition])
    consumer.seek(partition, start)
    heard = time.monotonic()
    while consumer.position(partition) < end:
        polled = consumer.poll(timeout_ms=_POLL_MS)
        if polled:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENCE_SECONDS_MAX:
            raise TransientError(f"topic {partition.topic}", "records up to the end", "silence")
        for found in polled.get(partition, ()):
            if found.offset < end:
                yield Recorded(
                    found.partition, found.offset, found.timestamp, found.key, found.value,
                    tuple(found.headers),
                )  # fmt: skip
