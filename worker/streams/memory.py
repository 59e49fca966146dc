"""A stream over a log in this process, with transactions and a consumer group.

It follows the contract of the real thing where a worker can see it: a commit is visible as a whole
or not at all, a member that lost its place is refused, and one that died leaves all as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.contracts.records import Output, Records
from worker.errors import FatalError, StateLostError
from worker.streams import Polled, TopicPartition
from worker.streams.memory_log import Group, MemoryLog

__all__ = ["MemoryLog", "MemoryReader", "MemoryStream", "MemoryWriter"]


class MemoryReader:
    """A reader of one topic partition."""

    def __init__(self, log: MemoryLog, topic: str, partition: int, offset: int) -> None:
        self._log, self._topic, self._partition = log, topic, partition
        self._position = offset

    @property
    def position(self) -> int:
        """Return the next offset."""
        return self._position

    def poll(self, timeout_ms: int, records_max: int) -> Records | None:
        """Return the next records, or None where there are none; never waits."""
        records = self._log.read(self._topic, self._partition, self._position, records_max)
        self._position = records.next_offset
        return records if len(records) else None

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


class MemoryWriter:
    """Writes under a name until somebody else asks for it."""

    def __init__(self, log: MemoryLog, group: str, name: str) -> None:
        self._log, self._names, self._name = log, log.group(group).writers, name
        self._epoch = self._names[name] = self._names.get(name, 0) + 1

    def write(self, outputs: Sequence[Output]) -> None:
        """Append all outputs, or raise and append none."""
        if self._names[self._name] != self._epoch:
            raise StateLostError(f"writer {self._name}", "to have the name", "another has it")
        self._log.write(outputs)

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


@dataclass(frozen=True, slots=True)
class _Membership:
    """What a commit must name: the group's generation, and how often this worker recovered."""

    generation: int
    recovered: int


