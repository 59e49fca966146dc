"""Blobs: small, and refused unless they are exactly what was written."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from tests.features.label_streams import Stream, Told, label_spec
from tests.features.streams import (
    UNHURRIED,
    Row,
    call_dirty,
    spec_of,
    step,
    streams,
    tables_of,
    taken_from,
)
from tests.features.test_label_features import declared
from tests.features.test_windows import SPECS
from worker.errors import StateLostError
from worker.features import tile_packing
from worker.features.checksum import HEADER_LENGTH, PREFIX_LENGTH
from worker.features.spec import FeatureSpec

DAY_MS = 86_400_000
pack_numbers = njit(lambda *given: tile_packing._pack_numbers(*given))
around = njit(lambda total, known: tile_packing._around(total, known))
unpack_numbers = njit(lambda *given: tile_packing._unpack_numbers(*given))
REDIS_BYTES = 90  # MEMORY USAGE of a key with an empty value, key included


def blob_of(spec: FeatureSpec, rows: list[Row]) -> bytes:
    tables = tables_of(spec)
    step(tables, rows)
    return next(blob for entity, _, blob in taken_from(tables) if entity == "card")


def checksum(body: bytes) -> bytes:
    """Return the checksum of a body, by integers of Python."""
    state, whole = len(body), len(body) // 8 * 8
    words = [int.from_bytes(body[i : i + 8], "little") for i in range(0, whole, 8)]
    for word in (*words, int.from_bytes(body[whole:], "big"), 0):
        state = (state ^ word) * 0x9FB21C651E98DF25 % 2**64
        state ^= state >> 32
    return state.to_bytes(8, "little")


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
    taken = taken_from(tables)
    again = tables_of(spec)
    keys = [(entity, id_) for entity, id_, _ in taken]
    again.load(keys, [blob for _, _, blob in taken])
    call_dirty(again, keys)
    assert taken_from(again) == taken


def learned(features: dict[str, Any], count: int, ring: int = 32) -> tuple[FeatureSpec, bytes]:
    """Return the L-part of a card with so many events in 37 days, all of known truth."""
    spec = label_spec({"card": features}, ring)
    told = [Told(count, i, int(i % 7 == 0)) for i in range(count)]
    stream = Stream(tables_of(spec), purchases(count, 37), told)
    stream.step(count)
    stream.flush()
    return spec, stream.store["card~labels", "c"]


DAYS = ["1d", "7d", "30d"]
LEARNED = learned(declared(DAYS, delay="7d", weight="$amount"), 30, ring=5)
RICH = {
    "registers": {"decayed_mean(amount)": ["10s", "1d"], "time_since_first": {}},
    "bits": {"distinct(country)": ["1d", "30d"], "top_share(channel)": ["1d"]},
    "tiles": {"std(amount)": DAYS, "min(amount)": DAYS, "mean(items)": DAYS},
}
PARTS: dict[str, tuple[str, FeatureSpec, bytes]] = {
    "labels": ("card~labels", *LEARNED),
    "everything": ("card", SPECS["plain", 5], blob_of(SPECS["plain", 5], purchases(12, 1))),
} | {
    name: ("card", spec, blob_of(spec, purchases(60, 30)))
    for name, spec in ((n, spec_of({"card": part}, 5)) for n, part in RICH.items())
}


@pytest.mark.parametrize("part", PARTS)
def test_every_flipped_byte_is_refused(part: str) -> None:
    """Each byte of each kind of blob, changed in each bit: refused, and nothing is taken."""
    name, spec, blob = PARTS[part]
    tables = tables_of(spec)
    for i in range(len(blob)):
        for bit in range(8):
            damaged = bytearray(blob)
            damaged[i] ^= 1 << bit
            with pytest.raises(StateLostError):
                tables.load([(name, "c")], [bytes(damaged)])
    tables.load([(name, "c")], [blob])
    call_dirty(tables, [(name, "c")])
    assert taken_from(tables) == [(name, "c", blob)]


@pytest.mark.parametrize("part", PARTS)
def test_a_forged_blob_harms_no_other_entity(part: str) -> None:
    """With a right checksum it is refused or read as something; its neighbours stay."""
    name, spec, blob = PARTS[part]
    keys = [(name, "before"), (name, "c"), (name, "after")]
    tables, refused = tables_of(spec, entities_max=0), 0
    for i in range(HEADER_LENGTH, len(blob)):
        for byte in (blob[i] ^ 0xFF, blob[i] ^ 0x01):
            body = blob[HEADER_LENGTH:i] + bytes([byte]) + blob[i + 1 :]
            forged = blob[:PREFIX_LENGTH] + checksum(body) + body
            try:
                tables.load(keys, [blob, forged, blob])
            except StateLostError:
                tables, refused = tables_of(spec, entities_max=0), refused + 1
                continue
            call_dirty(tables, keys)
            taken = {id_: packed for _, id_, packed in taken_from(tables)}
            assert (taken["before"], taken["after"]) == (blob, blob)
            tables.evict()
    assert refused > 0


@pytest.mark.parametrize("part", PARTS)
def test_a_blob_says_what_it_is_and_has_the_checksum_of_its_body(part: str) -> None:
    """So that no other program has to guess."""
    _, spec, blob = PARTS[part]
    assert (blob[:3], blob[4:PREFIX_LENGTH].hex()) == (b"rw\5", spec.state_hash[:16])
    assert blob[PREFIX_LENGTH:HEADER_LENGTH] == checksum(blob[HEADER_LENGTH:])


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


@UNHURRIED
@given(
    columns=st.lists(st.integers(0, 64), min_size=1, max_size=12),
    count=st.integers(1, 25),
    draw=st.randoms(use_true_random=False),
)
def test_numbers_of_any_widths_come_back(
    columns: list[int], count: int, draw: random.Random
) -> None:
    """From no bit to 64, one after the other; from fewer bytes they are refused."""
    numbers = np.array([[draw.getrandbits(w) for w in columns] for _ in range(count)], np.uint64)
    again, buffer = np.zeros_like(numbers), np.full(12 * 9 * 25, 255, np.uint8)
    end = pack_numbers(numbers, count, len(columns), buffer, 3)
    widths = [int(column.max()).bit_length() for column in numbers.T]
    assert end == 3 + -(-sum(7 + width * count for width in widths) // 8)
    assert unpack_numbers(again, count, len(columns), buffer, 3, end) == end
    assert (again == numbers).all()
    assert unpack_numbers(again, count, len(columns), buffer, 3, end - 1) > end - 1
    untouched, short = np.zeros_like(numbers), 3 + (6 + widths[0] * count) // 8
    assert unpack_numbers(untouched, count, len(columns), buffer, 3, short) > short
    assert not untouched.any()  # nothing behind the end is read


@pytest.mark.parametrize("largest", [2**20, 2**40, 2**62])
def test_whatever_is_in_tiles_comes_back(largest: int) -> None:
    """What a revision takes back may be below nothing, and squares fill all 64 bits."""
    _, spec, blob = PARTS["tiles"]
    tables, draw = tables_of(spec), np.random.default_rng(largest)
    tables.load([("card", "c")], [blob])
    rows = tables._tables["card"]._rows
    held = rows.tiles[:, 1] > 0
    rows.tiles[held, 2:] = draw.integers(-largest, largest, rows.tiles[held, 2:].shape)
    call_dirty(tables, [("card", "c")])
    ((_, _, packed),) = taken_from(tables)
    again = tables_of(spec)
    again.load([("card", "c")], [packed])
    read = again._tables["card"]._rows
    assert sorted(read.tiles[read.tiles[:, 1] > 0].tolist()) == sorted(rows.tiles[held].tolist())


def test_twenty_events_of_two_fields_fit_in_600_bytes() -> None:
    """Ids for duplicates, key and Redis's own bytes included."""
    windows = ["1d", "7d", "30d"]
    spec = spec_of({"card": {"mean(amount)": windows, "sum(items)": windows}})
    assert len(blob_of(spec, purchases(20, 30))) + REDIS_BYTES <= 600


