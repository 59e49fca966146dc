"""Journal records that mean the same are folded as one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from worker.arrow import stamps_of
from worker.journalled import Journalled, is_one_of, joined


def record(after: int, rows: int, *, lacks: bool = False, x: int = 2, **stamps: str) -> Journalled:
    """Return a record of so many rows, numbered from ``100 * after`` on."""
    words = {"spec_hash": "s", "model": "m", "next_events": str(after), **stamps}
    fields = [("n", pa.int64()), ("x", pa.list_(pa.float64(), x))]
    values = {"n": [100 * after + i for i in range(rows)], "x": [[float(after)] * x] * rows}
    return Journalled(
        after, pa.RecordBatch.from_pydict(values, pa.schema(fields, metadata=words)), lacks
    )


def test_records_of_one_meaning_are_one_in_their_order_with_the_stamps_of_the_last() -> None:
    """Those without rows, too: they say how far labels went."""
    (one,) = joined([record(1, 2), record(2, 0), record(5, 1)], 10)
    assert one.after == 5
    assert one.rows.column("n").to_pylist() == [100, 101, 500]
    assert one.rows.column("x").to_pylist() == [[1.0, 1.0], [1.0, 1.0], [5.0, 5.0]]
    assert stamps_of(one.rows)["next_events"] == "5"


@pytest.mark.parametrize(
    "other",
    [
        record(2, 1, lacks=True), record(2, 1, x=3), record(2, 1, spec_hash="other"),
        record(2, 1, model="other"), record(2, 9),
    ],
    ids=["its rows are missing", "other columns", "other features", "another model", "too long"],
)  # fmt: skip
def test_what_means_something_else_stays_apart(other: Journalled) -> None:
    """Whichever comes first; and the next of the same meaning is joined again."""
    assert joined([record(1, 2), other], 10) == [record(1, 2), other]
    assert joined([other, record(3, 2)], 10) == [other, record(3, 2)]


def test_a_coded_word_is_found_and_a_null_has_none() -> None:
    """Words that no row has may stand in the dictionary."""
    coded = pa.DictionaryArray.from_arrays(pa.array([1, None, 0, 1], pa.int8()), ["a", "b", "c"])
    rows = pa.RecordBatch.from_arrays([coded], names=["decision"])
    assert is_one_of(rows, "decision", "b", "c").tolist() == [True, False, False, True]
    assert is_one_of(rows, "decision", "d").tolist() == [False] * 4
