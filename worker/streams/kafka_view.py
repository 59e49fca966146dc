"""The topics of a worker as others see them, from outside of its group."""

from __future__ import annotations

import time
from contextlib import ExitStack

from kafka import TopicPartition as KafkaPartition
from kafka import errors

from worker.contracts.records import Records
from worker.contracts.settings import KafkaSettings
from worker.errors import ConfigError, TransientError
from worker.streams import Reader
from worker.streams.kafka_client import make_admin, make_consumer
from worker.streams.kafka_log import KafkaLog, reading_failed
from worker.streams.kafka_transactions import NamedWriter
from worker.streams.topics import inspect

_COMMITTED_MS = 1_000


class KafkaView:
    """A `Log`: logs and committed offsets of a group, beside its members and without being one.

    Parameters
    ----------
    group
        Whose committed offsets are asked for.
    topics
        Of events, labels (if any) and journal; all have P partitions.

    Raises
    ------
    ConfigError
        A topic is missing, or their partition counts differ.
    TransientError
        Kafka does not answer.
    """

    def __init__(self, settings: KafkaSettings, group: str, topics: list[str]) -> None:
        self._settings = settings
        self._inputs = topics[:-1]
        with ExitStack() as opened:
            admin = make_admin(settings)
            opened.callback(admin.close)
            self._admin, self._group = admin, group
            self.partitions = _partitions(topics, {n: s.partitions for n, s in
                                                   inspect(admin, topics).items()})  # fmt: skip
            # Who is alive is not known here, so no open transaction is ever ended.
            self._log = KafkaLog(settings, group, admin, lambda: None)
            opened.callback(self._log.close)
            # With a group, to ask for its offsets: it would join by a poll, and never polls.
            self._offsets = make_consumer(settings, group, None)
            opened.callback(lambda: self._offsets.close(timeout_ms=1_000))
            self._opened = opened.pop_all()

    def members(self) -> list[str]:
        """Return the slots of the workers that are in the group now.

        Raises
        ------
        TransientError
            The coordinator does not answer.
        """
        try:
            group = self._admin.describe_groups([self._group])[self._group]
        except errors.KafkaError as error:
            raise reading_failed(f"group {self._group}", error) from error
        # The client raises no error of a group; one that nobody ever joined is none either.
        problem = str(group.get("error") or "")
        if problem and errors.GroupIdNotFoundError.__name__ not in problem:
            raise TransientError(f"group {self._group}", "its members", problem)
        return sorted(m["group_instance_id"] or m["client_id"] for m in group["members"])

    def committed(self, partition: int) -> tuple[int, int] | None:
        """Return the committed (events, labels) offsets, or None; waits while a commit is open."""
        found = [self._committed(topic, partition) for topic in self._inputs]
        if found[0] is None:
            return None
        return found[0], (found[1] or 0) if len(found) > 1 else 0

    def log_range(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (first offset, offset after the last committed record or marker)."""
        return self._log.range(topic, partition)

    def settle(self, topic: str, partition: int) -> int:
        """Wait until no transaction that is open now is open any more; return the end offset."""
        return self._log.settle(topic, partition)

    def reader(self, topic: str, partition: int, offset: int) -> Reader:
        """Return a new reader that starts at ``offset``."""
        return self._log.reader(topic, partition, offset)

    def last_records(self, topic: str, partition: int, count: int) -> Records:
        """Return the last ``count`` committed records (fewer where the log has fewer)."""
        return self._log.last(topic, partition, count)

    def writer(self, name: str) -> NamedWriter:
        """Return the writer of a name of the group; an earlier one is refused from now on."""
        return NamedWriter(self._settings, self._group, name)

    def close(self) -> None:
        """Give back sockets. Idempotent."""
        self._opened.close()

    def _committed(self, topic: str, partition: int) -> int | None:
        deadline_s = time.monotonic() + self._settings.transaction_timeout / 1000
        place = KafkaPartition(topic, partition)
        while True:
            try:
                offset = self._offsets.committed(place, timeout_ms=_COMMITTED_MS)
            except errors.KafkaTimeoutError as error:  # a transaction with offsets is still open
                if time.monotonic() > deadline_s:
                    raise TransientError(
                        f"offsets of {topic}/{partition}", "an answer", "none in time"
                    ) from error
            except errors.KafkaError as error:
                raise reading_failed(f"offsets of {topic}/{partition}", error) from error
            else:
                return None if offset is None else int(offset)


def _partitions(topics: list[str], counts: dict[str, int]) -> int:
    """Return P, which all topics have."""
    if min(counts.values()) == 0 or len(set(counts.values())) > 1:
        raise ConfigError(
            "topics", expected="as many partitions of each",
            got=", ".join(f"{name}: {counts[name]}" for name in topics),
            hint="riverwatch topics -c FILE shows what is there",
        )  # fmt: skip
    return counts[topics[0]]
