"""The L-parts of one entity type in memory: what became known about its entities' events."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Bool, EntityRows, Events, Float64, Int64, LabelUpdates
from worker.features.entity_table import Table
from worker.features.label_feature import GENUINE_VALUE, recorded
from worker.features.label_kernels import fold_labels_of
from worker.features.label_plan import Truths
from worker.features.label_view import label_plan
from worker.features.spec import FeatureSpec
from worker.features.state import with_free_tiles


class LabelTable(Table):
    """The L-parts of the entities of one type."""

    def __init__(self, spec: FeatureSpec, index: int, entities_max: int) -> None:
        super().__init__(spec, index, entities_max)
        self._labels = label_plan(spec.parts[index], spec.features)
        self._fold_labels = fold_labels_of(self._plan)

    @property
    def recorded_count(self) -> int:
        """Return the width of `EntityRows.values`."""
        return 1 + 2 * len(self._sources)

    def process_labels(
        self,
        events: Events,
        updates: LabelUpdates | None,
        now: Int64,
        duplicate: Bool,
        X: Float64,
        *,
        is_whole: bool = True,
    ) -> None:
        """Fold updates in order and read what is known at each event into its row of X.

        ``now`` is that of each event's entity. Updates of entities that are not here are skipped
        where the table is not ``is_whole``.
        """
        ids = events.entity_ids[self.entity]
        told = [] if updates is None else updates.entity_ids[self.entity]
        find = self._use if is_whole else self._here
        slots = find([*ids, *told])
        truths = self._truths(updates, slots[len(ids) :])
        own = np.zeros((len(ids), len(self._sources)), np.int64)
        for f, source in enumerate(self._sources):
            if source.kind == GENUINE_VALUE:
                own[:, f] = events.columns[source.field]
        self._learn(truths, slots[: len(ids)], now, own, duplicate, X)

    def rows_told(self, updates: LabelUpdates) -> EntityRows:
        """Return what `fold_rows` takes: updates of events that have such an entity."""
        ids = updates.entity_ids[self.entity]
        revised, values, old = self._columns_of(updates)
        columns = np.hstack([revised[:, None].astype(np.int64), values, old])
        rows = EntityRows(ids, updates.time_ms, updates.id_hash, columns)
        return rows.take(np.flatnonzero(np.array(list(map(bool, ids)), np.bool_)))

    def fold_rows(self, rows: EntityRows) -> None:
        """Fold rows in order without reading; those of entities that are not here are skipped."""
        slots, middle = self._here(rows.ids), 1 + len(self._sources)
        here = slots >= 0
        truths = Truths(
            np.zeros(int(here.sum()), np.int64),
            slots[here],
            rows.time_ms[here],
            rows.id_hash[here].view(np.int64),
            rows.values[here, 0] != 0,
            np.ascontiguousarray(rows.values[here, 1:middle]),
            np.ascontiguousarray(rows.values[here, middle : self.recorded_count]),
        )
        nobody, nothing = np.empty(0, np.int64), np.empty(0, np.bool_)
        own, X = np.empty((0, len(self._sources)), np.int64), np.empty((0, self._width))
        self._learn(truths, nobody, nobody, own, nothing, X)

    def _learn(
        self, truths: Truths, slots: Int64, now: Int64, own: Int64, duplicate: Bool, X: Float64
    ) -> None:
        self._rows = with_free_tiles(self._plan, self._rows, len(truths.slots))
        self.dirty_count += self._fold_labels(
            self._plan, self._labels, self._rows, truths, slots, now, own, duplicate, X
        )

    def _truths(self, updates: LabelUpdates | None, slots: Int64) -> Truths:
        """Return updates as the kernel takes them, without those of events that have no entity."""
        if updates is None:
            nothing = np.empty(0, np.int64)
            values = np.empty((0, len(self._sources)), np.int64)
            return Truths(nothing, slots, nothing, nothing, np.empty(0, np.bool_), values, values)
        here = slots >= 0
        revised, values, old = self._columns_of(updates)
        truths = Truths(
            updates.before,
            slots,
            updates.time_ms,
            updates.id_hash.view(np.int64),
            revised,
            values,
            old,
        )
        return truths if here.all() else Truths._make(column[here] for column in truths)

    def _columns_of(self, updates: LabelUpdates) -> tuple[Bool, Int64, Int64]:
        """Return which updates revise, and recorded columns under the new and the former truth."""
        revised: Bool = updates.y_before >= 0
        values = self._values(updates, updates.y)
        return revised, values, self._values(updates, updates.y_before) if revised.any() else values

    def _values(self, updates: LabelUpdates, y: Int64) -> Int64:
        columns = [recorded(source, updates, y) for source in self._sources]
        return np.ascontiguousarray(np.stack(columns, axis=1))
