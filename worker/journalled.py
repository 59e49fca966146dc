"""Journal records as a recovery reads them: many as one, where they mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from worker.arrow import stamps_of
from worker.contracts.records import Bool


class Journalled(NamedTuple):
    """A journal record, the offset after it, and whether its rows of entities that are kept
    elsewhere are missing under the present state.
    """

    after: int
    rows: pa.RecordBatch
    lacks: bool


def joined(records: Sequence[Journalled], rows_max: int) -> list[Journalled]:
    """Return records of one meaning as one, with the stamps of the last: each has a cost of its
    own. Those with missing rows stay alone, for how far they are written goes by their offsets.
    """
    found: list[Journalled] = []
    for one in records:
        before = found[-1] if found else None
        if before is None or not _are_alike(before, one, rows_max):
            found.append(one)
            continue
        first = before.rows.replace_schema_metadata(one.rows.schema.metadata)
        found[-1] = one._replace(rows=pa.concat_batches([first, one.rows]))
    return found


def _are_alike(one: Journalled, other: Journalled, rows_max: int) -> bool:
    mine, theirs = stamps_of(one.rows), stamps_of(other.rows)
    return (
        not (one.lacks or other.lacks)
        and one.rows.num_rows + other.rows.num_rows <= rows_max
        and one.rows.schema.equals(other.rows.schema)
        and all(mine.get(name) == theirs.get(name) for name in ("spec_hash", "model"))
    )


def is_one_of(rows: pa.RecordBatch, column: str, *words: str) -> Bool:
    """Return where a coded column has one of these words; a null has none."""
    coded = rows.column(column)
    is_meant = np.array([word in words for word in coded.dictionary.to_pylist()] + [False])
    return np.asarray(is_meant[coded.indices.fill_null(-1).to_numpy()])
