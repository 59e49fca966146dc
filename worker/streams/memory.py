"""A log in this process with partitions, transactions and a consumer group, and a stream over it.

It follows the contract of the real thing where a worker can see it: a commit is visible as a whole
or not at all, a member that lost its place is refused, and one that died leaves all as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker.contracts.records import Output, Records
from worker.errors import FatalError, StateLostError
from worker.streams import Polled, TopicPartition


@dataclass(slots=True)
class _Entry:
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class _Group:
    """Members by slot in order of joining; a new generation with every change."""

    members: dict[str, int] = field(default_factory=dict)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    generation: int = 0


class MemoryLog:
    """Topics, their records and the groups that read them, shared by the streams of one process.

    Parameters
    ----------
    partitions
        Partition count by topic name.
    """

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self.partitions = dict(partitions)
        self._records: dict[TopicPartition, list[_Entry]] = {
            (topic, p): [] for topic, count in partitions.items() for p in range(count)
        }
        self._groups: dict[str, _Group] = {}
        self._joined = 0

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        timestamp_ms: int = 0,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> int:
        """Append one record; return its offset."""
        entries = self._entries(topic, partition)
        entries.append(_Entry(key, value, timestamp_ms, headers))
        return len(entries) - 1

    def end(self, topic: str, partition: int) -> int:
        """Return the offset after the last record."""
        return len(self._entries(topic, partition))

    def read(self, topic: str, partition: int, start: int, records_max: int) -> Records:
        """Return up to ``records_max`` records from an offset on."""
        part = self._entries(topic, partition)[start : start + records_max]
        return Records(
            topic,
            partition,
            list(range(start, start + len(part))),
            [entry.timestamp_ms for entry in part],
            [entry.key for entry in part],
            [entry.value for entry in part],
            start + len(part),
        )

    def headers(self, topic: str, partition: int, offset: int) -> tuple[tuple[str, bytes], ...]:
        """Return the headers of one record."""
        return self._entries(topic, partition)[offset].headers

    def group(self, name: str) -> _Group:
        """Return the state of a group, new where nobody has joined yet."""
        return self._groups.setdefault(name, _Group())

    def join(self, group: str, slot: str) -> int:
        """Add a member, or replace the one in its slot; return its id."""
        state = self.group(group)
        self._joined += 1
        state.members[slot] = self._joined
        state.generation += 1
        return self._joined

    def leave(self, group: str, slot: str, member: int) -> None:
        """Remove a member if it is still the one in its slot."""
        state = self.group(group)
        if state.members.get(slot) == member:
            del state.members[slot]
            state.generation += 1

    def _entries(self, topic: str, partition: int) -> list[_Entry]:
        entries = self._records.get((topic, partition))
        if entries is None:
            raise FatalError(f"{topic}/{partition}", "a declared topic partition", "none")
        return entries


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


class MemoryStream:
    """One worker's stream over a `MemoryLog`. A second one in the same slot takes its place."""

    learns_inline = False

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
        self._generation = -1

    @property
    def partitions(self) -> int:
        """Return the number of partition pairs."""
        return self._log.partitions[self._topics[0]]

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        """Return new records of the owned partitions; never waits."""
        state = self._log.group(self._group)
        assigned = self._assigned()
        if state.generation != self._generation:
            self._generation = state.generation
            kept = {tp: at for tp, at in self._positions.items() if tp[1] in assigned}
            self._positions = kept
        records = [
            self._log.read(topic, p, at, records_max)
            for (topic, p), at in sorted(self._positions.items())
            if (topic, p) not in self._paused
        ]
        for part in records:
            self._positions[part.topic, part.partition] = part.next_offset
        ended = [tp for tp, at in self._positions.items() if at >= self._log.end(*tp)]
        return Polled(
            [part for part in records if len(part)], assigned, self._generation, frozenset(ended)
        )

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Make exactly these return nothing from `poll`."""
        self._paused = frozenset(partitions)

    def seek(self, partition: int, events_offset: int, labels_offset: int) -> None:
        """Set the position of a partition pair."""
        for topic, offset in zip(self._topics, (events_offset, labels_offset), strict=False):
            self._positions[topic, partition] = offset

    def committed(self, partition: int) -> tuple[int, int] | None:
        """Return the committed offsets of a pair."""
        offsets = self._log.group(self._group).offsets
        if (self._topics[0], partition) not in offsets:
            return None
        labels = offsets.get((self._topics[-1], partition), 0) if len(self._topics) > 1 else 0
        return offsets[self._topics[0], partition], labels

    def log_range(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset and the one after the last record."""
        return 0, self._log.end(topic, partition)

    def settle(self, topic: str, partition: int) -> int:
        """Return the end: a transaction is never left open here."""
        return self._log.end(topic, partition)

    def reader(self, topic: str, partition: int, offset: int) -> MemoryReader:
        """Return a reader that starts at ``offset``."""
        return MemoryReader(self._log, topic, partition, offset)

    def last_records(self, topic: str, partition: int, count: int) -> Records:
        """Return the last records of a topic partition."""
        start = max(0, self._log.end(topic, partition) - count)
        return self._log.read(topic, partition, start, count)

    def commit(
        self,
        generation: object,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartition, int],
    ) -> list[int]:
        """Append all outputs and set the positions, or raise and do neither."""
        state = self._log.group(self._group)
        holder = state.members.get(self._slot)
        if holder is not None and holder != self._member:
            raise FatalError(f"slot {self._slot}", "this worker", "another live one in its place")
        if generation != state.generation or not {p for _, p in positions} <= self._assigned():
            raise StateLostError("commit", "the generation that delivered the records", "another")
        offsets = [
            self._log.append(o.topic, o.partition, o.value, o.key, o.timestamp_ms, o.headers)
            for o in outputs
        ]
        state.offsets.update(positions)
        return offsets

    def recover(self) -> None:
        """Join again where this member has lost its place; forget all positions."""
        state = self._log.group(self._group)
        if self._slot not in state.members:
            self._member = self._log.join(self._group, self._slot)
        self._positions = {}

    def keep_alive(self) -> None:
        """Do nothing: a member stays until it leaves."""

    def close(self) -> None:
        """Leave the group. Idempotent."""
        self._log.leave(self._group, self._slot, self._member)

    def _assigned(self) -> frozenset[int]:
        """Return this member's contiguous share of the partitions, as the range assignor does."""
        state = self._log.group(self._group)
        slots = list(state.members)
        if state.members.get(self._slot) != self._member:
            return frozenset()
        share, extra = divmod(self.partitions, len(slots))
        i = slots.index(self._slot)
        first = i * share + min(i, extra)
        return frozenset(range(first, first + share + (i < extra)))
