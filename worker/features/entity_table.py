"""The entities of one type in memory: their slots, what of them is dirty, and their blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worker.contracts.records import Bool, EntityRows, Events, Float64, Int64
from worker.features.aggregations import AGGREGATIONS
from worker.features.blob import BlobCodec
from worker.features.copying import copy_slots
from worker.features.index import Index, UInt64
from worker.features.kernels import fold_of
from worker.features.label_view import entity_of
from worker.features.plan import Plan, make_plan, without_reads
from worker.features.recording import recorded_values
from worker.features.spec import FeatureSpec
from worker.features.state import (
    SIZE,
    TILE_ROW,
    clear_slots,
    grow_slots,
    make_rows,
    with_free_tiles,
)

_SLOTS_FIRST = 256
_EVICT_TO = 15 / 16  # of the bound, so that finding the oldest is paid once for many


class Table:
    """The entities of one type.

    Attributes
    ----------
    entity
        The entity type.
    """

    def __init__(self, spec: FeatureSpec, index: int, entities_max: int) -> None:
        entity = spec.parts[index]
        self.entity = entity_of(entity)
        self._sources = tuple(column.source for column in entity.recorded)
        self._filters = spec.filters
        view = spec.event_view if index < len(spec.entities) else spec.label_view
        self._plan = make_plan(entity, view, spec.forget_ms)
        self._silent = without_reads(self._plan)
        self._kernel = fold_of(self._plan)
        self._rows = make_rows(self._plan, entity.ring, _SLOTS_FIRST)
        self._codec = BlobCodec(self._plan, spec.state_hash, entity.name, index)
        self._entities_max = entities_max
        self._optional = entity.optional
        self._columns = np.array(entity.columns, np.int64)
        self._empty = [AGGREGATIONS[view[c].aggregation].empty for c in entity.columns]
        self._width = len(spec.event_view)
        self._slots = Index(bytes.fromhex(spec.state_hash)[:16])
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
        unknown = np.flatnonzero(self._slots.find(ids) < 0).tolist()
        return list(dict.fromkeys(id_ for i in unknown if (id_ := ids[i])))

    def held(self, ids: list[str], id_hash: UInt64) -> Bool:
        """Return which events the rings of their entities hold, of those that are here.

        Such an event is a duplicate, unless its entity is forgotten before.
        """
        slots, ring = self._slots.look_up(self._slots.hashes(ids)), self._rows.ring
        in_use = np.arange(ring.shape[2]) < self._rows.meta[slots, SIZE][:, None]
        found = (ring[slots, -1] == id_hash.view(np.int64)[:, None]) & in_use
        return np.asarray(found.any(axis=1) & (slots >= 0), np.bool_)

    def check(self, part: Mapping[str, bytes | None]) -> None:
        self._codec.check([blob for blob in part.values() if blob is not None])

    def load(self, part: Mapping[str, bytes | None]) -> None:
        ids, blobs = list(part), list(part.values())
        hashes = self._slots.hashes(ids)
        new = self._slots.look_up(hashes) < 0
        if not new.all():
            at = np.flatnonzero(new).tolist()
            ids, blobs, hashes = [ids[i] for i in at], [blobs[i] for i in at], hashes[new]
        places = self._places_for(ids, hashes)
        stored = [blob for blob in blobs if blob is not None]
        if len(stored) < len(blobs):
            places = places[[blob is not None for blob in blobs]]
        if stored:
            self._rows = with_free_tiles(self._plan, self._rows, len(stored))
            self._codec.decode(self._rows, places, stored)

    def adopt(self, parts: Sequence[tuple[Table, list[str]]]) -> None:
        """Take the present states of entities, which are not here, from other tables of the spec,
        where they are.
        """
        hashes = [other._slots.hashes(ids) for other, ids in parts]
        found = [other._slots.look_up(h) for (other, _), h in zip(parts, hashes, strict=True)]
        all_ids = [id_ for _, ids in parts for id_ in ids]
        places = self._places_for(all_ids, np.concatenate(hashes))  # one key hashes for all
        start = 0
        for (other, _), slots in zip(parts, found, strict=True):
            stop, tiled = start + len(slots), other._rows.meta[slots, TILE_ROW] >= 0
            self._rows = with_free_tiles(self._plan, self._rows, int(tiled.sum()))
            copy_slots(self._plan, other._rows, slots, self._rows, places[start:stop])
            start = stop

    def process(self, events: Events, ids: list[str], duplicate: Bool, X: Float64) -> Int64:
        """Fold events and read them into rows of X; return the now at which each was read."""
        slots = self._use(ids)
        if self._optional:
            X[np.ix_(slots < 0, self._columns)] = self._empty
        values = recorded_values(self._sources, self._filters, events)
        rows = EntityRows(ids, events.time_ms, events.id_hash, values)
        return self._fold(self._plan, slots, rows, duplicate, X)

    def fold_rows(self, rows: EntityRows) -> None:
        """Fold rows in order without reading; those of entities that are not here are skipped."""
        slots = self._here(rows.ids)
        nothing = np.empty((len(rows), 0))
        self._fold(self._silent, slots, rows, np.zeros(len(rows), np.bool_), nothing)

    def rows_of(self, events: Events, ids: list[str], duplicate: Bool) -> EntityRows:
        """Return what `fold_rows` takes: the events of a batch that are no duplicates."""
        values = recorded_values(self._sources, self._filters, events)
        rows = EntityRows(ids, events.time_ms, events.id_hash, values)
        if all(ids) and not duplicate.any():
            return rows
        return rows.take(np.flatnonzero(~duplicate & np.array(list(map(bool, ids)), np.bool_)))

    def clear(self) -> None:
        """Forget every entity, whatever the store has of it."""
        slots = self._slots.slots()
        clear_slots(self._plan, self._rows, slots)
        self._free += slots[::-1].tolist()
        self._slots.clear()
        self.dirty_count = 0

    def _use(self, ids: list[str]) -> Int64:
        """Return the slots of entities that are here, -1 where an event has none."""
        slots = self._here(ids)
        none = int(np.count_nonzero(slots < 0))
        assert none == 0 or (self._optional and none == ids.count("")), "an entity is not loaded"
        return slots

    def _here(self, ids: list[str]) -> Int64:
        """Return the slots of entities, -1 for those that are not here."""
        slots = self._slots.find(ids)
        self._batch += 1
        self._used[slots[slots >= 0]] = self._batch
        return slots

    def _fold(
        self, plan: Plan, slots: Int64, rows: EntityRows, duplicate: Bool, X: Float64
    ) -> Int64:
        self._rows = with_free_tiles(plan, self._rows, self._tiles_wanted(slots))
        return self._run(plan, slots, rows, duplicate, X)

    def _run(
        self, plan: Plan, slots: Int64, rows: EntityRows, duplicate: Bool, X: Float64
    ) -> Int64:
        """Do as `_fold`, where tile rows are known to be enough."""
        now = np.zeros(len(slots), np.int64)
        self.dirty_count += self._kernel(
            plan,
            self._rows,
            slots,
            rows.time_ms,
            rows.id_hash.view(np.int64),
            rows.values,
            duplicate,
            now,
            X,
        )
        return now

    def _tiles_wanted(self, slots: Int64) -> int:
        """Return how many tile rows a fold may take at most: of entities whose ring overflows."""
        meta = self._rows.meta
        without = slots[(slots >= 0) & (meta[slots, TILE_ROW] < 0)]
        if len(without) <= self._rows.free_count[0]:
            return 0  # there are enough, however many of them overflow
        these, counts = np.unique(without, return_counts=True)
        return int(np.count_nonzero(meta[these, SIZE] + counts > self._rows.ring.shape[2]))

    def take_dirty(self) -> tuple[list[str], list[bytes]]:
        slots = np.flatnonzero(self._rows.dirty)
        blobs = self._codec.encode(self._rows, slots)
        self._rows.dirty[slots] = False
        self.dirty_count = 0
        ids = self._ids
        return [ids[slot] for slot in slots.tolist()], blobs

    def evict(self) -> None:
        if len(self._slots) <= self._entities_max:
            return
        excess = len(self._slots) - int(self._entities_max * _EVICT_TO)
        slots = self._slots.slots()
        clean = slots[~self._rows.dirty[slots]]
        oldest = clean[np.lexsort((clean, self._used[clean]))][:excess]
        clear_slots(self._plan, self._rows, oldest)
        places = oldest.tolist()
        self._slots.remove([self._ids[slot] for slot in places])
        for slot in places:
            self._ids[slot] = ""
        self._free += places

    def _places_for(self, ids: list[str], hashes: UInt64) -> Int64:
        """Return a new slot for each id; ``hashes`` are theirs."""
        self._make_room(len(ids))
        left = len(self._free) - len(ids)
        places = self._free[left:][::-1]
        del self._free[left:]
        for id_, slot in zip(ids, places, strict=True):
            self._ids[slot] = id_
        slots = np.array(places, np.int64)
        self._slots.add(hashes, slots)
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
