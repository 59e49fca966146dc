"""Streams: where records come from and where outputs go, as one unit per commit.

A stream has P partition pairs: partition p of the events topic and of the labels topic belong
together and have one owner at a time. Implementations: `kafka`, `files`, `memory`; each is held to
`tests/streams`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.contracts.records import Output, Records

TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll saw.

    ``records`` holds at most one `Records` per topic partition. ``assigned`` are the partition
    pairs owned after this poll. ``generation`` names the membership that delivered the records;
    `Stream.commit` takes it back and refuses when the partitions have moved on. ``caught_up`` are
    the input topic partitions that have no further record at the time of the poll.
    """

    records: list[Records]
    assigned: frozenset[int]
    generation: object
    caught_up: frozenset[TopicPartition]


class Reader(Protocol):
    """A read_committed reader of one topic partition, outside of any group."""

    @property
    def position(self) -> int:
        """Return the next offset; it moves over aborted records and markers too."""

    def poll(self, timeout_ms: int, records_max: int) -> Records | None:
        """Return the next committed records, or None when none came in time."""

    def close(self) -> None:
        """Give back sockets."""


class Writer(Protocol):
    """Writes outputs under a name, without positions; the last who asked for the name has it."""

    def write(self, outputs: Sequence[Output]) -> None:
        """Write outputs as one unit.

        Raises
        ------
        StateLostError
            Not known to be written, or somebody else has the name now: ask for it again.
        """

    def close(self) -> None:
        """Give back sockets."""


class Log(Protocol):
    """The topics of one group as anybody may read them. Not safe for use by two threads."""

    @property
    def partitions(self) -> int:
        """Return P, the number of partition pairs; equal for events and labels, checked at the
        start.
        """

    def committed(self, partition: int) -> tuple[int, int] | None:
        """Return the committed (events, labels) offsets, or None; waits while a commit is open."""

    def log_range(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (first offset, offset after the last committed record or marker) of a topic
        partition.
        """

    def settle(self, topic: str, partition: int) -> int:
        """Wait until no transaction is open on a topic partition; return its end offset.

        Raises
        ------
        TransientError
            A former owner's transaction outlived its timeout.
        """

    def reader(self, topic: str, partition: int, offset: int) -> Reader:
        """Return a new reader that starts at ``offset``."""

    def last_records(self, topic: str, partition: int, count: int) -> Records:
        """Return the last ``count`` committed records (fewer where the log has fewer)."""

    def writer(self, name: str) -> Writer:
        """Return the writer of a name of this group.

        What an earlier one had open has ended, and it is refused from now on.
        """


class Stream(Log, Protocol):
    """A `Log` with input, output and positions of one worker."""

    learns_inline: bool
    """True where each example is learned before the next event is scored (no training topic is
    read).
    """

    @property
    def is_rebalancing(self) -> bool:
        """Return whether the next `poll` ends the membership: a commit under way is to end before.

        A hint; a commit that comes too late is refused.
        """

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        """Return new records of the owned partitions. A `commit` may be under way.

        Records of a partition that was newly assigned come only after `seek`.
        """

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Make exactly these input topic partitions return nothing from `poll`; others flow."""

    def seek(self, partition: int, events_offset: int, labels_offset: int) -> None:
        """Set the position of a partition pair that is assigned; records polled earlier are
        forgotten.
        """

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
            Another live process holds this slot: exit.
        """

    def recover(self) -> None:
        """Settle whatever a failed commit left behind and be ready to commit again."""

    def keep_alive(self) -> None:
        """Stay a member of the group during long work without taking records, once it is one."""

    def close(self) -> None:
        """Leave the group and give back sockets. Idempotent."""
