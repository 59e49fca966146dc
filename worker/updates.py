"""The Arrow contract of `entity-updates`: rows of secondary entities, re-keyed for their owner.

A record is an Arrow IPC stream of one record batch, so that any Arrow reader opens it. A row is an
event of one entity: what the owner's tables fold. The stamps are in the schema metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from worker.arrow import read_batch, stamps_of, to_bytes
from worker.contracts.records import EntityRows, Int64


@dataclass(slots=True)
class Updates:
    """Rows of several tables for one target partition, in the order in which they are folded.

    ``table`` indexes ``names``, ``source`` is the partition whose event it was; ``rows.values`` is
    as wide as the widest table's.
    """

    names: Sequence[str]
    table: Int64
    source: Int64
    rows: EntityRows

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> Updates:
        """Return rows [start, stop) without copying numbers."""
        part, r = slice(start, stop), self.rows
        rows = EntityRows(r.ids[part], r.time_ms[part], r.id_hash[part], r.values[part])
        return Updates(self.names, self.table[part], self.source[part], rows)


def update_records(
    updates: Updates, stamps: Mapping[str, str], bytes_max: int
) -> list[tuple[int, bytes]]:
    """Return (number of rows, value) of each record, below ``bytes_max`` unless of a single row."""
    value = _bytes_of(updates, stamps)
    if len(value) <= bytes_max or len(updates) <= 1:
        return [(len(updates), value)]
    half = (len(updates) + 1) // 2
    return [
        *update_records(updates.slice(0, half), stamps, bytes_max),
        *update_records(updates.slice(half, len(updates)), stamps, bytes_max),
    ]


def no_updates(stamps: Mapping[str, str]) -> bytes:
    """Return a record without rows, for its stamps."""
    nothing = np.empty(0, np.int64)
    rows = EntityRows([], nothing, nothing.view(np.uint64), np.empty((0, 0), np.int64))
    return _bytes_of(Updates([], nothing, nothing, rows), stamps)


def read_updates(
    value: bytes, where: str, state_hash: str, widths: Mapping[str, int]
) -> dict[str, EntityRows]:
    """Return the rows of one record by table; none where another spec's worker wrote it.

    Parameters
    ----------
    widths
        Number of recorded columns of every table that is wanted; others are left out.

    Raises
    ------
    FatalError
        The bytes are not one Arrow record batch of a schema version known here.
    """
    batch = read_batch(value, where)
    if stamps_of(batch).get("state_hash") != state_hash:
        return {}
    column = batch.column("entity")
    names, table = column.dictionary.to_pylist(), column.indices.to_numpy()
    rows = EntityRows(
        batch.column("id").to_numpy(zero_copy_only=False).tolist(),
        batch.column("time_ms").to_numpy(),
        batch.column("event_hash").to_numpy(),
        _values(batch),
    )
    found = {}
    for i, name in enumerate(names):
        mine = rows.take(np.flatnonzero(table == i))
        if name in widths and len(mine):
            mine.values = np.ascontiguousarray(mine.values[:, : widths[name]])
            found[name] = mine
    return found


def _bytes_of(updates: Updates, stamps: Mapping[str, str]) -> bytes:
    rows = updates.rows
    columns = {
        "entity": pa.DictionaryArray.from_arrays(
            pa.array(updates.table.astype(np.int8)), pa.array(updates.names, pa.utf8())
        ),
        "id": pa.array(rows.ids, pa.utf8()),
        "event_hash": pa.array(rows.id_hash),
        "time_ms": pa.array(rows.time_ms),
        "source": pa.array(updates.source.astype(np.int32)),
        "values": _lists(rows.values),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return to_bytes(batch.replace_schema_metadata(dict(stamps)))


def _lists(values: Int64) -> pa.Array:
    # From buffers: from_arrays refuses lists of no columns, of entities that are only counted
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    kind = pa.list_(pa.int64(), values.shape[1])
    return pa.Array.from_buffers(kind, len(values), [None], children=[flat])


def _values(batch: pa.RecordBatch) -> Int64:
    array = batch.column("values")
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.int64).reshape(len(array), array.type.list_size)
