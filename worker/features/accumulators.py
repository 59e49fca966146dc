"""Accumulators: exact integer moments and extremes of the events of a window or a tile.

A *record* is a row of an array: [number of a tile, count, then per column in tiles its sum, and
where asked its squares, extremes, own count and bits]; see `worker.features.state`. ``recorded``
gives the places, of its first ``tiled`` columns.
"""

from __future__ import annotations

import math

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.features.codes import (
    FORM,
    HASHED,
    MISSING,
    PLACE_BITS,
    PLACE_COUNT,
    PLACE_EXTREMES,
    PLACE_SQUARES,
    PLACE_SUM,
)
from worker.features.compiling import helper

_LARGEST = np.iinfo(np.int64).max
_SMALLEST = np.iinfo(np.int64).min
_TWO_20 = 1 << 20
_TWO_62 = 2.0**62
_TWO_64 = 2.0**64


@helper
def clear(recorded: Int64, tiled: int, records: Int64, at: int) -> None:
    """Empty a record, but for its number."""
    for i in range(1, records.shape[1]):
        records[at, i] = 0
    for f in range(tiled):
        if recorded[f, PLACE_EXTREMES]:
            records[at, recorded[f, PLACE_EXTREMES]] = _LARGEST
            records[at, recorded[f, PLACE_EXTREMES] + 1] = _SMALLEST


@helper
def copy(source: Int64, at: int, target: Int64, to: int) -> None:
    for i in range(1, target.shape[1]):
        target[to, i] = source[at, i]


@helper
def bit_of(v: int) -> np.int64:
    """Return which of 256 bits stands for a value.

    Source: the finalizer of splitmix64, Steele et al., Fast splittable pseudorandom number
    generators, 2014; its top eight bits.
    """
    h = np.uint64(v) + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((h ^ (h >> np.uint64(31))) >> np.uint64(56))


@helper
def set_bit(records: Int64, at: int, place: int, v: int) -> None:
    """Set the bit of a value."""
    bit = bit_of(v)
    records[at, place + (bit >> 6)] |= np.int64(1) << (bit & 63)


@helper
def bits_set(records: Int64, first: int, count: int, place: int) -> int:
    """Return how many of 256 bits are set in any of some records."""
    total = 0
    for i in range(4):
        word = np.uint64(0)
        for p in range(first, first + count):
            word |= np.uint64(records[p, place + i])
        while word:
            word &= word - np.uint64(1)
            total += 1
    return total


@helper
def high_square(v: int) -> int:
    """Return ⌊v² / 2^40⌋ for |v| <= 2^40."""
    if -(1 << 31) < v < (1 << 31):
        return (v * v) >> 40
    high, low = abs(v) >> 20, abs(v) & 0xFFFFF
    return high * high + ((2 * high * low + ((low * low) >> 20)) >> 20)


@helper
def accumulate(
    recorded: Int64,
    f: int,
    records: Int64,
    at: int,
    total: int,
    low: int,
    high: int,
    smallest: int,
    largest: int,
) -> None:
    """Add a column's sums and extremes to a record."""
    squares, extremes = recorded[f, PLACE_SQUARES], recorded[f, PLACE_EXTREMES]
    records[at, recorded[f, PLACE_SUM]] += total
    if squares:
        records[at, squares] += low
        records[at, squares + 1] += high
    if extremes:
        records[at, extremes] = min(records[at, extremes], smallest)
        records[at, extremes + 1] = max(records[at, extremes + 1], largest)


@helper
def add_event(recorded: Int64, tiled: int, event: Int64, records: Int64, at: int) -> None:
    """Add one event to a record."""
    records[at, 1] += 1
    for f in range(tiled):
        v = event[f]
        if v == MISSING:
            continue
        total = 0 if recorded[f, FORM] == HASHED else v
        accumulate(recorded, f, records, at, total, v * v, high_square(v), v, v)
        if recorded[f, PLACE_COUNT] > 1:
            records[at, recorded[f, PLACE_COUNT]] += 1
        if recorded[f, PLACE_BITS]:
            set_bit(records, at, recorded[f, PLACE_BITS], v)


@helper
def merge(recorded: Int64, tiled: int, source: Int64, at: int, target: Int64, to: int) -> None:
    """Add a record to a record."""
    target[to, 1] += source[at, 1]
    for f in range(tiled):
        squares, extremes = recorded[f, PLACE_SQUARES], recorded[f, PLACE_EXTREMES]
        accumulate(
            recorded, f, target, to, source[at, recorded[f, PLACE_SUM]], source[at, squares],
            source[at, squares + 1], source[at, extremes], source[at, extremes + 1],
        )  # fmt: skip
        count, bits = recorded[f, PLACE_COUNT], recorded[f, PLACE_BITS]
        if count > 1:
            target[to, count] += source[at, count]
        if bits:
            for i in range(4):
                target[to, bits + i] |= source[at, bits + i]


@helper
def total_of(scratch: Int64, first: int, count: int, weight: Float64, place: int) -> float:
    total = float(scratch[first, place])
    for p in range(first + 1, first + count):
        total += weight[p] * scratch[p, place]
    return total


@helper
def std_of(
    recorded: Int64, f: int, scratch: Int64, first: int, count: int, weight: Float64, n: float
) -> float:
    """Return the sample standard deviation in units, by moments about an integer near the mean."""
    if n <= 1.0:
        return 0.0
    place, squares = recorded[f, PLACE_SUM], recorded[f, PLACE_SQUARES]
    counts = recorded[f, PLACE_COUNT]
    reference = int(np.floor(total_of(scratch, first, count, weight, place) / n + 0.5))
    distance, square = 0.0, 0.0
    for p in range(first, first + count):
        m, total = scratch[p, counts], scratch[p, place]
        distance += weight[p] * (total - m * reference)
        square += weight[p] * shifted_squares(
            m, total, scratch[p, squares], scratch[p, squares + 1], reference
        )
    # Integers: Σ d² >= |Σ d|, and |Σ d| <= n / 2; so at most half of the squares cancels.
    return math.sqrt(max(square - distance * distance / n, 0.0) / max(n - 1.0, 1.0))


@helper
def shifted_squares(n: int, total: int, low: int, high: int, reference: int) -> float:
    """Return Σ (v − reference)², rounded once, from n, Σ v and the two limbs of Σ v².

    Modulo 2^64 it is exact; a float estimate, good to far better than 2^63, says which multiple of
    2^64 to add.
    """
    modular = low - 2 * reference * total + n * reference * reference
    if high == 0 and n < _TWO_20:  # every |v| < 2^20: no term reaches 2^62
        return float(modular)
    rest = np.uint64(low) - (np.uint64(high) << np.uint64(40))
    squares = float(high) * 2.0**40 + float(rest)
    r = float(reference)
    estimate = squares - 2.0 * r * float(total) + float(n) * r * r
    if estimate < _TWO_62:
        return float(modular)
    remainder = estimate - np.floor(estimate / _TWO_64) * _TWO_64
    return estimate + float(np.int64(np.uint64(modular) - np.uint64(remainder)))
