"""Secondary entities of a stream with several partitions: who owns them, and what is read of them.

The events of a terminal come through every partition, so no shard sees all of its history. Each
shard writes its events' rows again, keyed by terminal, to the topic `entity-updates`; partition q
of it belongs to the owner of shard q, who folds it. What a shard reads of a terminal is the owner's
state up to a place in that partition, and on top of it the shard's own rows that come after this
place. `worker.exchange` says when each of it happens, and what if a worker dies there.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np

from worker.contracts.records import EntityRows, Int64
from worker.features.label_view import entity_of
from worker.features.spec import FeatureSpec
from worker.features.table import make_tables
from worker.updates import Updates


def secondary_entities(spec: FeatureSpec) -> tuple[str, ...]:
    """Return the entity types whose events may come through any partition."""
    return tuple(e.name for e in spec.entities if e.kept and e.shared)


def secondary_parts(spec: FeatureSpec) -> tuple[str, ...]:
    """Return what is kept of these: of each type what happened, then what became known."""
    shared = secondary_entities(spec)
    return (*shared, *[p.name for p in spec.label_parts if entity_of(p) in shared])


def target_of(entity_id: str, partitions: int) -> int:
    """Return the partition of `entity-updates` that a secondary entity's rows go to.

    >>> target_of("T1", 4), target_of("T1", 1)
    (1, 0)
    """
    return int(targets_of([entity_id], partitions)[0])


def targets_of(ids: Sequence[str], partitions: int) -> Int64:
    """Return `target_of` of each id.

    >>> targets_of(["T1", "T2", "T1"], 4)
    array([1, 3, 1])
    """
    return np.fromiter(map(crc32, map(str.encode, ids)), np.int64, len(ids)) % partitions


def by_target(ids: Sequence[str], partitions: int) -> dict[int, list[str]]:
    """Return the ids of each target partition that has any, in their order.

    >>> by_target(["T1", "T2", "T5"], 4)
    {0: ['T5'], 1: ['T1'], 3: ['T2']}
    """
    target = targets_of(ids, partitions)
    order = np.argsort(target, kind="stable")
    ends = np.searchsorted(target[order], np.arange(partitions + 1)).tolist()
    sorted_ids = [ids[i] for i in order.tolist()]
    return {
        q: sorted_ids[start:stop] for q, (start, stop) in enumerate(pairwise(ends)) if start < stop
    }


class Owner:
    """The state of all secondary entities of one target partition: a fold of that partition.

    ``events_next`` is the position: the state holds every row before it and none after it. Its
    names are those of a shard, so that the same guarded write takes both.
    """

    labels_next = 0

    def __init__(self, spec: FeatureSpec, names: Sequence[str], entities_max: int) -> None:
        self.events_next = 0
        self._taken_next = -1
        tables = make_tables(spec, entities_max)
        self.tables = {name: tables[name] for name in names}
        self.widths = {name: table.recorded_count for name, table in self.tables.items()}

    def missing(self, ids: Mapping[str, list[str]]) -> list[str]:
        """Return the store's keys of entities that memory lacks."""
        return [
            f"{name}:{id_}"
            for name, table in self.tables.items()
            for id_ in table.missing(ids.get(name, []))
        ]

    def load(self, keys: Sequence[str], values: Sequence[bytes | None]) -> None:
        """Take the values of keys named by `missing`.

        Raises
        ------
        StateLostError
            A blob is damaged or of another spec.
        """
        parts: dict[str, dict[str, bytes | None]] = {}
        for key, value in zip(keys, values, strict=True):
            name, id_ = key.split(":", 1)
            parts.setdefault(name, {})[id_] = value
        for name, part in parts.items():
            self.tables[name].check(part)
            self.tables[name].load(part)

    def fold(self, rows: Mapping[str, EntityRows], position: int) -> None:
        """Fold the rows before ``position``; all their entities are in memory."""
        for name, part in rows.items():
            self.tables[name].fold_rows(part)
        self.events_next = position

    @property
    def is_taken(self) -> bool:
        """Return whether everything up to the position was taken, if only to say how far it is."""
        return self._taken_next == self.events_next

    @property
    def dirty_count(self) -> int:
        """Return how many entities differ from the store."""
        return sum(table.dirty_count for table in self.tables.values())

    def take_writes(self) -> list[tuple[str, list[str], list[bytes]]]:
        """Return type, ids and blobs of all that has changed, and call it clean."""
        self._taken_next = self.events_next
        return [
            (name, *table.take_dirty()) for name, table in self.tables.items() if table.dirty_count
        ]

    def evict(self) -> None:
        """Bring memory back within bounds. Only when the store has everything that was taken."""
        for table in self.tables.values():
            table.evict()


