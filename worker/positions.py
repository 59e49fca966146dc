"""Where a shard stands: C, what the group has committed, and R, what the store's fold has.

A shard that `worker.repair` had begin anew has nothing before that: its place is a stamp of the
journal's records from then on, so it holds with an empty store too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import msgspec

from worker.arrow import read_batch, read_stamps, stamps_of
from worker.contracts.settings import Settings
from worker.errors import FatalError, StateDamagedError
from worker.faults import fault
from worker.stores import Meta, StateStore
from worker.streams import Log

REBUILD = "riverwatch repair rebuild -c FILE --partition P; see docs/operations.md, Refusals"
RESET = (
    "riverwatch repair reset -c FILE --partition P --reason WHY; see docs/operations.md, Refusals"
)
"""Where the store may hold what the log no longer has: to rebuild would delete the last copy."""
RESTORE = "restore the topic, or take a new name; see docs/operations.md, Refusals"

BEGINS = "begins"
"""The stamp of all journal records of a shard since it began anew: a `Begin`."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics that recovery reads; ``labels`` is None where no labels are declared."""

    events: str
    labels: str | None
    journal: str


def topics_of(settings: Settings) -> Topics:
    """Return the topics that a configuration names."""
    labels = None if settings.labels is None else settings.labels.topic
    return Topics(settings.events.topic, labels, settings.outputs.journal)


class Begin(msgspec.Struct, frozen=True):
    """Where a shard began anew with nothing, and why; ``journal`` is before the first record of
    it.
    """

    events: int
    labels: int
    journal: int
    reason: str


def standing(store: StateStore, space: str) -> Meta | None:
    """Return where a space stands; a drop that was interrupted is ended first."""
    try:
        return store.meta(space)
    except StateDamagedError:
        store.drop(space)
        return None


def committed_of(
    stream: Log, topics: Topics, partition: int
) -> tuple[tuple[int, int] | None, dict[str, str]]:
    """Return C, the later of the group's offsets and the stamps of the last journal record, and
    these stamps.
    """
    offsets = stream.committed(partition)
    fault("acquire_committed")
    stream.settle(topics.journal, partition)
    fault("acquire_settled")
    last = stream.last_records(topics.journal, partition, 1)
    if not len(last):
        return offsets, {}
    place = f"{topics.journal}/{partition}@{last.offsets[0]}"
    stamps = read_stamps(last.values[0] or b"", place)
    journal = (int(stamps["next_events"]), int(stamps["next_labels"]))
    if offsets is None:
        return journal, stamps
    return (max(offsets[0], journal[0]), max(offsets[1], journal[1])), stamps


def start_of(
    stream: Log,
    topics: Topics,
    partition: int,
    committed: tuple[int, int] | None,
    stamps: Mapping[str, str],
    meta: Meta | None,
    tick: Callable[[], None],
) -> Meta:
    """Return R, or where the store has nothing, the beginning of the shard or of the logs.

    ``committed`` and ``stamps`` are those of `committed_of`, ``meta`` that of `standing`.

    Raises
    ------
    FatalError
        Positions contradict each other; the message names the remedy.
    """
    _check_partitions(stream, topics, partition, stamps, meta)
    if BEGINS in stamps:
        meta = _begun(topics, partition, msgspec.json.decode(stamps[BEGINS], type=Begin), meta)
    inputs = (topics.events, topics.labels)
    ranges = [stream.log_range(topic, partition) if topic else (0, 0) for topic in inputs]
    starts = events_start, labels_start = ranges[0][0], ranges[1][0]
    if stamps.get("labels") == "" and committed is not None:  # none declared yet: none is missing
        committed = committed[0], max(committed[1], labels_start)
        if meta is not None:
            meta = replace(meta, labels_offset=max(meta.labels_offset, labels_start))
    for topic, (start, end), known in zip(inputs, ranges, committed or starts, strict=True):
        if topic and end < known:
            refuse(topic, partition, f"the record at {known - 1}", f"a log that ends at {end}",
                    RESTORE)  # fmt: skip
        if topic and known < start and (known or meta is not None):
            refuse(topic, partition, f"a log from the committed {known} on",
                    f"one from {start} on", RESET)  # fmt: skip
    if meta is None:
        journal_start, journal_end = stream.log_range(topics.journal, partition)
        first = first_row(stream, topics, partition, journal_start, journal_end, tick)
        for topic, known, start in zip(inputs, first or starts, starts, strict=True):
            if topic and known < start:
                refuse(topic, partition, f"a log from {known} on", f"one from {start} on", RESET)
        return Meta(b"", events_start, labels_start, journal_start)
    if committed is None or meta.events_offset > committed[0] or meta.labels_offset > committed[1]:
        refuse(topics.events, partition, f"a store at or before {committed}",
                f"one at {(meta.events_offset, meta.labels_offset)}")  # fmt: skip
    stands = meta.events_offset, meta.labels_offset
    for topic, known, start in zip(inputs, stands, starts, strict=True):
        if topic and known < start:
            refuse(topic, partition, f"a log from {known} on", f"one from {start} on", RESET)
    return meta


def refuse(topic: str, partition: int, expected: str, got: str, hint: str = REBUILD) -> NoReturn:
    """Stop this shard, and name what helps."""
    raise FatalError(f"{topic}/{partition}", expected, got, hint)


def _begun(topics: Topics, partition: int, begin: Begin, meta: Meta | None) -> Meta:
    """Return R of a shard that began anew; a store of before is not taken."""
    if meta is None:
        return Meta(b"", begin.events, begin.labels, begin.journal)
    if meta.journal_offset <= begin.journal:
        refuse(topics.events, partition, f"a store of after the reset at {begin.events}",
               f"one at {meta.events_offset} of before it")  # fmt: skip
    return meta


def _check_partitions(
    stream: Log, topics: Topics, partition: int, stamps: Mapping[str, str], meta: Meta | None
) -> None:
    """Refuse a shard of a topic that had another number of partitions when it was last processed.

    One that was added has no past of its own: the first one tells.
    """
    if not stamps and meta is None and partition:
        last = stream.last_records(topics.journal, 0, 1)
        stamps = read_stamps(last.values[0] or b"", f"{topics.journal}/0") if len(last) else {}
    before = int(stamps.get("partitions", stream.partitions if meta is None else meta.partitions))
    if before != stream.partitions:
        raise FatalError(
            f"topic {topics.events}", f"{before} partitions, as ever", str(stream.partitions),
            "entities are in other partitions than their past; see docs/operations.md, Refusals",
        )  # fmt: skip


def first_row(
    stream: Log, topics: Topics, partition: int, start: int, end: int, tick: Callable[[], None]
) -> tuple[int, int] | None:
    """Return the source offset and the offset that labels had reached, of the first row of the
    journal [start, end); None for none. No label is missing where none were declared then.
    """
    reader = stream.reader(topics.journal, partition, start)
    try:
        while reader.position < end:
            records = reader.poll(100, 1)
            tick()
            for value in records.values if records else []:
                rows = read_batch(value or b"", topics.journal)
                if rows.num_rows:
                    has_labels = stamps_of(rows).get("labels") != ""
                    labels = rows.column("labels_offset")[0].as_py() if has_labels else sys.maxsize
                    return int(rows.column("source_offset")[0].as_py()), int(labels)
    finally:
        reader.close()
    return None
