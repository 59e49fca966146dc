"""A log of each kind that tests write to from outside, and streams over it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Protocol

from kafka import IsolationLevel, KafkaAdminClient, KafkaProducer, OffsetSpec, TopicPartition
from kafka.admin import MemberToRemove

from worker.contracts.records import Output
from worker.contracts.settings import KafkaSettings, OutputSettings, ScoreSettings
from worker.streams import Polled, Stream
from worker.streams.kafka import KafkaStream
from worker.streams.memory import MemoryLog, MemoryStream

PARTITIONS = 2
POLLS_MAX = 400


class Harness(Protocol):
    """What a test needs from outside of a stream."""

    events: str
    labels: str
    outputs: OutputSettings

    def stream(self, slot: str = "0") -> Stream:
        """Return a stream of the group; the harness closes it after the test."""

    def append(
        self, topic: str, partition: int, values: Sequence[bytes | None], key: bytes = b"k"
    ) -> None:
        """Write records with the timestamps 1000, 1001, …"""

    def append_aborted(self, topic: str, partition: int, count: int) -> None:
        """Write records that no read_committed reader sees."""

    def truncate(self, topic: str, partition: int, first: int) -> None:
        """Remove what is before an offset, as retention does."""

    def evict(self, slot: str) -> None:
        """Remove a member from the group without asking it."""

    def headers(self, topic: str, partition: int, offset: int) -> dict[str, bytes]:
        """Return the headers of a record."""

    def close(self) -> None:
        """Close the streams."""


class MemoryHarness:
    """A `MemoryLog` that leaves gaps where Kafka does."""

    def __init__(self) -> None:
        self.events, self.labels, self.outputs = "events", "labels", OutputSettings()
        names = ("events", "labels", "journal", "alerts", "dead-letters")
        self._log = MemoryLog({**dict.fromkeys(names, PARTITIONS), "training": 1}, markers=True)
        self._opened = ExitStack()

    def stream(self, slot: str = "0") -> Stream:
        stream = MemoryStream(
            self._log, group="g", slot=slot, events_topic="events", labels_topic="labels"
        )
        self._opened.callback(stream.close)
        return stream

    def append(
        self, topic: str, partition: int, values: Sequence[bytes | None], key: bytes = b"k"
    ) -> None:
        for i, value in enumerate(values):
            self._log.append(topic, partition, value, key, 1000 + i)

    def append_aborted(self, topic: str, partition: int, count: int) -> None:
        self._log.skip(topic, partition, count + 1)

    def truncate(self, topic: str, partition: int, first: int) -> None:
        self._log.truncate(topic, partition, first)

    def evict(self, slot: str) -> None:
        self._log.evict("g", slot)

    def headers(self, topic: str, partition: int, offset: int) -> dict[str, bytes]:
        return dict(self._log.headers(topic, partition, offset))

    def close(self) -> None:
        self._opened.close()


class KafkaHarness:
    """Fresh topics and a fresh group on a real broker."""

    _numbers = itertools.count()

    def __init__(self, bootstrap: str, **settings: Any) -> None:
        name = f"t{os.getpid()}-{next(self._numbers)}"
        self.group = name
        self.events, self.labels = f"{name}-events", f"{name}-labels"
        self.outputs = OutputSettings(
            journal=f"{name}-journal",
            alerts=f"{name}-alerts",
            dead_letters=f"{name}-dead-letters",
            training=f"{name}-training",
            scores=ScoreSettings(topic=f"{name}-scores"),
        )
        limits = {"session_timeout": "6s", "transaction_timeout": "12s", **settings}
        self.settings = KafkaSettings(bootstrap_servers=bootstrap, **limits)
        self._opened = ExitStack()
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self._opened.callback(self.admin.close)
        names = [self.events, self.labels, self.outputs.journal, self.outputs.alerts,
                 self.outputs.dead_letters]  # fmt: skip
        # The records are of 1970: by its defaults the broker would remove them, now and then.
        one = {"num_partitions": 1, "replication_factor": 1, "configs": {"retention.ms": "-1"}}
        several = {**one, "num_partitions": PARTITIONS}
        topics = {self.outputs.training: one, **dict.fromkeys(names, several)}
        self.admin.create_topics(topics, wait_for_metadata=True)
        self._producer: KafkaProducer | None = None

    def stream(self, slot: str = "0", settings: KafkaSettings | None = None) -> KafkaStream:
        stream = KafkaStream(
            settings or self.settings,
            group=self.group,
            slot=slot,
            events_topic=self.events,
            labels_topic=self.labels,
            outputs=self.outputs,
        )
        self._opened.callback(stream.close)
        return stream

    def producer(self, transactional_id: str | None = None, **options: Any) -> Any:
        """Return a producer from outside, initialised where it is transactional."""
        producer = KafkaProducer(
            bootstrap_servers=self.settings.bootstrap_servers,
            transactional_id=transactional_id,
            retry_backoff_ms=5,
            **options,
        )
        self._opened.callback(_end, producer)
        if transactional_id is not None:
            producer.init_transactions()
        return producer

    def append(
        self, topic: str, partition: int, values: Sequence[bytes | None], key: bytes = b"k"
    ) -> None:
        self._producer = self._producer or self.producer()
        for i, value in enumerate(values):
            self._producer.send(topic, value, key, partition=partition, timestamp_ms=1000 + i)
        self._producer.flush()

    def append_aborted(self, topic: str, partition: int, count: int) -> None:
        producer = self.producer(f"{self.group}-aborts")
        producer.begin_transaction()
        for _ in range(count):
            producer.send(topic, b"aborted", partition=partition)
        producer.flush()
        producer.abort_transaction()
        # The markers are written after the answer.
        while len(set(self.ends(topic, partition))) > 1:
            pass

    def ends(self, topic: str, partition: int) -> list[int]:
        """Return the end of what is committed, and of everything."""
        wanted = {TopicPartition(topic, partition): OffsetSpec.LATEST}
        levels = (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        answers = [self.admin.list_partition_offsets(wanted, isolation_level=x) for x in levels]
        return [next(iter(answer.values())).offset for answer in answers]

    def truncate(self, topic: str, partition: int, first: int) -> None:
        self.admin.delete_records({TopicPartition(topic, partition): first})

    def evict(self, slot: str) -> None:
        self.admin.remove_group_members(self.group, [MemberToRemove(group_instance_id=slot)])

    def headers(self, topic: str, partition: int, offset: int) -> dict[str, bytes]:
        from confluent_kafka import Consumer
        from confluent_kafka import TopicPartition as Place

        bootstrap = self.settings.bootstrap_servers
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reads-headers"})
        consumer.assign([Place(topic, partition, offset)])
        message: Any = consumer.poll(10)
        consumer.close()
        return dict(message.headers() or [])

    def close(self) -> None:
        self._opened.close()


def _end(producer: Any) -> None:
    """Close a producer without waiting for a broker that may be gone."""
    producer._sender.force_close()
    producer._sender.join(2)
    producer.close(timeout=1)


KINDS: dict[str, Callable[[Any], Harness]] = {
    "memory": lambda request: MemoryHarness(),
    "kafka": lambda request: KafkaHarness(request.getfixturevalue("kafka")),
}


def polls(stream: Stream, timeout_ms: int = 50, records_max: int = 1_000) -> Iterator[Polled]:
    """Poll again and again, with a bound."""
    for _ in range(POLLS_MAX):
        yield stream.poll(timeout_ms, records_max)
    raise AssertionError("it never came")


def join(stream: Stream, partitions: Sequence[int] = (0, 1)) -> Polled:
    """Poll until exactly these partitions are assigned."""
    return next(p for p in polls(stream) if p.assigned == set(partitions))


def start(stream: Stream, partitions: Sequence[int] = (0, 1)) -> Polled:
    """Join, and seek every partition to the beginning."""
    polled = join(stream, partitions)
    for partition in partitions:
        stream.seek(partition, 0, 0)
    return polled


def read(stream: Stream, count: int) -> tuple[list[tuple[str, int, int, bytes | None]], Polled]:
    """Return the next ``count`` records as (topic, partition, offset, value), and the last poll."""
    found: list[tuple[str, int, int, bytes | None]] = []
    for polled in polls(stream):
        for r in polled.records:
            rows = zip(r.offsets, r.values, strict=True)
            found += [(r.topic, r.partition, offset, value) for offset, value in rows]
        if len(found) >= count:
            return found, polled
    raise AssertionError


def together(streams: Sequence[Stream], done: Callable[[Sequence[Polled]], bool]) -> list[Polled]:
    """Poll several streams at the same time until ``done``; return the last polls."""
    with ThreadPoolExecutor(len(streams)) as pool:
        for _ in range(POLLS_MAX):
            last = list(pool.map(lambda stream: stream.poll(50, 100), streams))
            if done(last):
                return last
    raise AssertionError("it never came")


def journal(harness: Harness, value: bytes | None = b"row", partition: int = 0) -> Output:
    """Return an output for the journal."""
    return Output(harness.outputs.journal, partition, None, value, 1)


def visible(stream: Stream, topic: str, partition: int = 0) -> list[bytes | None]:
    """Return the values that a read_committed reader gets from a topic partition."""
    end = stream.settle(topic, partition)  # Kafka writes the markers after the answer
    reader = stream.reader(topic, partition, 0)
    found: list[bytes | None] = []
    for _ in range(POLLS_MAX):
        if reader.position >= end:
            break
        records = reader.poll(20, 100)
        found += records.values if records else []
    reader.close()
    return found