class MemoryStream:
    """One worker's stream over a `MemoryLog`. A second one in the same slot takes its place.

    Nothing waits: a change of members takes effect at once, so a commit of an older generation is
    refused even where nobody else has taken the partition yet.
    """

    learns_inline = False
    is_rebalancing = False

    def __init__(
        self, log: MemoryLog, *, group: str, slot: str, events_topic: str, labels_topic: str | None
    ) -> None:
        self._log, self._group, self._slot = log, group, slot
        self._topics = [events_topic] + ([labels_topic] if labels_topic else [])
        counts = {topic: log.partitions.get(topic, 0) for topic in self._topics}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise FatalError("memory log", "equal partition counts", str(counts))
        self._member = log.join(group, slot)
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        self._owned: frozenset[int] = frozenset()
        self._generation = log.group(group).generation
        self._recovered = 0
        self._closed = False

    @property
    def partitions(self) -> int:
        """Return the number of partition pairs."""
        return self._log.partitions[self._topics[0]]

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        """Return new records of the owned partitions; never waits. An evicted member joins again.

        Raises
        ------
        FatalError
            Another stream took this slot, or the log lost a position.
        """
        self._rejoin()
        state, assigned, lost = self._state(), self._assigned(), frozenset[int]()
        if state.generation != self._generation:
            # After a gap in the generations somebody else may have owned what is still here.
            unbroken = state.generation == self._generation + 1
            kept = self._owned & assigned if unbroken else frozenset()
            self._positions = {tp: at for tp, at in self._positions.items() if tp[1] in kept}
            lost, self._generation = self._owned - kept, state.generation
        self._owned = assigned
        records = self._take(records_max)
        ended = [tp for tp, at in self._positions.items() if at >= self._log.end(*tp)]
        membership = _Membership(self._generation, self._recovered)
        return Polled(records, assigned - lost, membership, frozenset(ended))

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Make exactly these return nothing from `poll`."""
        self._paused = frozenset(partitions)

    def seek(self, partition: int, events_offset: int, labels_offset: int) -> None:
        """Set the position of a partition pair."""
        assert partition in self._owned, f"partition {partition} is not assigned"
        for topic, offset in zip(self._topics, (events_offset, labels_offset), strict=False):
            self._positions[topic, partition] = offset

    def committed(self, partition: int) -> tuple[int, int] | None:
        """Return the committed offsets of a pair; a topic without one starts at its beginning."""
        offsets = self._log.group(self._group).offsets
        found = [offsets.get((topic, partition)) for topic in self._topics]
        if all(offset is None for offset in found):
            return None
        both = [
            self._log.first(topic, partition) if offset is None else offset
            for topic, offset in zip(self._topics, found, strict=True)
        ]
        return both[0], both[1] if len(both) > 1 else 0

    def log_range(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset and the one after the last record or marker."""
        return self._log.first(topic, partition), self._log.end(topic, partition)

    def settle(self, topic: str, partition: int) -> int:
        """Return the end: a transaction is never left open here."""
        return self._log.end(topic, partition)

    def reader(self, topic: str, partition: int, offset: int) -> MemoryReader:
        """Return a reader that starts at ``offset``."""
        return MemoryReader(self._log, topic, partition, offset)

    def last_records(self, topic: str, partition: int, count: int) -> Records:
        """Return the last records of a topic partition."""
        first, end = self.log_range(topic, partition)
        back = count
        while True:
            start = max(first, end - back)
            found = self._log.read(topic, partition, start, end - start)
            if len(found) >= count or start == first:
                return _last(found, count)
            back *= 4

    def commit(
        self,
        generation: object,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartition, int],
    ) -> list[int]:
        """Append all outputs and set the positions, or raise and do neither."""
        state = self._state()
        now = _Membership(state.generation, self._recovered)
        if generation != now or not {p for _, p in positions} <= self._assigned():
            raise StateLostError("commit", "the generation that delivered the records", "another")
        offsets = self._log.write(outputs)
        state.offsets.update(positions)
        return offsets

    def writer(self, name: str) -> MemoryWriter:
        """Return the writer of a name; an earlier one is refused from now on."""
        return MemoryWriter(self._log, self._group, name)

    def recover(self) -> None:
        """Forget all positions; memberships of before are void."""
        self._recovered += 1
        self._positions = {}

    def keep_alive(self) -> None:
        """Do nothing: a member stays until it leaves."""

    def close(self) -> None:
        """Leave the group. Idempotent."""
        self._closed = True
        self._log.leave(self._group, self._slot, self._member)

    def _rejoin(self) -> None:
        """Become a member again after an eviction."""
        assert not self._closed, "this stream was closed"
        if self._slot not in self._log.group(self._group).members:
            self._member = self._log.join(self._group, self._slot)

    def _state(self) -> Group:
        """Return the group's state, or raise `FatalError` when another stream took this slot."""
        state = self._log.group(self._group)
        holder = state.members.get(self._slot)
        if holder is not None and holder != self._member:
            raise FatalError(f"slot {self._slot}", "this worker", "another live one in its place")
        return state

    def _take(self, records_max: int) -> list[Records]:
        """Return at most ``records_max`` records; the partition served last comes last."""
        found = []
        for topic, partition in list(self._positions):
            if records_max <= 0:
                break
            if (topic, partition) in self._paused:
                continue
            at = self._positions.pop((topic, partition))
            records = self._log.read(topic, partition, at, records_max)
            self._positions[topic, partition] = records.next_offset
            records_max -= len(records)
            if len(records):
                found.append(records)
        return found

    def _assigned(self) -> frozenset[int]:
        """Return this member's contiguous share of the partitions, as the range assignor does."""
        slots = sorted(self._log.group(self._group).members)
        if self._slot not in slots:
            return frozenset()
        share, extra = divmod(self.partitions, len(slots))
        i = slots.index(self._slot)
        first = i * share + min(i, extra)
        return frozenset(range(first, first + share + (i < extra)))


def _last(found: Records, count: int) -> Records:
    start = max(0, len(found) - count)
    return Records(
        found.topic, found.partition, found.offsets[start:], found.timestamps_ms[start:],
        found.keys[start:], found.values[start:], found.next_offset,
    )  # fmt: skip
