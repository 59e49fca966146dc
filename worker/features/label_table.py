"""The L-parts of one entity type in memory: what became known about its entities' events."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Bool, Events, Float64, Int64, LabelUpdates
from worker.features.entity_table import Table
from worker.features.label_feature import recorded
from worker.features.label_kernels import fold_labels
from worker.features.label_plan import Truths
from worker.features.label_view import entity_of, label_plan
from worker.features.spec import FeatureSpec
from worker.features.state import with_free_tiles


class LabelTable(Table):
    """The L-parts of the entities of one type.

    Attributes
    ----------
    entity
        The entity type.
    """

    def __init__(self, spec: FeatureSpec, index: int, entities_max: int) -> None:
        super().__init__(spec, index, entities_max)
        self.entity = entity_of(spec.parts[index])
        self._labels = label_plan(spec.parts[index], spec.features)

    def ids_of(self, updates: LabelUpdates | None) -> list[str]:
        """Return the ids of the entities that updates are about."""
        return [] if updates is None else updates.entity_ids[self.entity]

    def process_labels(
        self,
        events: Events,
        updates: LabelUpdates | None,
        now: Int64 | None,
        duplicate: Bool,
        X: Float64,
    ) -> None:
        """Fold updates in order and read what is known at each event into its row of X.

        ``now`` is that of each event's entity, None where it is kept elsewhere and nothing is read.
        """
        count = 0 if updates is None else len(updates)
        ids = events.entity_ids[self.entity]
        slots = self._use([*ids, *self.ids_of(updates)])
        own = np.zeros((len(ids), len(self._sources)), np.int64)
        self._rows = with_free_tiles(self._plan, self._rows, count)
        self.dirty_count += fold_labels(
            self._plan,
            self._labels,
            self._rows,
            self._truths(updates, slots[len(ids) :]),
            slots[: len(ids)] if now is not None else np.full(len(ids), -1),
            np.zeros(len(ids), np.int64) if now is None else now,
            own,
            duplicate,
            X,
        )

    def _truths(self, updates: LabelUpdates | None, slots: Int64) -> Truths:
        """Return updates as the kernel takes them, without those of events that have no entity."""
        if updates is None:
            nothing = np.empty(0, np.int64)
            values = np.empty((0, len(self._sources)), np.int64)
            return Truths(nothing, slots, nothing, nothing, np.empty(0, np.bool_), values, values)
        here = slots >= 0
        revised = updates.y_before >= 0
        values = self._values(updates, updates.y)
        old = self._values(updates, updates.y_before) if revised.any() else values
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

    def _values(self, updates: LabelUpdates, y: Int64) -> Int64:
        columns = [recorded(source, updates, y) for source in self._sources]
        return np.ascontiguousarray(np.stack(columns, axis=1))