def test_a_full_ring_with_tiles_fits_in_2500_bytes() -> None:
    """Six windows, nine aggregations of two fields, no tile empty."""
    windows = ["1h", "6h", "1d", "3d", "7d", "30d"]
    of_both = [f"{name}({field})" for name in ("mean", "std", "min", "max")
               for field in ("amount", "items")]  # fmt: skip
    names = ("count", *of_both)
    spec = spec_of({"card": dict.fromkeys(names, windows)})
    size = len(blob_of(spec, purchases(20_000, 30))) + REDIS_BYTES
    assert size <= 2_500


def test_what_became_known_of_an_entity_fits_in_2500_bytes() -> None:
    """Every label aggregate over three windows with a delay, a full ring of 32, no tile empty."""
    _, blob = learned(declared(DAYS, delay="7d"), 20_000)
    size = len(blob) + REDIS_BYTES
    assert size <= 2_500


def test_twenty_known_truths_fit_in_600_bytes() -> None:
    """Those of a month, with a weight of each."""
    _, blob = learned(declared(DAYS, delay="7d", weight="$amount"), 20)
    assert len(blob) + REDIS_BYTES <= 600


@pytest.mark.parametrize(
    "total", [2**63 - 1, 2**63 - 512, 2**63 - 513, 2**62 + 1, 7, -7, -(2**62) - 1, -(2**63)]
)
@pytest.mark.parametrize("known", [1, 2, 3])
def test_squares_are_taken_around_a_mean_that_is_the_same_on_every_machine(
    total: int, known: int
) -> None:
    """A quotient that rounds to 2^63 is no int64, so what it becomes is said; all wraps."""
    quotient = total / known
    mean = int(quotient) if quotient < 2**63 else -(2**63)
    expected = (mean * (2 * total - known * mean) + 2**63) % 2**64 - 2**63
    assert around(np.int64(total), np.int64(known)) == expected
