"""Remedies for what a worker refuses: what `riverwatch repair` does, on any log and store.

*Rebuild* drops the spaces of partitions: they are a cache, and the next worker folds the log again.
What that worker would refuse of an empty store is refused first, while the store is there.
*Drop a spec* does so to all partitions of a file's state, which workers of another file left there.

*Reset* is for a log that no longer has what the store lacks, or offsets that the journal does not
bear out. The shard begins anew at an offset with nothing of the past: a journal record without rows
says where and why. All later records of the shard say it again, so `worker.positions` finds it in
the last one. Never before what is committed: that would score events twice. If it dies after the
record and before the space is dropped, the worker refuses the space of before: rebuild it.

A reset also lets the secondary entities of its partition of `entity-updates` begin at the first row
that is left, where the store lacks rows before it. Only the store says so: where it is lost again,
the partition is reset again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from worker.arrow import SCHEMA_VERSION, empty_journal_record
from worker.checkpoint import space_of, updates_space_of
from worker.contracts.records import Output
from worker.contracts.settings import Settings
from worker.contracts.slots import transactional_id
from worker.errors import ConfigError, StateDamagedError, UnknownLayoutError
from worker.features.spec import FeatureSpec
from worker.positions import (
    BEGINS,
    RESET,
    Begin,
    Topics,
    committed_of,
    first_row,
    refuse,
    start_of,
    topics_of,
)
from worker.secondary import secondary_entities
from worker.stores import Meta, StateStore
from worker.streams import Log

REASON_MAX = 500
PARTITIONS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Space:
    """What the store holds of a partition; ``meta`` is None where it says no position, because half
    of it was dropped or another version wrote it.
    """

    name: str
    partition: int
    meta: Meta | None


@dataclass(frozen=True, slots=True)
class Updates:
    """A space of secondary entities at ``position``, whose log has no row before ``first``."""

    name: str
    position: int
    first: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A shard's new beginning: ``committed`` is C of before, ``output`` the record that says it."""

    begin: Begin
    committed: tuple[int, int]
    output: Output

    @property
    def skipped(self) -> int:
        """Return how many offsets of the events topic will never have a journal row."""
        return self.begin.events - self.committed[0]


def spaces(
    store: StateStore, settings: Settings, spec: FeatureSpec, partitions: Sequence[int] | None
) -> Iterator[Space]:
    """Yield what is stored with the state of a file, of these partitions or of all there can be."""
    for partition in range(PARTITIONS_MAX) if partitions is None else partitions:
        for name_of in (space_of, updates_space_of):
            name = name_of(settings.name, spec, partition)
            try:
                meta = store.meta(name)
            except (StateDamagedError, UnknownLayoutError):
                yield Space(name, partition, None)
            else:
                if meta is not None:
                    yield Space(name, partition, meta)


def check_rebuild(
    log: Log, settings: Settings, spec: FeatureSpec, partitions: Iterable[int]
) -> None:
    """Refuse what the next worker would refuse where it finds nothing stored of a partition.

    Raises
    ------
    FatalError
        The log no longer has all of it: the store may be the last that does.
    """
    topics = topics_of(settings)
    for partition in partitions:
        committed, stamps = committed_of(log, topics, partition)
        start = start_of(log, topics, partition, committed, stamps, None, lambda: None)
        _check_journal(log, topics, partition, start, committed)
        first, end = _updates_range(log, settings, spec, partition)
        if first:
            refuse(settings.outputs.entity_updates, partition, "a log that has the offset 0",
                    f"one of [{first}, {end})", RESET)  # fmt: skip


def _check_journal(
    log: Log, topics: Topics, partition: int, start: Meta, committed: tuple[int, int] | None
) -> None:
    """Refuse where events that are there have lost the rows that say what became of them."""
    begin, end = log.log_range(topics.journal, partition)
    if begin and (start.events_offset, start.labels_offset) != committed:
        first = first_row(log, topics, partition, begin, end, lambda: None)
        if first is None or first[0] > start.events_offset:
            got = "none" if first is None else f"rows from {first[0]} on"
            refuse(topics.journal, partition, f"rows from the event at {start.events_offset} on",
                    got, RESET)  # fmt: skip


def trimmed_updates(
    log: Log, store: StateStore, settings: Settings, spec: FeatureSpec, partition: int
) -> Updates | None:
    """Return the secondary entities of a partition if the log lost rows that they lack."""
    first, _ = _updates_range(log, settings, spec, partition)
    name = updates_space_of(settings.name, spec, partition)
    metas = [s.meta for s in spaces(store, settings, spec, [partition]) if s.name == name]
    position = metas[0].events_offset if metas and metas[0] else 0
    return Updates(name, position, first) if position < first else None


def begin_updates(store: StateStore, updates: Updates) -> None:
    """Let secondary entities begin with nothing at the first row that is left.

    If it dies in between nothing is stored, and the worker refuses: do it again.
    """
    store.drop(updates.name)
    store.flush(updates.name, None, Meta(os.urandom(16), updates.first, 0, 0), [])


def plan_reset(
    log: Log,
    settings: Settings,
    spec: FeatureSpec,
    partition: int,
    events: int | None,
    labels: int | None,
    reason: str,
) -> Reset:
    """Return how a shard begins anew at these offsets, or at the first that it can; writes nothing.

    Raises
    ------
    ConfigError
        There is no such partition or offset, or no reason.
    """
    if not 0 < len(reason.strip()) <= REASON_MAX:
        raise ConfigError(
            "--reason", expected=f"1 to {REASON_MAX} characters", got=str(len(reason))
        )
    if partition not in range(log.partitions):
        raise ConfigError("--partition", expected=f"0..{log.partitions - 1}", got=str(partition))
    topics = topics_of(settings)
    known, last = committed_of(log, topics, partition)
    committed = known or (0, 0)
    begin = Begin(
        _chosen(log, topics.events, partition, "--events", committed[0], events),
        0
        if topics.labels is None
        else _chosen(log, topics.labels, partition, "--labels", committed[1], labels),
        log.settle(topics.journal, partition),
        reason.strip(),
    )
    stamps = {
        "schema_version": str(SCHEMA_VERSION),
        "spec_hash": spec.spec_hash,
        "state_hash": spec.state_hash,
        "partition": str(partition),
        **last,
        "partitions": str(log.partitions),
        "transactional_id": transactional_id(settings.name, "repair"),
        "next_events": str(begin.events),
        "next_labels": str(begin.labels),
        BEGINS: msgspec.json.encode(begin).decode(),
    }
    value = empty_journal_record(len(spec.names), tuple(settings.models), stamps)
    now_ms = time.time_ns() // 1_000_000
    return Reset(begin, committed, Output(topics.journal, partition, None, value, now_ms))


def _updates_range(
    log: Log, settings: Settings, spec: FeatureSpec, partition: int
) -> tuple[int, int]:
    """Return the range of a partition of `entity-updates`; (0, 0) where there is no such topic."""
    if log.partitions == 1 or not secondary_entities(spec):
        return 0, 0
    return log.log_range(settings.outputs.entity_updates, partition)


def _chosen(
    log: Log, topic: str, partition: int, option: str, committed: int, wanted: int | None
) -> int:
    """Return the wanted offset, by default the first that is there and not committed."""
    first, end = log.log_range(topic, partition)
    least = max(first, committed)
    chosen = least if wanted is None else wanted
    if not least <= chosen <= max(end, least):
        raise ConfigError(
            option, expected=f"an offset of {topic}/{partition} from {least} to {max(end, least)}",
            got=str(chosen), hint="what is committed stays: nothing is scored twice",
        )  # fmt: skip
    return chosen
