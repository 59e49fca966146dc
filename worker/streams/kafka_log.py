"""Reading logs outside of the group: ranges, tails, open transactions, readers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any

from kafka import IsolationLevel, OffsetSpec, errors
from kafka import TopicPartition as KafkaPartition

from worker.contracts.records import Records
from worker.contracts.settings import KafkaSettings
from worker.contracts.slots import slot_of
from worker.errors import FatalError, RiverwatchError, TransientError
from worker.streams.kafka_batches import Row
from worker.streams.kafka_client import ask_ahead, make_consumer, make_producer

_ASK_MS = 5_000
_PAUSE_S = 0.01
_IDLE_READERS_MAX = 4
_SCAN_MS = 15_000  # the broker looks for overdue transactions every 10 s by default
_TAIL_POLL_MS = 10  # a poll over aborted records lasts its whole timeout
_TAIL_RECORDS = 500
_TAIL_MARKERS = 6  # of transactions that had nothing for this topic partition but their end
# By the kind of error; {} is what was tried.
_RIGHTS = {
    errors.TopicAuthorizationFailedError: "{} on the topic",
    errors.GroupAuthorizationFailedError: "Read on the group",
    errors.TransactionalIdAuthorizationFailedError: "Write on the transactional id",
    errors.ClusterAuthorizationFailedError: "IdempotentWrite on the cluster",
}


def to_records(partition: KafkaPartition, found: list[Any], next_offset: int) -> Records:
    """Return the client's records of one topic partition, of which there are some, as columns."""
    rows = found if isinstance(found[0], Row) else map(attrgetter(*Row._fields), found)
    offsets, times_ms, keys, values = map(list, zip(*rows, strict=True))
    return Records(
        partition.topic, partition.partition, offsets, times_ms, keys, values, next_offset
    )


class KafkaLog:
    """Answers questions about topic partitions.

    Parameters
    ----------
    admin
        An admin client; the caller closes it.
    members
        Returns the slots of the group's present members.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        group: str,
        admin: Any,
        members: Callable[[], set[str] | None],
    ) -> None:
        self._settings = settings
        self._group = group
        self._admin = admin
        self._members = members
        self._consumer = make_consumer(settings, None, None)
        self._idle: list[tuple[str, Any]] = []  # with the topic that each read last
        self._lent: list[Any] = []

    def range(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (first offset, offset after the last committed record or marker).

        Raises
        ------
        TransientError
            Kafka does not answer.
        """
        place = KafkaPartition(topic, partition)
        try:
            first = self._consumer.beginning_offsets([place], timeout_ms=_ASK_MS)[place]
            end = self._consumer.end_offsets([place], timeout_ms=_ASK_MS)[place]
        except errors.KafkaError as error:
            raise _unanswered(f"{topic}/{partition}", error) from error
        return int(first), int(end)

    def ends(self, places: list[KafkaPartition]) -> dict[KafkaPartition, int]:
        """Return the offset after the last committed record or marker of several partitions."""
        try:
            ends: dict[KafkaPartition, int] = self._consumer.end_offsets(places, timeout_ms=_ASK_MS)
        except errors.KafkaError as error:
            raise _unanswered("input", error) from error
        return ends

    def settle(self, topic: str, partition: int) -> int:
        """Wait until every transaction that is open here now has ended; return the end offset.

        The end of the log with open transactions is taken once: transactions that begin later,
        on a topic that others go on writing, are not waited for. Markers are written a moment
        after the answer to a commit, so asking once would not do.
        """
        place = KafkaPartition(topic, partition)
        deadline_s = time.monotonic() + (self._settings.transaction_timeout + _SCAN_MS) / 1000
        try:
            wanted = self._high_watermark(place)
            ask_owner_s = time.monotonic() + 0.2
            while (end := self.ends([place])[place]) < wanted:
                if time.monotonic() > ask_owner_s:
                    self.end_abandoned(topic, partition)
                    ask_owner_s = time.monotonic() + 1.0
                if time.monotonic() > deadline_s:
                    raise TransientError(f"{topic}/{partition}", "no open transaction",
                                         "one that outlived its timeout")  # fmt: skip
                time.sleep(_PAUSE_S)
        except errors.KafkaError as error:
            raise _unanswered(f"{topic}/{partition}", error) from error
        return int(end)

    def end_abandoned(self, topic: str, partition: int) -> None:
        """End open transactions of slots of this group that no member has any more.

        Initialising their transactional id aborts them at once (30 ms); else they last until
        their timeout. An owner that still lives is only waited for.
        """
        with suppress(errors.KafkaError):  # not permitted or not answered: the timeout does it
            # Transactions before members: who begins one in between is a member by then.
            open_transactions = self._open_transactions(KafkaPartition(topic, partition))
            slots = self._members()
            if slots is None:
                return  # who is alive is not known: a living owner must not be fenced
            for name in open_transactions:
                slot = slot_of(name, self._group)
                if slot is not None and slot not in slots:
                    self._initialise(name)

    def last(self, topic: str, partition: int, count: int) -> Records:
        """Return the last ``count`` committed records; aborted ones and markers are passed over."""
        first, end = self.range(topic, partition)
        back = 2 * max(1, count) + _TAIL_MARKERS  # each record may have a marker behind it
        while True:
            start = max(first, end - back)
            found = self._between(topic, partition, start, end)
            if len(found) >= count or start == first:
                return _tail(found, count, end)
            back *= 4

    def reader(self, topic: str, partition: int, offset: int) -> KafkaReader:
        """Return a reader; its connection is used again after `KafkaReader.close`."""
        consumer = self._take_idle(topic) or make_consumer(self._settings, None, None)
        self._lent.append(consumer)
        return KafkaReader(consumer, KafkaPartition(topic, partition), offset, self._give_back)

    def _take_idle(self, topic: str) -> Any:
        """Return an idle connection, rather one that knows the topic; None where none is idle."""
        known = [i for i, (last, _) in enumerate(self._idle) if last == topic]
        return self._idle.pop(known[-1] if known else 0)[1] if self._idle else None

    def close(self) -> None:
        """Give back all connections, also those of readers."""
        idle = [consumer for _, consumer in self._idle]
        for consumer in [self._consumer, *idle, *self._lent]:
            consumer.close(timeout_ms=1_000)
        self._idle.clear()
        self._lent.clear()

    def _give_back(self, consumer: Any, topic: str) -> None:
        if consumer not in self._lent:
            return  # the log was closed before its reader
        self._lent.remove(consumer)
        if len(self._idle) < _IDLE_READERS_MAX:
            consumer.unsubscribe()  # what is under way is of nobody then
            self._idle.append((topic, consumer))
        else:
            consumer.close(timeout_ms=1_000)

    def _high_watermark(self, place: KafkaPartition) -> int:
        answer = self._admin.list_partition_offsets(
            {place: OffsetSpec.LATEST}, isolation_level=IsolationLevel.READ_UNCOMMITTED
        )
        return int(answer[place].offset)

    def _open_transactions(self, place: KafkaPartition) -> list[str]:
        producers = self._admin.describe_producers([place])[place].active_producers
        ids = {p.producer_id for p in producers if p.current_transaction_start_offset >= 0}
        listed = [t for broker in self._admin.list_transactions().values() for t in broker]
        return [t.transactional_id for t in listed if t.producer_id in ids]

    def _initialise(self, transactional_id: str) -> None:
        producer = make_producer(self._settings, transactional_id)
        try:
            producer.init_transactions()
        finally:
            producer.close(timeout=1)

    def _between(self, topic: str, partition: int, start: int, end: int) -> Records:
        found = Records(topic, partition, [], [], [], [], end)
        reader = self.reader(topic, partition, start)
        deadline_s = time.monotonic() + _ASK_MS / 1000
        try:
            while reader.position < end:
                records = reader.poll(_TAIL_POLL_MS, _TAIL_RECORDS)
                if records is not None:
                    _extend(found, records, end)
                elif time.monotonic() > deadline_s:
                    raise TransientError(f"{topic}/{partition}", f"records up to {end}",
                                         f"none after {reader.position}")  # fmt: skip
        finally:
            reader.close()
        return found