@dataclass(slots=True)
class _Chunk:
    name: str
    rows: EntityRows
    target: Int64
    offset: Int64


class Overlay:
    """One shard's own committed rows that owners' states may not hold yet, in log order.

    A row is held by a state exactly when its offset is before the state's position: so each is seen
    once, by the state or from here, whatever the lag.
    """

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []

    def __len__(self) -> int:
        return sum(len(chunk.rows) for chunk in self._chunks)

    def add(self, name: str, rows: EntityRows, target: Int64, offset: Int64) -> None:
        """Keep rows of one table that were committed at these offsets of their targets."""
        self._chunks.append(_Chunk(name, rows, target, offset))

    def drop(self, positions: Int64) -> None:
        """Forget what every state at these positions, one per target, holds. They never go back."""
        self._chunks = [c for c in self._chunks if (c.offset >= positions[c.target]).any()]

    def later(self, positions: Int64) -> dict[str, EntityRows]:
        """Return, by table, the rows that states at these positions do not hold."""
        parts: dict[str, list[EntityRows]] = {}
        for chunk in self._chunks:
            left = chunk.offset >= positions[chunk.target]
            rows = chunk.rows if left.all() else chunk.rows.take(np.flatnonzero(left))
            parts.setdefault(chunk.name, []).append(rows)
        return {name: EntityRows.joined(part) for name, part in parts.items()}


class Rekeyed:
    """The rows of one commit, of all shards of a worker, sorted by target partition.

    Parameters
    ----------
    parts
        (source partition, table, its rows), in the order in which they are to be folded.
    """

    def __init__(
        self, parts: Sequence[tuple[int, str, EntityRows]], partitions: int, names: Sequence[str]
    ) -> None:
        self._parts = parts
        self._names = names
        self._targets = [targets_of(rows.ids, partitions) for _, _, rows in parts]
        target = np.concatenate([np.empty(0, np.int64), *self._targets])
        self._order = np.argsort(target, kind="stable")
        self._bounds = np.searchsorted(target[self._order], np.arange(partitions + 1))
        self._counts: list[int] = []

    def __len__(self) -> int:
        return len(self._order)

    def updates(self) -> list[tuple[int, Updates]]:
        """Return the rows of each target partition that has any."""
        if not len(self):
            return []
        counts = [len(rows) for _, _, rows in self._parts]
        table = np.repeat([self._names.index(name) for _, name, _ in self._parts], counts)
        source = np.repeat([partition for partition, _, _ in self._parts], counts)
        rows = EntityRows.joined([rows for _, _, rows in self._parts]).take(self._order)
        whole = Updates(self._names, table[self._order], source[self._order], rows)
        ends = self._bounds.tolist()
        return [
            (q, whole.slice(start, stop))
            for q, (start, stop) in enumerate(pairwise(ends))
            if start < stop
        ]

    def committed(self, offsets: Int64, overlays: Mapping[int, Overlay]) -> None:
        """Give each shard's overlay its rows; ``offsets`` are those of `updates`, a row each."""
        offset = np.empty(len(self), np.int64)
        offset[self._order] = offsets
        start = 0
        for (partition, name, rows), target in zip(self._parts, self._targets, strict=True):
            stop = start + len(rows)
            if len(rows):
                overlays[partition].add(name, rows, target, offset[start:stop])
            start = stop


def joined(parts: Sequence[Mapping[str, EntityRows]]) -> dict[str, EntityRows]:
    """Return the rows of several records, by table, in their order."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: EntityRows.joined([part[name] for part in parts if name in part]) for name in names
    }
