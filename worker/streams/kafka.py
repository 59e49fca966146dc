"""The stream on Apache Kafka, with kafka-python: exactly once, by ten rules.

Each rule was found by running the client against a real broker without it; each has a regression
test in ``tests/streams/test_kafka_rules.py``.

a. The group metadata is taken right after the poll that delivered the records, and only its
   partitions are committed (`kafka_member`).
b. Every record's future is looked at before offsets and commit (`kafka_transactions`).
c. After any error the producer is thrown away (`kafka_transactions`).
d. request < delivery < transaction timeout, short back-off, batches below ``max.message.bytes``.
e. read_committed, no automatic commits (`kafka_client`).
f. Every wait is bounded, and a lost coordinator request is repaired (`kafka_client`).
g. An error from a commit does not mean "not committed": the committed offsets decide, after the
   new producer has settled the old transaction; nothing is replayed from memory.
h. A fenced producer or member means that another process has this slot: exit.
i. A fenced static member would poll on without an error: the group is asked once per session.
j. No automatic offset reset: positions are only ever sought.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from kafka import errors

from worker.contracts.records import Output, Records
from worker.contracts.settings import KafkaSettings, OutputSettings
from worker.contracts.slots import transactional_id
from worker.errors import ConfigError, FatalError, StateLostError, TransientError
from worker.streams import Polled, Reader, TopicPartition
from worker.streams.kafka_client import make_admin
from worker.streams.kafka_log import KafkaLog
from worker.streams.kafka_member import Member
from worker.streams.kafka_transactions import NamedWriter, Transactions
from worker.streams.topics import TopicState, inspect, needed, remedy, rows, stream_contracts

_COMMITTED_MS, _COMMITTED_MS_MAX = 300, 2_000
_SCAN_S = 15.0


class KafkaStream:
    """Input, output and positions of one worker on Kafka.

    Not safe for use by two threads, but for `commit`: it may run beside all but `recover`.

    Parameters
    ----------
    group
        Consumer group; with ``slot`` it names the transactions, ``{group}.{slot}``.
    slot
        Static member id. A restart in the same slot is live in under a second; another slot waits
        until the dead one's session times out.
    labels_topic
        None where no labels are declared; label offsets are 0 then.
    outputs
        Checked at the start like the inputs.
    shared
        Whether there are entities whose events come through every partition.

    Raises
    ------
    ConfigError
        Topics are missing, not permitted or do not fit; credentials or TLS are wrong.
    TransientError
        Kafka does not answer.
    """

    learns_inline = False

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str,
        slot: str,
        events_topic: str,
        labels_topic: str | None,
        outputs: OutputSettings,
        shared: bool = False,
    ) -> None:
        self._settings, self._group = settings, group
        self._events = events_topic
        self._labels = labels_topic
        self._journal = outputs.journal
        self._contracts = stream_contracts(events_topic, labels_topic, outputs, shared)
        inputs = [events_topic] if labels_topic is None else [events_topic, labels_topic]
        with ExitStack() as opened:
            self._admin = make_admin(settings)
            opened.callback(self._admin.close)
            self._topics = self._start_check()
            self._member = Member(settings, group, slot, inputs, self._admin)
            opened.callback(self._member.close)
            self._log = KafkaLog(settings, group, self._admin, self._slots)
            opened.callback(self._log.close)
            self._transactions = Transactions(
                settings, transactional_id(group, slot), self._member.is_slot_taken
            )
            opened.callback(self._transactions.close)
            self._opened = opened.pop_all()
        self._assigned: frozenset[int] = frozenset()

    @property
    def partitions(self) -> int:
        """Return P, the number of partition pairs."""
        return self._topics[self._events].partitions

    @property
    def is_rebalancing(self) -> bool:
        """Return whether the next `poll` ends the membership under which commits are taken."""
        return self._member.is_rebalancing

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        """Return new records of the owned partitions; see `worker.streams.Stream.poll`.

        Raises
        ------
        FatalError
            Another process has this slot; the log lost a position; a topic was created again.
        TransientError
            Kafka does not answer.
        """
        records = self._member.poll(timeout_ms, records_max)
        membership = self._member.membership()
        if membership is None:
            self._assigned = frozenset()
            return Polled([], frozenset(), None, frozenset())
        if membership.assigned - self._assigned:
            self._check_unchanged()
        self._assigned = membership.assigned
        found = [(r.topic, r.partition) for r in records]
        caught_up = self._member.caught_up(self._log.ends, found)
        return Polled(records, membership.assigned, membership, caught_up)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Make exactly these input topic partitions return no records; all others flow."""
        self._member.pause(partitions)

    def seek(self, partition: int, events_offset: int, labels_offset: int) -> None:
        """Set the position of an assigned partition pair and let its records flow."""
        both = [events_offset] if self._labels is None else [events_offset, labels_offset]
        self._member.seek(partition, both)

    def committed(self, partition: int) -> tuple[int, int] | None:
        """Return the committed (events, labels) offsets, or None where nothing was committed.

        A topic without an offset beside one that has one (labels declared later) starts at the
        beginning of its log.

        Raises
        ------
        TransientError
            A former owner's transaction outlived its timeout, or Kafka does not answer.
        """
        events = self._committed(self._events, partition)
        labels = 0 if self._labels is None else self._committed(self._labels, partition)
        if events is None and (labels is None or self._labels is None):
            return None
        if events is None:
            events = self.log_range(self._events, partition)[0]
        if labels is None:
            assert self._labels is not None
            labels = self.log_range(self._labels, partition)[0]
        return events, labels

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

    def commit(
        self,
        generation: object,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartition, int],
    ) -> list[int]:
        """Write outputs and input positions as one unit; return the offset of each output.

        Raises
        ------
        StateLostError
            Not known to be committed. Call `recover`, then acquire every shard again.
        FatalError
            Another live process holds this slot, or the broker refuses for good.
        """
        membership = self._member.current(generation)
        if membership is None:
            raise StateLostError("commit", "a membership of now", "one of before")
        # The broker checks the member, not what it owns.
        foreign = {p for _, p in positions} - membership.assigned
        if foreign:
            raise StateLostError("commit", "positions of assigned partitions", f"{sorted(foreign)}")
        return self._transactions.commit(outputs, positions, membership.metadata)

    def recover(self) -> None:
        """Settle the last transaction with a new producer; every partition waits for `seek`.

        Raises
        ------
        TransientError
            Kafka does not answer: repeat it.
        """
        self._member.park_all()
        self._check_unchanged()
        self._transactions.renew()

    def keep_alive(self) -> None:
        """Stay a member of the group during long work without taking records, once it is one."""
        self._member.keep_alive()

    def close(self) -> None:
        """Leave the group and give back sockets. Idempotent."""
        self._opened.close()

    def _committed(self, topic: str, partition: int) -> int | None:
        """Ask in short waits, so that the group sees this member alive.

        What a dead member left open is ended meanwhile: every transaction with positions of a
        partition has a record in its journal.
        """
        deadline_s = time.monotonic() + self._settings.transaction_timeout / 1000 + _SCAN_S
        wait_ms = _COMMITTED_MS
        while True:
            try:
                return self._member.committed(topic, partition, wait_ms)
            except TransientError as error:
                if time.monotonic() > deadline_s or not _pending(error):
                    raise
                self._log.end_abandoned(self._journal, partition)
            self._member.keep_alive()
            wait_ms = min(2 * wait_ms, _COMMITTED_MS_MAX)  # a slow broker answers, too

    def _slots(self) -> set[str] | None:
        members = self._member.members()
        return None if members is None else {member["group_instance_id"] for member in members}

    def _start_check(self) -> dict[str, TopicState]:
        """Return the state of every topic, all of which fit their contracts."""
        states = self._inspect()
        self._contracts = needed(self._contracts, states)
        wrong = [row for row in rows(self._contracts, states) if not row.fits]
        if wrong:
            got = "; ".join(f"{row.contract.name}: {row.note}" for row in wrong)
            raise ConfigError("topics", expected="all to fit", got=got, hint=remedy(wrong))
        return states

    def _check_unchanged(self) -> None:
        """Refuse topics that were created again or grew: positions and keys mean nothing there."""
        for name, now in self._inspect().items():
            before = self._topics[name]
            if now.problem or now.topic_id != before.topic_id:
                raise FatalError(f"topic {name}", "the topic of the start",
                                 now.problem or "another one of this name",
                                 "see docs/operations.md")  # fmt: skip
            if now.partitions != before.partitions:
                raise FatalError(f"topic {name}", f"{before.partitions} partitions",
                                 f"{now.partitions}", "see docs/operations.md")  # fmt: skip

    def _inspect(self) -> dict[str, TopicState]:
        return inspect(self._admin, [contract.name for contract in self._contracts])


def _pending(error: TransientError) -> bool:
    """Return whether a transaction with offsets is still open: the client answers by a timeout."""
    return isinstance(error.__cause__, errors.KafkaTimeoutError)