class KafkaReader:
    """Reads committed records of one topic partition from an offset on."""

    def __init__(
        self,
        consumer: Any,
        place: KafkaPartition,
        offset: int,
        give_back: Callable[[Any, str], None],
    ) -> None:
        self._consumer: Any = consumer
        self._place = place
        self._give_back = give_back
        self._position = offset
        consumer.assign([place])
        consumer.seek(place, offset)
        with suppress(errors.KafkaError):  # the first poll meets it again
            ask_ahead(consumer)

    @property
    def position(self) -> int:
        """Return the next offset; it moves over aborted records and markers too."""
        return self._position

    def poll(self, timeout_ms: int, records_max: int) -> Records | None:
        """Return the next committed records, or None when none came in time.

        Raises
        ------
        TransientError
            Kafka does not answer: repeat it.
        FatalError
            The log no longer has the offset, or reading it is not permitted.
        """
        try:
            found = self._consumer.poll(timeout_ms, max_records=records_max)
        except errors.KafkaError as error:
            raise reading_failed(f"{self._place.topic}/{self._place.partition}", error) from error
        self._position = int(self._consumer.position(self._place, timeout_ms=0))
        if not found:
            return None
        return to_records(self._place, found[self._place], self._position)

    def close(self) -> None:
        """Give back the connection. Idempotent."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._give_back(consumer, self._place.topic)


def reading_failed(where: str, error: errors.KafkaError) -> Exception:
    """Return what the caller of a failed poll should do."""
    if isinstance(error, errors.OffsetOutOfRangeError | errors.LogTruncationError):
        return FatalError(where, "a log that has the wanted offset", str(error),
                          "retention removed records that were not processed; see "
                          "docs/operations.md")  # fmt: skip
    if isinstance(error, errors.AuthorizationError):
        return denied(where, error, "Read")
    if isinstance(error, errors.FencedInstanceIdError):
        return FatalError(where, "to be the only member of this slot", "another one")
    return _unanswered(where, error)


def denied(where: str, error: Exception, operation: str) -> FatalError:
    """Return the error for a right that is missing.

    ``operation`` is what was tried on a topic or transactional id; a group is only ever read.
    """
    right = next((right for kind, right in _RIGHTS.items() if isinstance(error, kind)), "{}")
    expected = f"the right {right.format(operation)}"
    return FatalError(where, expected, str(error), "see docs/operations.md, Rights in Kafka")


def _unanswered(where: str, error: Exception) -> RiverwatchError:
    if isinstance(error, errors.AuthorizationError):
        return denied(where, error, "Describe")
    return TransientError(where, "an answer", f"{type(error).__name__}: {error}")


def _extend(found: Records, more: Records, end: int) -> None:
    count = sum(offset < end for offset in more.offsets)
    found.offsets.extend(more.offsets[:count])
    found.timestamps_ms.extend(more.timestamps_ms[:count])
    found.keys.extend(more.keys[:count])
    found.values.extend(more.values[:count])


def _tail(found: Records, count: int, end: int) -> Records:
    start = max(0, len(found) - count)
    return Records(
        found.topic, found.partition, found.offsets[start:], found.timestamps_ms[start:],
        found.keys[start:], found.values[start:], end,
    )  # fmt: skip
