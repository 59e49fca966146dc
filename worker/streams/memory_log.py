"""A log in this process: topics, partitions, and the consumer groups that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker.contracts.records import Output, Records
from worker.errors import FatalError
from worker.streams import TopicPartition


@dataclass(slots=True)
class _Entry:
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class _Partition:
    """Records in order; None where an offset holds no record, as markers and aborted ones do."""

    first: int = 0
    entries: list[_Entry | None] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.entries)


@dataclass(slots=True)
class Group:
    """Members by slot; a new generation with every change of members."""

    members: dict[str, int] = field(default_factory=dict)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    generation: int = 0
    writers: dict[str, int] = field(default_factory=dict)


class MemoryLog:
    """Topics, their records and the groups that read them, shared by the streams of one process.

    Parameters
    ----------
    partitions
        Partition count by topic name.
    markers
        Every commit leaves one offset without a record at the end of each topic partition that it
        wrote, as Kafka's transactions do.
    """

    def __init__(self, partitions: Mapping[str, int], *, markers: bool = False) -> None:
        self.partitions = dict(partitions)
        self.markers = markers
        self._logs: dict[TopicPartition, _Partition] = {
            (topic, p): _Partition() for topic, count in partitions.items() for p in range(count)
        }
        self._groups: dict[str, Group] = {}
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
        log = self._log(topic, partition)
        log.entries.append(_Entry(key, value, timestamp_ms, headers))
        return log.end - 1

    def write(self, outputs: Sequence[Output]) -> list[int]:
        """Append outputs as one transaction; return the offset of each."""
        places = {(output.topic, output.partition) for output in outputs}
        for place in places:
            self._log(*place)  # refuses a place that is not there before anything is written
        offsets = [
            self.append(o.topic, o.partition, o.value, o.key, o.timestamp_ms, o.headers)
            for o in outputs
        ]
        if self.markers:
            for place in places:
                self.skip(*place)
        return offsets

    def skip(self, topic: str, partition: int, count: int = 1) -> None:
        """Append offsets without records, as an aborted transaction leaves them."""
        self._log(topic, partition).entries.extend([None] * count)

    def truncate(self, topic: str, partition: int, first: int) -> None:
        """Forget everything before an offset, as retention does."""
        log = self._log(topic, partition)
        del log.entries[: max(0, first - log.first)]
        log.first = max(first, log.first)

    def first(self, topic: str, partition: int) -> int:
        """Return the first offset that is still there."""
        return self._log(topic, partition).first

    def end(self, topic: str, partition: int) -> int:
        """Return the offset after the last record or marker."""
        return self._log(topic, partition).end

    def read(self, topic: str, partition: int, start: int, records_max: int) -> Records:
        """Return the records of the next ``records_max`` offsets from ``start`` on.

        Raises
        ------
        FatalError
            The log no longer has the offset, or never had it.
        """
        log = self._log(topic, partition)
        if not log.first <= start <= log.end:
            raise FatalError(f"{topic}/{partition}", f"a log that has the offset {start}",
                             f"one of [{log.first}, {log.end})")  # fmt: skip
        part = log.entries[start - log.first : start - log.first + records_max]
        found = [(start + i, entry) for i, entry in enumerate(part) if entry is not None]
        return Records(
            topic,
            partition,
            [offset for offset, _ in found],
            [entry.timestamp_ms for _, entry in found],
            [entry.key for _, entry in found],
            [entry.value for _, entry in found],
            start + len(part),
        )

    def headers(self, topic: str, partition: int, offset: int) -> tuple[tuple[str, bytes], ...]:
        """Return the headers of one record."""
        log = self._log(topic, partition)
        entry = log.entries[offset - log.first]
        assert entry is not None, f"no record at {topic}/{partition}@{offset}"
        return entry.headers

    def group(self, name: str) -> Group:
        """Return the state of a group, new where nobody has joined yet."""
        return self._groups.setdefault(name, Group())

    def join(self, group: str, slot: str) -> int:
        """Add a member, or replace the one in its slot; return its id."""
        state = self.group(group)
        self._joined += 1
        state.members[slot] = self._joined
        state.generation += 1
        return self._joined

    def leave(self, group: str, slot: str, member: int) -> None:
        """Remove a member if it is still the one in its slot."""
        if self.group(group).members.get(slot) == member:
            self.evict(group, slot)

    def evict(self, group: str, slot: str) -> None:
        """Remove whoever is in a slot, as a broker does that heard nothing from it."""
        state = self.group(group)
        del state.members[slot]
        state.generation += 1

    def _log(self, topic: str, partition: int) -> _Partition:
        log = self._logs.get((topic, partition))
        if log is None:
            raise FatalError(f"{topic}/{partition}", "a declared topic partition", "none")
        return log
