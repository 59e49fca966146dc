"""Items onto Kafka topics: keys, event times as timestamps, every acknowledgement checked."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

from kafka import KafkaProducer
from kafka.errors import InvalidTimestampError, KafkaError
from kafka.partitioner.default import murmur2

from producers.brokers import away, count_partitions
from producers.items import Item
from worker.errors import TransientError

_UNCONFIRMED_MAX = 20_000
_PARTITIONS_CACHED_MAX = 1_000_000
_DELIVERY_SECONDS = 60
_CLOSE_SECONDS = 10


class TopicSender:
    """Sends events and labels to their topics: idempotently, in order, none lost silently.

    Record timestamp = the item's time; partition = Kafka's default for its key (murmur2), so that
    an event and its label meet. Items without a key go to the partitions in turn. At most 20,000
    sends wait for their acknowledgement; each one's result is looked at.

    Raises
    ------
    TransientError
        The broker is away or refused a record: start again when it is back. What was sent stays.
    """

    def __init__(self, bootstrap: str, events_topic: str, labels_topic: str | None = None) -> None:
        self._topics = {"event": events_topic}
        if labels_topic is not None:
            self._topics["label"] = labels_topic
        # Any: kafka-python ships no types. A future here is its own, not one of asyncio.
        self._unconfirmed: deque[tuple[str, Any]] = deque()
        self._partition_of: dict[bytes, int] = {}
        self._without_key = 0
        counts = count_partitions(bootstrap, self._topics.values())
        self._partitions = {kind: counts[topic] for kind, topic in self._topics.items()}
        self._producer = _connect(bootstrap)

    def __enter__(self) -> TopicSender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.flush()
        self._close()

    @property
    def unconfirmed_count(self) -> int:
        """Return how many sends wait for their acknowledgement."""
        return len(self._unconfirmed)

    def send(self, item: Item) -> None:
        """Hand one item to the producer; looks at the oldest acknowledgement when too many wait."""
        topic = self._topics[item.kind]
        partition = self._choose_partition(item)
        try:
            future = self._producer.send(
                topic, item.value, key=item.key, partition=partition, timestamp_ms=item.time_ms
            )
        except KafkaError as error:
            raise _refused(topic, error) from error
        self._unconfirmed.append((topic, future))
        if len(self._unconfirmed) >= _UNCONFIRMED_MAX:
            self._confirm_until(_UNCONFIRMED_MAX // 2)

    def flush(self) -> None:
        """Return when every item that was sent is acknowledged by all in-sync replicas."""
        self._confirm_until(0)

    def _confirm_until(self, count: int) -> None:
        """Look at the results of the oldest sends until only ``count`` are open."""
        while len(self._unconfirmed) > count:
            topic, future = self._unconfirmed.popleft()
            try:
                future.get(timeout=_DELIVERY_SECONDS + 5)
            except KafkaError as error:
                raise _refused(topic, error) from error

    def _choose_partition(self, item: Item) -> int:
        count = self._partitions[item.kind]
        if item.key is None:
            self._without_key += 1
            return self._without_key % count
        hashed = self._partition_of.get(item.key)
        if hashed is None:
            if len(self._partition_of) >= _PARTITIONS_CACHED_MAX:
                self._partition_of.clear()
            hashed = self._partition_of[item.key] = murmur2(item.key) & 0x7FFFFFFF
        return hashed % count

    def _close(self) -> None:
        try:
            self._producer.close(timeout=_CLOSE_SECONDS)
        except KafkaError:
            # A silent broker: everything was confirmed or has been reported as lost already.
            self._producer._sender.force_close()


def _connect(bootstrap: str) -> Any:  # Any: kafka-python ships no types
    """Return an idempotent producer that waits for all replicas and compresses."""
    try:
        return KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            linger_ms=5,
            batch_size=131_072,
            max_block_ms=10_000,
            bootstrap_timeout_ms=10_000,
            request_timeout_ms=10_000,
            delivery_timeout_ms=_DELIVERY_SECONDS * 1000,
            retry_backoff_ms=10,
        )
    except KafkaError as error:
        raise away(bootstrap, error) from error


def _refused(topic: str, error: KafkaError) -> TransientError:
    hint = ""
    if isinstance(error, InvalidTimestampError):
        hint = "a time ahead of the broker's clock: see the topic's message.timestamp.after.max.ms"
    return TransientError(f"topic {topic}", "an acknowledged record", type(error).__name__, hint)
