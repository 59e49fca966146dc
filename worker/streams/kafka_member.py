"""Membership in the consumer group: which partitions are mine, since when without a break."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kafka import ConsumerRebalanceListener, errors
from kafka import TopicPartition as KafkaPartition
from kafka.admin import MemberToRemove
from kafka.structs import MemberState

from worker.contracts.records import Records
from worker.contracts.settings import KafkaSettings
from worker.errors import FatalError, StateLostError
from worker.streams import TopicPartition
from worker.streams.kafka_client import join_group, make_consumer, needs_rejoin, release_drained
from worker.streams.kafka_log import reading_failed, to_records

Ends = Callable[[list[KafkaPartition]], dict[KafkaPartition, int]]

_JOIN_MS: Final = 1_000
_ASK_ENDS_S: Final = 0.05
_KEEP_ALIVE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Membership:
    """The group metadata and assignment of the poll that delivered records: what fences a commit.

    It must be taken right after that poll. Asked at commit time, the client may answer with
    generation -1 and no member id, which the broker accepts unfenced.
    """

    metadata: Any
    assigned: frozenset[int]
    epoch: int


class Member:
    """One static member of the group on the events and labels topics.

    A partition pair is *parked* (paused, its records dropped) until `seek` makes it *live*. It
    stays live only while this member owned it in every generation of the group: generations are
    consecutive numbers, so a gap, or another member id, means that somebody else may have owned
    it, even if it is back.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        group: str,
        slot: str,
        topics: Sequence[str],
        admin: Any,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._group = group
        self._slot = slot
        self._topics = tuple(topics)
        self._admin = admin
        self._clock_s = clock_s
        self._consumer = make_consumer(settings, group, slot)
        self._now: Membership | None = None
        self._owned: frozenset[int] = frozenset()
        self._lost: set[int] = set()
        self._live: set[int] = set()
        self._paused: set[KafkaPartition] = set()
        self._ends: dict[KafkaPartition, tuple[int, int]] = {}
        self._ends_asked_s = 0.0
        self._polled_s = self._checked_s = clock_s()
        self._epoch = 0
        self._is_wanted = False
        self._consumer.subscribe(list(topics), listener=_Assigned(self._apply_pauses))

    @property
    def is_rebalancing(self) -> bool:
        """Return whether the next `poll` joins the group anew."""
        return needs_rejoin(self._consumer)

    def poll(self, timeout_ms: int, records_max: int) -> list[Records]:
        """Return new records of live partitions; `membership` then says what they belong to.

        Raises
        ------
        FatalError
            Another process has this slot, or the log no longer has a position.
        TransientError
            Kafka does not answer.
        """
        self._is_wanted = True
        found = self._poll_client(timeout_ms, records_max)
        self._observe()
        self._check_slot()
        return [
            to_records(place, rows, self._position(place))
            for place, rows in found.items()
            if place.partition in self._live
        ]

    def membership(self) -> Membership | None:
        """Return the membership after the last poll, None outside of the group.

        A partition whose ownership was interrupted, even if it came back, is left out once.
        """
        if self._now is None:
            return None
        lost, self._lost = self._lost, set()
        return Membership(self._now.metadata, self._owned - lost, self._epoch)

    def current(self, membership: object) -> Membership | None:
        """Return the membership if nothing was recovered since it was taken, else None."""
        if isinstance(membership, Membership) and membership.epoch == self._epoch:
            return membership
        return None

    def caught_up(self, ends: Ends, found: Iterable[TopicPartition]) -> frozenset[TopicPartition]:
        """Return the live topic partitions that have no further committed record.

        The client knows the high watermark, which counts open transactions of producers elsewhere.
        Where it says "more" and nothing came, ``ends`` is asked, at most every 50 ms.
        """
        live = [p for p in self._consumer.assignment() if p.partition in self._live]
        marks = {p: self._consumer.highwater(p) for p in live}
        at = {p: self._position(p) for p in live}
        fetched = [p for p in live if marks[p] is not None]
        done = {p for p in fetched if at[p] >= marks[p]}
        came = set(found)
        quiet = [p for p in fetched if p not in done and (p.topic, p.partition) not in came]
        self._ask_ends(ends, quiet, marks)
        for place in quiet:
            mark, end = self._ends.get(place, (-1, 0))
            if mark == marks[place] and at[place] >= end:
                done.add(place)
        return frozenset((p.topic, p.partition) for p in done)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Make exactly these topic partitions return no records, beside those that are parked."""
        self._paused = {KafkaPartition(*place) for place in partitions}
        self._apply_pauses()

    def seek(self, partition: int, offsets: Sequence[int]) -> None:
        """Set the positions of an owned partition pair, one per topic, and make it live."""
        if partition not in self._owned:
            raise StateLostError(f"partition {partition}", "to be still assigned", "it moved on")
        for topic, offset in zip(self._topics, offsets, strict=True):
            self._consumer.seek(KafkaPartition(topic, partition), offset)
        self._live.add(partition)
        self._apply_pauses()

    def committed(self, topic: str, partition: int, timeout_ms: int) -> int | None:
        """Return the group's committed offset, None if there is none. Waits for open ones.

        Raises
        ------
        TransientError
            An owner's transaction is still open, or Kafka does not answer.
        """
        place = KafkaPartition(topic, partition)
        try:
            offset = self._consumer.committed(place, timeout_ms=timeout_ms)
        except errors.KafkaError as error:
            raise reading_failed(f"offsets of {topic}/{partition}", error) from error
        return None if offset is None else int(offset)

    def park_all(self) -> None:
        """Forget every position; each partition waits for `seek`, older memberships are void."""
        self._epoch += 1
        self._live.clear()
        self._apply_pauses()

    def keep_alive(self) -> None:
        """Poll without taking records, so that the group does not wait for this member.

        Who was never polled is no member yet: it would take partitions that it does not serve.
        """
        if not self._is_wanted or self._clock_s() - self._polled_s < _KEEP_ALIVE_S:
            return
        assigned = self._consumer.assignment()
        self._consumer.pause(*assigned)
        self._poll_client(0, 1)
        self._observe()
        self._apply_pauses()

    def close(self) -> None:
        """Leave the group, so that others take over now and not after the session timeout."""
        self._consumer.close(timeout_ms=2_000)
        if self._now is None:
            return
        me = MemberToRemove(member_id=self._now.metadata.member_id, group_instance_id=self._slot)
        # With both names the broker refuses when another process has this slot by now.
        with suppress(errors.KafkaError):
            self._admin.remove_group_members(self._group, [me])

    def is_slot_taken(self) -> bool:
        """Return whether the group has another member in this slot; False where it cannot say."""
        mine = None if self._now is None else self._now.metadata.member_id
        there = [
            m["member_id"] for m in self.members() or () if m["group_instance_id"] == self._slot
        ]
        return bool(there) and mine not in there

    def members(self) -> list[dict[str, Any]] | None:
        """Return the group's present members as the broker describes them, None if it can not."""
        with suppress(errors.KafkaError):
            group = self._admin.describe_groups([self._group])[self._group]
            return None if group.get("error") else list(group["members"])
        return None

    def _poll_client(self, timeout_ms: int, records_max: int) -> dict[KafkaPartition, list[Any]]:
        self._polled_s = self._clock_s()
        release_drained(self._consumer)
        try:
            if needs_rejoin(self._consumer):
                timeout_ms = max(timeout_ms, join_group(self._consumer, _JOIN_MS))
            found: dict[KafkaPartition, list[Any]] = self._consumer.poll(
                timeout_ms, max_records=records_max
            )
        except errors.NoOffsetForPartitionError:
            return {}  # a new partition of a new group: it is parked now and sought later
        except errors.KafkaError as error:
            raise reading_failed(f"input of {self._group}", error) from error
        return found

    def _observe(self) -> None:
        """Take the snapshot of the membership and find out what was not owned all the time."""
        metadata = self._consumer.group_metadata()
        joined = metadata.generation_id > 0 and bool(metadata.member_id)
        if joined and metadata.state != MemberState.STABLE:
            return  # rebalancing: the old generation holds until the new one is complete
        before, owned = self._now, self._owned
        if joined and before is not None and _same(before.metadata, metadata):
            return
        self._owned = self._assignment() if joined else frozenset()
        unbroken = joined and before is not None and _follows(before.metadata, metadata)
        kept = owned & self._owned if unbroken else frozenset()
        self._lost |= owned - kept
        self._live &= kept
        self._now = Membership(metadata, self._owned, self._epoch) if joined else None
        self._apply_pauses()

    def _assignment(self) -> frozenset[int]:
        """Return the numbers of the assigned partition pairs."""
        assigned = self._consumer.assignment()
        found = [{p.partition for p in assigned if p.topic == topic} for topic in self._topics]
        if any(numbers != found[0] for numbers in found):
            raise FatalError(f"group {self._group}", "events and labels with equal partitions",
                             "an assignment that splits a pair")  # fmt: skip
        return frozenset(found[0])

    def _apply_pauses(self) -> None:
        assigned = self._consumer.assignment()
        parked = {p for p in assigned if p.partition not in self._live}
        for place in parked - self._consumer.paused():
            # Any position will do: without one the client would ask for the committed offset.
            self._consumer.seek(place, 0)
        stopped = parked | (self._paused & assigned)
        self._consumer.pause(*stopped)
        self._consumer.resume(*(assigned - stopped))

    def _position(self, place: KafkaPartition) -> int:
        return int(self._consumer.position(place, timeout_ms=0))

    def _ask_ends(
        self, ends: Ends, quiet: list[KafkaPartition], marks: dict[KafkaPartition, int]
    ) -> None:
        unknown = [p for p in quiet if self._ends.get(p, (-1, 0))[0] != marks[p]]
        now_s = self._clock_s()
        if unknown and now_s - self._ends_asked_s >= _ASK_ENDS_S:
            self._ends_asked_s = now_s
            self._ends.update({p: (marks[p], end) for p, end in ends(unknown).items()})

    def _check_slot(self) -> None:
        """Refuse to go on when another process has this slot; a fenced member polls on unknowing.

        Raises
        ------
        FatalError
            The group's member in this slot is not this one.
        """
        now_s = self._clock_s()
        is_soon = now_s - self._checked_s < self._settings.session_timeout / 1000
        if self._now is None or is_soon or self.is_rebalancing:  # joining, it has two ids
            return
        self._checked_s = now_s
        if self.is_slot_taken():
            raise FatalError(f"group {self._group}", f"to be the only member in slot {self._slot}",
                             "another one", "start one worker per slot")  # fmt: skip


class _Assigned(ConsumerRebalanceListener):  # type: ignore[misc]
    """Parks what is new while the client joins the group: it would ask for committed offsets else,
    and wait for those that a dead member's transaction holds back.
    """

    def __init__(self, park: Callable[[], None]) -> None:
        self._park = park

    def on_partitions_revoked(self, revoked: object) -> None:
        """Do nothing: the next poll finds out."""

    def on_partitions_assigned(self, assigned: object) -> None:
        """Park all that is not live."""
        self._park()


def _same(before: Any, after: Any) -> bool:
    return bool(before.generation_id == after.generation_id and before.member_id == after.member_id)


def _follows(before: Any, after: Any) -> bool:
    return bool(
        after.generation_id == before.generation_id + 1 and before.member_id == after.member_id
    )
