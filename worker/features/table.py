"""Feature tables: all entities of one shard in memory, folded and read batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from worker.contracts.records import Bool, EntityRows, Events, Float64, LabelUpdates
from worker.features.entity_table import Table
from worker.features.label_table import LabelTable
from worker.features.label_view import empties
from worker.features.learned import Learned
from worker.features.rows import RowFeatures
from worker.features.spec import FeatureSpec

TableRows = dict[str, EntityRows]
"""Rows by what is kept of their entities: `terminal`, `terminal~labels`."""


class SeriesPart(Protocol):
    """What models keep of the entities of one type, `worker.models.series_table`."""

    @property
    def entity(self) -> str:
        """Return the entity type."""

    @property
    def dirty_count(self) -> int:
        """Return how many entities have changed."""

    def missing(self, ids: list[str]) -> list[str]: ...
    def check(self, part: Mapping[str, bytes | None]) -> None: ...
    def load(self, part: Mapping[str, bytes | None]) -> None: ...
    def process(self, events: Events, duplicate: Bool, X: Float64) -> None: ...
    def take_dirty(self) -> tuple[list[str], list[bytes]]: ...
    def evict(self) -> None: ...


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
    series
        By the name that stands for the entity type in keys, what writes the last columns of X.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        primary: str,
        entities_max: int,
        foreign: Collection[str] = (),
        series: Mapping[str, SeriesPart] | None = None,
    ) -> None:
        self._spec = spec
        self._series = dict(series or {})
        self.learned = Learned(spec.features)
        self._row_features = RowFeatures(spec.features)
        tables = make_tables(spec, entities_max)
        assert next(iter(tables)) == primary, primary
        self._primary = tables[primary]
        self._tables = {n: t for n, t in tables.items() if not isinstance(t, LabelTable)}
        self._labels = {n: t for n, t in tables.items() if isinstance(t, LabelTable)}
        self._foreign = {name: t for name, t in tables.items() if t.entity in foreign}
        self._kept: dict[str, Table | SeriesPart] = {
            name: t for name, t in tables.items() if t.entity not in foreign
        }
        self._kept |= self._series
        self._told: dict[str, list[EntityRows]] = {}
        self._empties = empties(spec.features)
        own = [c for c, f in enumerate(spec.features) if f.entity not in self._foreign]
        self.own_columns = np.array(own, np.int64)

    @property
    def has_foreign(self) -> bool:
        """Return whether some state is kept elsewhere."""
        return bool(self._foreign)

    def missing(self, events: Events) -> list[tuple[str, str]]:
        """Return the (entity, id) pairs that are not in memory, each once, in a fixed order.

        What became known of an entity is another pair than what happened: `terminal~labels`.
        """
        return [
            (name, id_)
            for name, table in self._kept.items()
            for id_ in table.missing(events.entity_ids[table.entity])
        ]

    def missing_labelled(self, entity_ids: Mapping[str, list[str]]) -> list[tuple[str, str]]:
        """Return as `missing` the states that labels need: of the entities their events are of."""
        return [
            (name, id_)
            for name, table in self._labels.items()
            if name in self._kept
            for id_ in table.missing(entity_ids[table.entity])
        ]

    def held(self, events: Events, places: list[int]) -> list[int]:
        """Return which places are of events that may be duplicates of earlier batches."""
        ids = events.entity_ids[self._primary.entity]
        held = self._primary.held([ids[i] for i in places], events.id_hash[places])
        return [place for place, is_held in zip(places, held.tolist(), strict=True) if is_held]

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
            self._kept[name].check(part)
        for name, part in parts.items():
            self._kept[name].load(part)

    def process(self, events: Events, updates: LabelUpdates | None = None) -> tuple[Float64, Bool]:
        """Fold events in order; return X (n, features) and which events are duplicates.

        Event i is read when all events before it are in, and itself where its features say so. A
        duplicate, whose id its primary entity's ring holds, changes nothing; its row is zero.
        Update j of ``updates`` is folded before event ``before[j]`` is read.
        """
        return self._process([*self._tables, *self._labels], events, updates)

    def process_own(
        self, events: Events, updates: LabelUpdates | None = None
    ) -> tuple[Float64, Bool]:
        """Do as `process` without what is kept elsewhere: its columns are zero (for recovery)."""
        return self._process(self._kept, events, updates)

    def foreign_ids(self, events: Events) -> dict[str, list[str]]:
        """Return the ids, each once, of the entities kept elsewhere that a batch reads."""
        return {
            name: list(dict.fromkeys(filter(None, events.entity_ids[table.entity])))
            for name, table in self._foreign.items()
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
        for name, table in self._foreign.items():
            here = [(tables[name], ids[name]) for tables, ids in near if name in ids]
            if here:
                table.adopt(here)
            table.load(blobs.get(name, {}))
            if name in later:
                table.fold_rows(later[name])

    def foreign_rows(self, events: Events, duplicate: Bool) -> TableRows:
        """Return what the owners of these entities have to fold of a batch, by what is kept.

        That is its events, and what became known in all `process` since the last call.
        """
        rows = {
            name: table.rows_of(events, events.entity_ids[name], duplicate)
            for name, table in self._tables.items()
            if name in self._foreign
        }
        rows |= {name: EntityRows.joined(parts) for name, parts in self._told.items()}
        self.tell_nobody()
        return rows

    def tell_nobody(self) -> None:
        """Forget what became known: its rows are in the log."""
        self._told.clear()

    def _process(
        self, names: Collection[str], events: Events, updates: LabelUpdates | None
    ) -> tuple[Float64, Bool]:
        for name, labels in self._labels.items():
            if updates is not None and name in self._foreign:
                self._told.setdefault(name, []).append(labels.rows_told(updates))
        X = np.zeros((len(events), len(self._spec.event_view)))
        duplicate = np.zeros(len(events), np.bool_)
        now = {
            name: table.process(events, events.entity_ids[name], duplicate, X)
            for name, table in self._tables.items()
            if name in names
        }
        self._row_features.write(events, self.learned.update(events, duplicate), X)
        if self._labels:
            for column, empty in self._empties:
                X[:, column] = empty
            for name, labels in self._labels.items():
                if name in names:
                    labels.process_labels(
                        events, updates, now[labels.entity], duplicate, X,
                        is_whole=name in self._kept,
                    )  # fmt: skip
            for rate in self._spec.rates:
                rate.apply(X)
        for part in self._series.values():
            part.process(events, duplicate, X)
        X[duplicate] = 0.0
        return np.ascontiguousarray(X[:, : len(self._spec.features)]), duplicate

    @property
    def dirty_count(self) -> int:
        """Return how many entities have changed since they were loaded or taken."""
        return sum(table.dirty_count for table in self._kept.values())

    def take_dirty(self) -> list[tuple[str, list[str], list[bytes]]]:
        """Return ids and blobs of all changed entities, by type, and call them clean."""
        return [
            (name, *table.take_dirty()) for name, table in self._kept.items() if table.dirty_count
        ]

    def evict(self) -> None:
        """Drop the clean entities that were used longest ago where a type holds too many.

        Only when the store has everything that `take_dirty` returned, and never between `missing`
        and `process`.
        """
        for table in self._kept.values():
            table.evict()


def make_tables(spec: FeatureSpec, entities_max: int) -> dict[str, Table]:
    """Return an empty table for all that is kept by id: of the primary entity type first, and what
    became known last.
    """
    count = len(spec.entities)
    order = sorted(range(count), key=lambda i: not spec.entities[i].primary)
    tables = {spec.entities[i].name: Table(spec, i, entities_max) for i in order
              if spec.entities[i].kept}  # fmt: skip
    labels = enumerate(spec.label_parts, count)
    return tables | {part.name: LabelTable(spec, i, entities_max) for i, part in labels}
