"""Blobs: small, and refused unless they are exactly what was written."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given

from tests.features.streams import UNHURRIED, Row, spec_of, step, streams, tables_of
from tests.features.test_windows import SPECS
from worker.errors import StateLostError
from worker.features.spec import FeatureSpec

DAY_MS = 86_400_000
REDIS_BYTES = 90  # MEMORY USAGE of a key with an empty value, key included


def blob_of(spec: FeatureSpec, rows: list[Row]) -> bytes:
    tables = tables_of(spec)
    step(tables, rows)
    return next(blob for entity, _, blob in tables.take_dirty() if entity == "card")


def purchases(count: int, days: int) -> list[Row]:
    """Return events of one card, spread over days."""
    draw = random.Random(7)
    times = sorted(draw.randrange(days * DAY_MS) for _ in range(count))
    return [
        Row(f"e{i}", t, amount=draw.randrange(1, 90_000), items=draw.randrange(1, 20))
        for i, t in enumerate(times)
    ]


@UNHURRIED
@given(rows=streams())
def test_a_blob_that_is_loaded_is_packed_to_the_same_bytes(rows: list[Row]) -> None:
    """Nothing is lost on the way, tiles included."""
    spec = SPECS["plain", 2]
    tables = tables_of(spec)
    step(tables, rows)
    taken = tables.take_dirty()
    again = tables_of(spec)
    keys = [(entity, id_) for entity, id_, _ in taken]
    again.load(keys, [blob for _, _, blob in taken])
    again.restore_dirty(keys)
    assert again.take_dirty() == taken


def test_every_flipped_byte_is_refused() -> None:
    """Each byte of a blob with ring and tiles, changed in each bit."""
    spec = SPECS["plain", 5]
    blob = blob_of(spec, purchases(12, 1))
    for i in range(len(blob)):
        for bit in range(8):
            damaged = bytearray(blob)
            damaged[i] ^= 1 << bit
            with pytest.raises(StateLostError):
                tables_of(spec).load([("card", "c")], [bytes(damaged)])


@pytest.mark.parametrize("length", [0, 1, 3, 11, 20, 24, -4, -1])
def test_a_truncated_blob_is_refused(length: int) -> None:
    """Wherever it ends."""
    blob = blob_of(SPECS["plain", 5], purchases(12, 1))
    with pytest.raises(StateLostError):
        tables_of(SPECS["plain", 5]).load([("card", "c")], [blob[:length]])


def test_a_blob_of_another_spec_is_refused_by_name() -> None:
    """The message shows both specs and what to do, and no id."""
    blob = blob_of(spec_of({"card": {"count": ["1d"]}}), [Row("e1", card="4000123")])
    other = spec_of({"card": {"count": ["2d"]}})
    expected = re.escape(f"stored state of a card: expected state {other.state_hash[:16]}, got ")
    with pytest.raises(StateLostError, match=expected) as caught:
        tables_of(other).load([("card", "4000123")], [blob])
    assert "rebuild" in str(caught.value)
    assert "4000123" not in str(caught.value)


def test_a_blob_of_another_entity_type_is_refused() -> None:
    """A terminal is not read as a card."""
    spec = spec_of({"card": {"count": ["1d"]}, "terminal": {"count": ["1d"]}})
    blob = blob_of(spec, [Row("e1")])
    with pytest.raises(StateLostError):
        tables_of(spec).load([("terminal", "t")], [blob])


def test_twenty_events_of_two_fields_fit_in_600_bytes() -> None:
    """Ids for duplicates, key and Redis's own bytes included."""
    windows = ["1d", "7d", "30d"]
    spec = spec_of({"card": {"mean(amount)": windows, "sum(items)": windows}})
    assert len(blob_of(spec, purchases(20, 30))) + REDIS_BYTES <= 600


def test_a_full_ring_with_tiles_fits_in_2500_bytes() -> None:
    """Six windows, five aggregations of one field, no tile empty; and the estimate is near."""
    windows = ["1h", "6h", "1d", "3d", "7d", "30d"]
    names = ("mean(amount)", "std(amount)", "min(amount)", "max(amount)", "count")
    spec = spec_of({"card": dict.fromkeys(names, windows)})
    size = len(blob_of(spec, purchases(50_000, 30))) + REDIS_BYTES
    assert size <= 2_500
    assert size <= spec.bytes_estimate("card") <= 1.2 * size
