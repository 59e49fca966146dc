"""Feature tables: all entities of one shard in memory, folded and read batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import repeat

import numpy as np

from worker.contracts.records import Bool, EntityRows, Events, Float64, Int64, LabelUpdates
from worker.features.aggregations import AGGREGATIONS
from worker.features.blob import BlobCodec
from worker.features.kernels import fold
from worker.features.learned import Learned
from worker.features.plan import make_plan
from worker.features.recording import recorded_values
from worker.features.rows import RowFeatures
from worker.features.spec import FeatureSpec
from worker.features.state import (
    clear_slots,
    copy_slots,
    grow_slots,
    make_rows,
    with_free_tiles,
)

_SLOTS_FIRST = 256
_EVICT_TO = 15 / 16  # of the bound, so that finding the oldest is paid once for many


class FeatureTables:
    """The state of every entity of one shard.

    Per batch: `missing`, `load` of these, `process`; now and then `take_dirty`, a write to the
    store, `evict`.

    Parameters
    ----------
    primary
        Name of the entity whose ring tells duplicates.
    entities_max
        Entities of one type that `evict` leaves, unless more are dirty.
    foreign
        Entity types whose state is kept elsewhere: before `process`, `recall` brings in what the
        batch needs; `missing`, `take_dirty` and `evict` know nothing of them.
    """

    def __init__(
        self, spec: FeatureSpec, primary: str, entities_max: int, foreign: Collection[str] = ()
    ) -> None:
        self._spec = spec
        self.learned = Learned(spec.features)
        self._row_features = RowFeatures(spec.features)
        self._tables = make_tables(spec, entities_max)
        assert next(iter(self._tables)) == primary, primary
        self._foreign = {name: t for name, t in self._tables.items() if name in foreign}
        self._own = {name: t for name, t in self._tables.items() if name not in foreign}
        hidden = {c for e in spec.entities if e.name in self._foreign for c in e.columns}
        self.own_columns = np.array([c for c in range(len(spec.features)) if c not in hidden])

    @property
    def has_foreign(self) -> bool:
        """Return whether some state is kept elsewhere."""
        return bool(self._foreign)

    def missing(self, events: Events) -> list[tuple[str, str]]:
        """Return the (entity, id) pairs that are not in memory, each once, in a fixed order."""
        return [
            (name, id_)
            for name, table in self._own.items()
            for id_ in table.missing(events.entity_ids[name])
        ]

    def missing_labelled(self, entity_ids: Mapping[str, list[str]]) -> list[tuple[str, str]]:
        """Return as `missing` the states that labels need: of the entities their events are of."""
        assert not entity_ids, "no entity has label features"
        return []

    def load(self, keys: list[tuple[str, str]], blobs: list[bytes | None]) -> None:
        """Take the stored states of entities that `missing` named; None is one never seen.

        Raises
        ------
        StateLostError
            A blob is damaged or of another spec: nothing was taken; rebuild the shard.
        """
        assert len(keys) == len(blobs), (len(keys), len(blobs))
        parts: dict[str, dict[str, bytes | None]] = {}
        for (name, id_), blob in zip(keys, blobs, strict=True):
            parts.setdefault(name, {})[id_] = blob
        for name, part in parts.items():
            self._tables[name].check(part)
        for name, part in parts.items():
            self._tables[name].load(part)

    def process(self, events: Events, updates: LabelUpdates | None = None) -> tuple[Float64, Bool]:
        """Fold events in order; return X (n, features) and which events are duplicates.

        Event i is read when all events before it are in, and itself where its features say so. A
        duplicate, whose id its primary entity's ring holds, changes nothing; its row is zero.
        """
        return self._process(self._tables, events)

    def process_own(
        self, events: Events, updates: LabelUpdates | None = None
    ) -> tuple[Float64, Bool]:
        """Do as `process` without what is kept elsewhere: its columns are zero (for recovery)."""
        return self._process(self._own, events)

    def foreign_ids(self, events: Events) -> dict[str, list[str]]:
        """Return the ids, each once, of the entities kept elsewhere that a batch reads."""
        return {
            name: list(dict.fromkeys(filter(None, events.entity_ids[name])))
            for name in self._foreign
        }

    def check_foreign(self, name: str, blobs: Mapping[str, bytes | None]) -> None:
        """Refuse states that are damaged or of another spec.

        Raises
        ------
        StateDamagedError
            Drop the space that they come from: its owner rebuilds it from the log.
        """
        self._foreign[name].check(blobs)

    def recall(
        self,
        blobs: Mapping[str, Mapping[str, bytes | None]],
        near: Sequence[tuple[Mapping[str, Table], Mapping[str, list[str]]]],
        later: Mapping[str, EntityRows],
    ) -> None:
        """Take the states of `foreign_ids` and fold the rows that came later on top of them.

        Whatever was recalled for an earlier batch is forgotten. Rows of other entities are skipped.

        Parameters
        ----------
        blobs
            By entity type and id, of a store; they have passed `check_foreign`.
        near
            Tables in this process that hold entities, and the ids.
        """
        for table in self._foreign.values():
            table.clear()
        for tables, ids in near:
            for name, part in ids.items():
                self._foreign[name].adopt(tables[name], part)
        for name, table in self._foreign.items():
            table.load(blobs.get(name, {}))
            if name in later:
                table.fold_rows(later[name])

    def foreign_rows(self, events: Events, duplicate: Bool) -> dict[str, EntityRows]:
        """Return what the owners of these entities have to fold of a batch, by entity type."""
        return {
            name: table.rows_of(events, events.entity_ids[name], duplicate)
            for name, table in self._foreign.items()
        }

    def _process(self, tables: dict[str, Table], events: Events) -> tuple[Float64, Bool]:
        X = np.zeros((len(events), len(self._spec.features)))
        duplicate = np.zeros(len(events), np.bool_)
        for name, table in tables.items():
            table.process(events, events.entity_ids[name], duplicate, X)
        self._row_features.write(events, self.learned.update(events, duplicate), X)
        X[duplicate] = 0.0
        return X, duplicate

    @property
    def dirty_count(self) -> int:
        """Return how many entities have changed since they were loaded or taken."""
        return sum(table.dirty_count for table in self._own.values())

    def take_dirty(self) -> list[tuple[str, str, bytes]]:
        """Return (entity, id, blob) of all changed entities and call them clean."""
        return [
            (name, id_, blob)
            for name, table in self._own.items()
            for id_, blob in table.take_dirty()
        ]

    def restore_dirty(self, keys: list[tuple[str, str]]) -> None:
        """Call entities dirty again that were taken by a flush that failed, before any `evict`."""
        for name, id_ in keys:
            self._own[name].mark_dirty(id_)

    def evict(self) -> None:
        """Drop the clean entities that were used longest ago where a type holds too many.

        Only when the store has everything that `take_dirty` returned, and never between `missing`
        and `process`.
        """
        for table in self._own.values():
            table.evict()


def make_tables(spec: FeatureSpec, entities_max: int) -> dict[str, Table]:
    """Return an empty table per entity type that is kept, the primary one first."""
    return {
        entity.name: Table(spec, i, entities_max)
        for i, entity in sorted(enumerate(spec.entities), key=lambda e: not e[1].primary)
        if entity.kept
    }


class Table:
    """The entities of one type."""

    def __init__(self, spec: FeatureSpec, index: int, entities_max: int) -> None:
        entity = spec.entities[index]
        self._sources = tuple(column.source for column in entity.recorded)
        self._filters = spec.filters
        self._plan = make_plan(entity, spec.features, spec.forget_ms)
        self._rows = make_rows(self._plan, entity.ring, _SLOTS_FIRST)
        self._codec = BlobCodec(self._plan, spec.state_hash, entity.name, index)
        self._entities_max = entities_max
        self._optional = entity.optional
        self._columns = np.array(entity.columns, np.int64)
        self._empty = [AGGREGATIONS[spec.features[c].aggregation].empty for c in entity.columns]
        self._width = len(spec.features)
        self._slots: dict[str, int] = {}
        self._ids: list[str] = [""] * _SLOTS_FIRST
        self._free = list(range(_SLOTS_FIRST - 1, -1, -1))
        self._used = np.zeros(_SLOTS_FIRST, np.int64)  # number of the batch that used a slot last
        self._batch = 0
        self.dirty_count = 0

    @property
    def recorded_count(self) -> int:
        """Return how many columns of an event it records: the width of `EntityRows.values`."""
        return len(self._sources)

    def missing(self, ids: list[str]) -> list[str]:
        return [id_ for id_ in dict.fromkeys(ids) if id_ and id_ not in self._slots]

    def check(self, part: Mapping[str, bytes | None]) -> None:
        for blob in part.values():
            if blob is not None:
                self._codec.check(blob)

    def load(self, part: Mapping[str, bytes | None]) -> None:
        new = {id_: blob for id_, blob in part.items() if id_ not in self._slots}
        self._places_for(new)
        stored = [(self._slots[id_], blob) for id_, blob in new.items() if blob is not None]
        if stored:
            self._rows = with_free_tiles(self._plan, self._rows, len(stored))
            slots = np.array([slot for slot, _ in stored], np.int64)
            self._codec.decode(self._rows, slots, [blob for _, blob in stored])

    def adopt(self, other: Table, ids: list[str]) -> None:
        """Take the present states of entities, which are not here, from another table."""
        self._rows = with_free_tiles(self._plan, self._rows, len(ids))
        places = self._places_for(ids)
        these = np.array([other._slots[id_] for id_ in ids], np.int64)
        copy_slots(self._plan, other._rows, these, self._rows, places)

    def process(self, events: Events, ids: list[str], duplicate: Bool, X: Float64) -> None:
        slots = self._slots_of(ids, X)
        rows = EntityRows(
            ids,
            events.time_ms,
            events.id_hash,
            recorded_values(self._sources, self._filters, events),
        )
        self._batch += 1
        self._used[slots[slots >= 0]] = self._batch
        self._fold(slots, rows, duplicate, X)

    def _slots_of(self, ids: list[str], X: Float64) -> Int64:
        """Return the slot of each event's entity; -1, and empty features, where it has none."""
        if not self._optional or all(ids):
            return np.array(list(map(self._slots.__getitem__, ids)), np.int64)
        slots = np.array([self._slots[id_] if id_ else -1 for id_ in ids], np.int64)
        X[np.ix_(slots < 0, self._columns)] = self._empty
        return slots

    def fold_rows(self, rows: EntityRows) -> None:
        """Fold rows in order without reading; those of entities that are not here are skipped."""
        slots = np.fromiter(map(self._slots.get, rows.ids, repeat(-1)), np.int64, len(rows))
        self._batch += 1
        self._used[slots[slots >= 0]] = self._batch
        X = np.empty((len(rows), self._width))
        self._fold(slots, rows, np.zeros(len(rows), np.bool_), X)

    def rows_of(self, events: Events, ids: list[str], duplicate: Bool) -> EntityRows:
        """Return what `fold_rows` takes: the events of a batch that are no duplicates."""
        rows = EntityRows(
            ids,
            events.time_ms,
            events.id_hash,
            recorded_values(self._sources, self._filters, events),
        )
        if all(ids) and not duplicate.any():
            return rows
        return rows.take(np.flatnonzero(~duplicate & np.array(list(map(bool, ids)), np.bool_)))

    def clear(self) -> None:
        """Forget every entity, whatever the store has of it."""
        slots = list(self._slots.values())
        clear_slots(self._plan, self._rows, np.array(slots, np.int64))
        self._free += reversed(slots)
        self._slots.clear()
        self.dirty_count = 0

    def _fold(self, slots: Int64, rows: EntityRows, duplicate: Bool, X: Float64) -> None:
        self._rows = with_free_tiles(self._plan, self._rows, len(slots))
        self.dirty_count += fold(
            self._plan,
            self._rows,
            slots,
            rows.time_ms,
            rows.id_hash.view(np.int64),
            rows.values,
            duplicate,
            X,
        )

    def take_dirty(self) -> list[tuple[str, bytes]]:
        slots = np.flatnonzero(self._rows.dirty)
        blobs = self._codec.encode(self._rows, slots)
        self._rows.dirty[slots] = False
        self.dirty_count = 0
        return list(zip([self._ids[slot] for slot in slots.tolist()], blobs, strict=True))

    def mark_dirty(self, id_: str) -> None:
        slot = self._slots[id_]
        self.dirty_count += not self._rows.dirty[slot]
        self._rows.dirty[slot] = True

    def evict(self) -> None:
        if len(self._slots) <= self._entities_max:
            return
        excess = len(self._slots) - int(self._entities_max * _EVICT_TO)
        slots = np.array(list(self._slots.values()), np.int64)
        clean = slots[~self._rows.dirty[slots]]
        oldest = clean[np.lexsort((clean, self._used[clean]))][:excess]
        clear_slots(self._plan, self._rows, oldest)
        for slot in oldest.tolist():
            del self._slots[self._ids[slot]]
            self._ids[slot] = ""
            self._free.append(slot)

    def _places_for(self, ids: Collection[str]) -> Int64:
        """Return a new slot for each id."""
        self._make_room(len(ids))
        places = [self._free.pop() for _ in ids]
        self._slots.update(zip(ids, places, strict=True))
        for id_, slot in zip(ids, places, strict=True):
            self._ids[slot] = id_
        slots = np.array(places, np.int64)
        self._used[slots] = self._batch
        return slots

    def _make_room(self, count: int) -> None:
        have = len(self._ids)
        if len(self._free) >= count:
            return
        more = max(have, count - len(self._free))
        self._rows = grow_slots(self._rows, have + more)
        self._used = np.concatenate([self._used, np.zeros(more, np.int64)])
        self._ids += [""] * more
        self._free = [*range(have + more - 1, have - 1, -1), *self._free]
