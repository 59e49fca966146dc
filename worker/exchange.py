"""Secondary entities across workers: re-key, own, read; the shell around `worker.secondary`.

Partition q of `entity-updates` belongs to the owner of shard q: as many partitions as the events
have, one assignment, one Acquire. Its state is a fold of that partition alone.

1. *Re-key.* A shard's processed events, and what became known of earlier ones, become rows, sorted
   by target partition (`Rekeyed`); one record per target and commit goes out in the transaction of
   the journal rows. Dies before the commit: nobody sees a row. After it: every row is in the log
   once, as its event or label is.
2. *Keep.* The shard keeps its committed rows with their offsets (`Overlay`). Dies: the overlay is
   lost, and not needed, see 6.
3. *Own.* Each step the owner of q folds what is new in partition q, read_committed, and every flush
   writes changed blobs and the position by the same guarded write as a shard's. Dies: the next
   owner goes on from the stored position. A zombie folds the same rows; its write is refused.
4. *Read.* Per step one MGET per target partition of the blobs that the step's events touch, with
   the space's meta: a flush is atomic, so position and blobs agree. All go in one round trip. A
   target that this worker owns is read from memory. Rows of the overlay before that position are
   dropped, the others folded on top: each own row is seen exactly once.
5. *Never back.* A position before one that was seen means that the store lost writes, and the
   overlay no longer has the rows: everything is acquired again. No score comes of such a state.
6. *Acquire.* The end of every partition is taken when no transaction is open on it: all rows of the
   shard before C lie before these ends. The shard is live when every owner's position has reached
   them; so it needs no overlay of old rows, and nothing committed before is ever missing. Owners
   fold whether their shards are live or not: nobody waits in a circle. Refused: a log that begins
   after the stored position, a position beyond the end.

How old may be what is read: the rows of other shards that their owners have not flushed, one flush
interval, a commit and a poll. The positions that were read are stamped on the journal's records. A
worker whose overlays hold ``dirty_max`` rows waits for the owners.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from worker.checkpoint import Checkpoint, together, updates_space_of
from worker.contracts.needs import Needs
from worker.contracts.records import EntityRows, Events, Output
from worker.contracts.settings import Settings
from worker.errors import StateDamagedError, StateLostError
from worker.features.spec import FeatureSpec
from worker.owned import Owned
from worker.patience import Patience
from worker.rekeying import Rekeying, RowEncoder
from worker.secondary import Overlay, Rekeyed, by_target, secondary_entities
from worker.shard import Result, Shard
from worker.stores import Meta, StateStore
from worker.streams import Stream
from worker.telemetry import Telemetry

Loaded = tuple[int, Meta | None, list[bytes | None]]
"""A target partition, where its state stands, and the values that were asked for."""
Wanted = dict[int, dict[str, list[str]]]
"""Ids by target partition and entity type."""

_STAMP = "entity_updates"


def exchange_for(
    stream: Stream,
    store: StateStore,
    settings: Settings,
    spec: FeatureSpec,
    slot: str,
    ttls_ms: tuple[int, int],
    patience: Patience,
    telemetry: Telemetry,
) -> Exchange | None:
    """Return an `Exchange`; None with one partition, or where no entity is shared."""
    if stream.partitions == 1 or not secondary_entities(spec):
        return None
    return Exchange(stream, store, settings, spec, slot, ttls_ms, patience, telemetry)


class Exchange:
    """All that a worker has of secondary entities: what it owns, what it reads, what it sends."""

    def __init__(
        self,
        stream: Stream,
        store: StateStore,
        settings: Settings,
        spec: FeatureSpec,
        slot: str,
        ttls_ms: tuple[int, int],
        patience: Patience,
        telemetry: Telemetry,
    ) -> None:
        self._stream, self._store, self._settings, self._spec = stream, store, settings, spec
        self._ttls_ms, self._patience, self._telemetry = ttls_ms, patience, telemetry
        self._topic = settings.outputs.entity_updates
        self.names = secondary_entities(spec)
        self._partitions = stream.partitions
        self._encoder = RowEncoder(settings, spec, slot, self._partitions)
        self.owned: dict[int, Owned] = {}
        self._overlays: dict[int, Overlay] = {}
        self._positions = np.zeros(stream.partitions, np.int64)
        self._floors = np.zeros(stream.partitions, np.int64)
        self._sent: Rekeyed | None = None
        self._sent_counts: list[int] = []
        self._reading: list[tuple[Shard, Wanted]] = []

    def rekeying(self, partition: int) -> Rekeying:
        """Return what a shard that is acquired writes of records that had another state."""
        return Rekeying(self._stream, self._settings, self._spec, partition, self._patience.tick)

    def acquire(self, partitions: Sequence[int]) -> None:
        """Bring up what these shards own, and take the ends that must be reached, see step 6.

        Every transaction of the shards' former owners has ended.

        Raises
        ------
        FatalError
            Positions contradict each other; the message names the remedy.
        TransientError
            Stream or store are away; try again.
        """
        for q in range(self._partitions):
            end = self._stream.settle(self._topic, q)
            if q in partitions:
                self.owned[q] = Owned(
                    self._stream, self._store, self._settings, self._spec, q, end,
                    self._ttls_ms,
                )  # fmt: skip
            self._floors[q] = max(self._floors[q], end)
        self._overlays |= {p: Overlay() for p in partitions}

    def release(self, partition: int) -> None:
        """Forget a shard that is owned by somebody else now."""
        self._overlays.pop(partition, None)
        self._count()
        owned = self.owned.pop(partition, None)
        if owned is not None:
            owned.close()

    def release_all(self) -> None:
        """Forget everything; it is acquired again."""
        for partition in list(self.owned):
            self.release(partition)
        self._overlays.clear()
        self._count()
        self._positions[:] = 0
        self._floors[:] = 0

    def catch_up(self, is_full: Callable[[], bool]) -> bool:
        """Fold what is new in the owned partitions; return whether shards may go on.

        They may when every state has reached what was there when its readers began, and the
        overlays are within their bound. ``is_full`` says that nothing more can be folded now.
        """
        while True:
            steps = [(owned.checkpoint, owned.follow()) for owned in self.owned.values()]
            count = sum(together(steps, self._patience.insist))
            self._telemetry.updates.labels("in").inc(count)
            if self._is_ready():
                return True
            if not count or is_full():
                return False
            self._patience.tick()

    def bring(
        self, batches: Sequence[tuple[Shard, Events]]
    ) -> list[tuple[Checkpoint, Needs[None]]]:
        """Return what it takes to have in memory what these batches read of owned entities."""
        self._reading = [(shard, self._wanted(shard, events)) for shard, events in batches]
        mine: dict[int, dict[str, list[str]]] = {}
        for _, targets in self._reading:
            for q in targets.keys() & self.owned.keys():
                for name, ids in targets[q].items():
                    mine.setdefault(q, {}).setdefault(name, []).extend(ids)
        return [(self.owned[q].checkpoint, self.owned[q].bring(mine[q])) for q in sorted(mine)]

    def recall(self) -> None:
        """Give the shards the states that the batches last told to `bring` read, see step 4.

        Without a batch, only drop what others hold by now.

        Raises
        ------
        StateLostError
            A state is behind one that was read before, or a blob is damaged.
        """
        if not self._reading:
            if self._overlay_count:
                self._ask()
            return
        keys: dict[int, dict[str, None]] = {}
        for _, targets in self._reading:
            for q in targets.keys() - self.owned.keys():
                names = (f"{name}:{i}" for name, part in targets[q].items() for i in part)
                keys.setdefault(q, {}).update(dict.fromkeys(names))
        blobs = self._read(self._reading[0][0], {q: list(part) for q, part in keys.items()})
        self._drop()
        stamp = json.dumps(self._positions.tolist())
        for shard, targets in self._reading:
            near = [
                (self.owned[q].owner.tables, targets[q])
                for q in sorted(self.owned.keys() & targets.keys())
            ]
            far: dict[str, dict[str, bytes | None]] = {}
            for q in targets.keys() - self.owned.keys():
                for name, part in targets[q].items():
                    far.setdefault(name, {}).update((i, blobs[f"{name}:{i}"]) for i in part)
            later = self._overlays[shard.partition].later(self._positions)
            shard.tables.recall(far, near, later)
            shard.stamps[_STAMP] = stamp

    def outputs(self, done: Sequence[tuple[Shard, Result]]) -> Callable[[], list[Output]]:
        """Return what makes the records of one commit, on whatever thread, see step 1.

        `committed` or `release_all` follows.
        """
        time_ms = max(max(0, shard.clock.now_ms) for shard, _ in done)
        parts = []
        for shard, result in done:
            events = result.batch.decoded.events
            rows = shard.tables.foreign_rows(events, result.duplicate)
            parts += [(shard.partition, name, part) for name, part in rows.items()]
        return partial(self._encoded, parts, time_ms)

    def _encoded(self, parts: Sequence[tuple[int, str, EntityRows]], time_ms: int) -> list[Output]:
        self._sent, self._sent_counts, outputs = self._encoder.records(parts, time_ms)
        return outputs

    def committed(self, outputs: Sequence[Output], offsets: Sequence[int]) -> None:
        """Keep the rows of the records that were committed, among others, at these offsets."""
        assert self._sent is not None
        pairs = zip(outputs, offsets, strict=True)
        mine = [offset for output, offset in pairs if output.topic == self._topic]
        each = np.repeat(np.array(mine, np.int64), self._sent_counts)
        self._sent.committed(each, self._overlays)
        self._telemetry.updates.labels("out").inc(len(each))
        self._count()
        self._sent = None

    @property
    def dirty_count(self) -> int:
        """Return how many owned entities differ from the store."""
        return sum(owned.owner.dirty_count for owned in self.owned.values())

    @property
    def is_reached(self) -> bool:
        """Return whether shards may go on, as `catch_up` found last."""
        within = self._overlay_count < self._settings.runner.dirty_max
        return within and bool((self._positions >= self._floors).all())

    @property
    def _overlay_count(self) -> int:
        return sum(map(len, self._overlays.values()))

    def _wanted(self, shard: Shard, events: Events) -> Wanted:
        """Return the ids that a batch reads by target partition and entity type."""
        found: Wanted = {}
        for name, ids in shard.tables.foreign_ids(events).items():
            for q, part in by_target(ids, self._partitions).items():
                found.setdefault(q, {})[name] = part
        return found

    def _read(self, shard: Shard, keys: Mapping[int, Sequence[str]]) -> dict[str, bytes | None]:
        """Return others' states by key; they are whole, and not behind those read before."""
        found: dict[str, bytes | None] = {}
        for q, meta, values in self._load(keys):
            self._advance(q, 0 if meta is None else meta.events_offset)
            parts: dict[str, dict[str, bytes | None]] = {}
            for key, value in zip(keys[q], values, strict=True):
                name, _, id_ = key.partition(":")
                parts.setdefault(name, {})[id_] = found[key] = value
            with self._guarding(q, meta):
                for name, part in parts.items():
                    shard.tables.check_foreign(name, part)
        return found

    def _load(self, keys: Mapping[int, Sequence[str]]) -> list[Loaded]:
        """Return others' states, in one round trip."""
        if not keys:
            return []
        name, spec = self._settings.name, self._spec
        asked = [(updates_space_of(name, spec, q), part) for q, part in keys.items()]
        answers = self._patience.insist(lambda: self._store.load(asked))
        return [(q, meta, values) for q, (meta, values) in zip(keys, answers, strict=True)]

    @contextmanager
    def _guarding(self, q: int, meta: Meta | None) -> Iterator[None]:
        """Drop another's space that turns out to be damaged: its owner notices and rebuilds it."""
        try:
            yield
        except StateDamagedError:
            if meta is not None:
                space = updates_space_of(self._settings.name, self._spec, q)
                self._store.drop(space, meta.version)
            raise

    def _advance(self, q: int, position: int) -> None:
        """Take note of a state's position; it never goes back."""
        least = max(self._positions[q], self._floors[q])
        if position < least:
            where = f"state of {self._topic}/{q}"
            raise StateLostError(where, f"one at {least} or later", f"one at {position}")
        self._positions[q] = position

    def _is_ready(self) -> bool:
        for q, owned in self.owned.items():
            self._positions[q] = owned.owner.events_next
        if not self.is_reached:
            self._ask()
        return self.is_reached

    def _ask(self) -> None:
        """Learn where others' states stand, and drop what they hold."""
        far = [q for q in range(len(self._floors)) if q not in self.owned]
        for q, meta, _ in self._load({q: [] for q in far}):
            position = 0 if meta is None else meta.events_offset
            self._positions[q] = max(self._positions[q], position)
        self._drop()

    def _drop(self) -> None:
        for overlay in self._overlays.values():
            overlay.drop(self._positions)
        self._count()

    def _count(self) -> None:
        self._telemetry.overlay.set(self._overlay_count)
