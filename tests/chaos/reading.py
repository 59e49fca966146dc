"""What was committed, read by a client of its own: while it is written, and again in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from worker.streams.memory_log import MemoryLog

_READ_S = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A committed journal record when it was seen; ``sources`` are the events of its rows."""

    at_s: float
    offset: int
    sources: tuple[int, ...]
    labels_next: int
    spec_hash: str


class Watch(threading.Thread):
    """Reads the journal all the time, committed records only, and notes when each was there."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        super().__init__(daemon=True)
        self.seen: dict[int, list[Seen]] = {p: [] for p in range(partitions)}
        self._consumer = _consumer(bootstrap, topic, partitions)
        self._ended = threading.Event()

    def run(self) -> None:
        """Read until `close`."""
        while not self._ended.is_set():
            with suppress(KafkaError):
                for place, records in self._consumer.poll(250).items():
                    now_s = time.monotonic()
                    found = [_seen(now_s, record) for record in records]
                    self.seen[place.partition].extend(found)
        self._consumer.close()

    def close(self) -> None:
        """End reading."""
        self._ended.set()
        self.join()

    def rows(self, partition: int) -> int:
        """Return how many rows were seen."""
        return sum(len(one.sources) for one in self.seen[partition])

    @property
    def specs(self) -> list[str]:
        """Return the feature specs of the records, partition after partition."""
        return [one.spec_hash for seen in self.seen.values() for one in seen]

    def stall_s(self, since_s: float) -> float:
        """Return the longest time that a partition stood still between two records."""
        longest = 0.0
        for seen in self.seen.values():
            times = [since_s, *(one.at_s for one in seen if one.at_s > since_s)]
            longest = max(longest, *(b - a for a, b in pairwise(times)), 0.0)
        return longest


def recorded(bootstrap: str, names: Mapping[str, str], partitions: Mapping[str, int]) -> MemoryLog:
    """Return the committed records of topics at their offsets; ``names`` are Kafka's own.

    Raises
    ------
    TimeoutError
        The end was not reached: the log has a transaction that stays open, or no leader.
    """
    log = MemoryLog(partitions)
    for topic, count in partitions.items():
        consumer = _consumer(bootstrap, names[topic], count)
        try:
            _read_all(consumer, log, topic)
        finally:
            consumer.close()
    return log


def committed_ends(bootstrap: str, topics: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """Return the offset after the last committed record or marker of every topic partition."""
    ends: dict[tuple[str, int], int] = {}
    for topic, count in topics.items():
        consumer = _consumer(bootstrap, topic, count)
        try:
            found = consumer.end_offsets(list(consumer.assignment()))
        finally:
            consumer.close()
        ends |= {(place.topic, place.partition): end for place, end in found.items()}
    return ends


def _read_all(consumer: KafkaConsumer, log: MemoryLog, topic: str) -> None:
    places = list(consumer.assignment())
    ends = consumer.end_offsets(places)
    deadline_s = time.monotonic() + _READ_S
    while any(consumer.position(place) < ends[place] for place in places):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{topic} was not read to its end")
        for place, records in consumer.poll(200).items():
            for record in records:
                p = place.partition
                log.skip(topic, p, record.offset - log.end(topic, p))
                log.append(topic, p, record.value, record.key, record.timestamp)


def _consumer(bootstrap: str, topic: str, partitions: int) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=250,
        reconnect_backoff_max_ms=500,
        request_timeout_ms=15_000,
        metadata_max_age_ms=5_000,
    )
    consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
    consumer.seek_to_beginning()
    return consumer


def _seen(now_s: float, record: Any) -> Seen:
    with pa.ipc.open_stream(record.value) as reader:
        sources = reader.read_next_batch().column("source_offset").to_pylist()
        stamps = reader.schema.metadata
    labels_next, spec_hash = int(stamps[b"next_labels"]), stamps[b"spec_hash"].decode()
    return Seen(now_s, record.offset, tuple(sources), labels_next, spec_hash)
