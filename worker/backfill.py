"""Backfill: the state of other features, built from the log while a worker serves with the old.

The new state has a space of its own (another state hash), and the same fold as a worker's start
builds it: events and labels up to the committed position, scores from the journal. With several
partitions the rows of secondary entities are written under the new state first (`rekeying`), then
folded as their owners do it. Nothing else is written: spaces by guarded flushes of true prefixes
with their position, rows in transactions that say how far they go. So it may die, or be stopped,
at any moment: run again, it goes on from there. A worker that starts with the new file does the
same with what has come since.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from worker.acquire import Live, acquire
from worker.arrow import read_stamps
from worker.checkpoint import space_of, together
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.features.spec import FeatureSpec
from worker.models.catalogue import ModelSet
from worker.owned import Owned
from worker.patience import Patience
from worker.positions import topics_of
from worker.rekeying import Rekeying
from worker.secondary import secondary_entities
from worker.shard import Shard
from worker.stores import StateStore
from worker.streams import Log, Stream
from worker.telemetry import Telemetry

PASSES_MAX = 3
"""Times that what was committed meanwhile is folded too, so that the switch has little to fold."""

_CLOSE = 1_000  # events of a pass after which another one is not worth it


@dataclass(slots=True)
class Built:
    """What one partition's space holds now: events and labels before these offsets; ``rekeyed`` is
    the number of rows of secondary entities that were written.
    """

    partition: int
    events_folded: int
    events_offset: int
    labels_offset: int
    rekeyed: int


class Backfill:
    """Builds the spaces of a configuration beside the workers of another one of the same name.

    Parameters
    ----------
    log
        The topics, from outside of the group.
    ttls_ms
        How long the store keeps entities and pending events.
    progress
        Called with (partition, events folded, events to fold) after every chunk.
    """

    def __init__(
        self,
        log: Log,
        store: StateStore,
        settings: Settings,
        spec: FeatureSpec,
        models: ModelSet,
        ttls_ms: tuple[int, int],
        progress: Callable[[int, int, int], None] = lambda partition, done, total: None,
    ) -> None:
        self._log, self._store = log, store
        self._settings, self._spec, self._models = settings, spec, models
        self._ttls_ms = ttls_ms
        self._progress = progress
        self._topics = topics_of(settings)
        self._beside = cast(Stream, _Beside(log))
        self._foreign = secondary_entities(spec) if log.partitions > 1 else ()
        self._patience = Patience(self._beside, Telemetry(time.time), lambda: False, time.sleep)

    def run(self) -> list[Built]:
        """Build every partition, then what came meanwhile; return where each stands.

        Raises
        ------
        ConfigError
            The workers have this state already: restart them with the file instead.
        FatalError
            Log and store contradict each other, or the log no longer begins where the journal does.
        """
        for partition in range(self._log.partitions):
            self._check_other(partition)
        built = {p: self._build(p) for p in range(self._log.partitions)}
        for _ in range(PASSES_MAX - 1):
            more = [self._build(p) for p in built]
            for one in more:
                one.events_folded += built[one.partition].events_folded
                one.rekeyed += built[one.partition].rekeyed
            late = sum(one.events_folded - built[one.partition].events_folded for one in more)
            built = {one.partition: one for one in more}
            if late < _CLOSE:
                break
        if self._foreign:
            for q in built:
                self._own(q)
        return list(built.values())

    def _build(self, partition: int) -> Built:
        """Fold one partition up to its committed position into the store."""
        shard = Shard(
            self._settings, self._spec, self._models, partition, learns_inline=False,
            foreign=self._foreign,
            partitions=self._log.partitions,
        )  # fmt: skip
        rekeying = None
        if self._foreign:
            rekeying = Rekeying(self._log, self._settings, self._spec, partition, lambda: None)
        live: Live = acquire(
            self._beside,
            self._store,
            self._topics,
            shard,
            space_of(self._settings.name, self._spec, partition),
            self._spec.spec_hash,
            self._ttls_ms,
            self._settings.runner.dirty_max,
            lambda done, total: self._progress(partition, done, total),
            lambda: None,
            rekeying,
        )
        live.checkpoint.flush(shard, live.journal_next)
        rekeyed = 0 if rekeying is None else rekeying.written
        return Built(partition, live.folded, shard.events_next, shard.labels_next, rekeyed)

    def _own(self, q: int) -> None:
        """Fold one partition of the rows of secondary entities up to its end into the store."""
        end = self._log.settle(self._settings.outputs.entity_updates, q)
        owned = Owned(
            self._beside, self._store, self._settings, self._spec, q, end, self._ttls_ms,
        )  # fmt: skip
        try:
            while owned.owner.events_next < end:
                together([(owned.checkpoint, owned.follow())], self._patience.insist)
                if owned.owner.dirty_count >= self._settings.runner.dirty_max:
                    owned.checkpoint.flush(owned.owner, 0)
            owned.checkpoint.flush(owned.owner, 0)
        finally:
            owned.close()

    def _check_other(self, partition: int) -> None:
        """Refuse to write into the space of the workers that serve."""
        last = self._log.last_records(self._topics.journal, partition, 1)
        for value in last.values:
            stamps = read_stamps(value or b"", self._topics.journal)
            if stamps.get("state_hash") == self._spec.state_hash:
                raise ConfigError(
                    "features", expected="features that need another state than the workers have",
                    got=f"the same, {self._spec.state_hash[:16]}",
                    hint="there is nothing to build: restart the workers with this file",
                )  # fmt: skip


class _Beside:
    """A log as `acquire` wants it, which then sets the position of nobody."""

    def __init__(self, log: Log) -> None:
        self.partitions = log.partitions
        self.committed, self.settle = log.committed, log.settle
        self.log_range, self.last_records = log.log_range, log.last_records
        self.reader, self.writer = log.reader, log.writer

    def keep_alive(self) -> None:
        """Do nothing: it is no member."""

    def seek(self, partition: int, events_offset: int, labels_offset: int) -> None:
        """Do nothing."""
