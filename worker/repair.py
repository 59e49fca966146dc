"""Remedies for what a worker refuses: what `riverwatch repair` does, on any log and store.

*Rebuild* drops the spaces of partitions: they are a cache, and the next worker folds the log again.
*Drop a spec* does so to all partitions of a file's state, which workers of another file left there.

*Reset* is for a log that no longer has what the store lacks, or offsets that the journal does not
bear out. The shard begins anew at an offset with nothing of the past: a journal record without rows
says where and why. All later records of the shard say it again, so `worker.positions` finds it in
the last one. Never before what is committed: that would score events twice. If it dies after the
record and before the space is dropped, the worker refuses the space of before: rebuild it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from worker.arrow import SCHEMA_VERSION, empty_journal_record
from worker.checkpoint import space_of, updates_space_of
from worker.contracts.records import Output
from worker.contracts.settings import Settings
from worker.contracts.slots import transactional_id
from worker.errors import ConfigError, StateDamagedError
from worker.features.spec import FeatureSpec
from worker.positions import BEGINS, Begin, committed_of, topics_of
from worker.stores import Meta, StateStore
from worker.streams import Log

REASON_MAX = 500
PARTITIONS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Space:
    """What the store holds of a partition; ``meta`` is None where half of it was dropped."""

    name: str
    partition: int
    meta: Meta | None


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
            except StateDamagedError:
                yield Space(name, partition, None)
            else:
                if meta is not None:
                    yield Space(name, partition, meta)


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
