"""Accumulators: exact integer moments and extremes of the events of a window or a tile.

A *record* is a row of an array: [number of a tile, count, then per field its sum, its squares and
extremes where asked]; see `worker.features.state`. ``fields`` gives the places.
"""

from __future__ import annotations

import math

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.features.compiling import helper

_LARGEST = np.iinfo(np.int64).max
_SMALLEST = np.iinfo(np.int64).min
_TWO_20 = 1 << 20
_TWO_62 = 2.0**62
_TWO_64 = 2.0**64


@helper
def clear(fields: Int64, records: Int64, at: int) -> None:
    """Empty a record, but for its number."""
    for i in range(1, records.shape[1]):
        records[at, i] = 0
    for f in range(len(fields)):
        if fields[f, 2]:
            records[at, fields[f, 2]] = _LARGEST
            records[at, fields[f, 2] + 1] = _SMALLEST


@helper
def copy(source: Int64, at: int, target: Int64, to: int) -> None:
    for i in range(1, target.shape[1]):
        target[to, i] = source[at, i]


@helper
def high_square(v: int) -> int:
    """Return ⌊v² / 2^40⌋ for |v| <= 2^40."""
    if -(1 << 31) < v < (1 << 31):
        return (v * v) >> 40
    high, low = abs(v) >> 20, abs(v) & 0xFFFFF
    return high * high + ((2 * high * low + ((low * low) >> 20)) >> 20)


@helper
def accumulate(
    fields: Int64,
    f: int,
    records: Int64,
    at: int,
    total: int,
    low: int,
    high: int,
    smallest: int,
    largest: int,
) -> None:
    """Add a field's sums and extremes to a record."""
    squares, extremes = fields[f, 1], fields[f, 2]
    records[at, fields[f, 0]] += total
    if squares:
        records[at, squares] += low
        records[at, squares + 1] += high
    if extremes:
        records[at, extremes] = min(records[at, extremes], smallest)
        records[at, extremes + 1] = max(records[at, extremes + 1], largest)


@helper
def merge(fields: Int64, source: Int64, at: int, target: Int64, to: int) -> None:
    """Add a record to a record."""
    target[to, 1] += source[at, 1]
    for f in range(len(fields)):
        squares, extremes = fields[f, 1], fields[f, 2]
        accumulate(
            fields, f, target, to, source[at, fields[f, 0]], source[at, squares],
            source[at, squares + 1], source[at, extremes], source[at, extremes + 1],
        )  # fmt: skip


@helper
def total_of(scratch: Int64, first: int, count: int, weight: Float64, place: int) -> float:
    total = float(scratch[first, place])
    for p in range(first + 1, first + count):
        total += weight[p] * scratch[p, place]
    return total


@helper
def std_of(
    scratch: Int64, first: int, count: int, weight: Float64, n: float, place: int, squares: int
) -> float:
    """Return the sample standard deviation in units, by moments about an integer near the mean."""
    if n <= 1.0:
        return 0.0
    reference = int(np.floor(total_of(scratch, first, count, weight, place) / n + 0.5))
    distance, square = 0.0, 0.0
    for p in range(first, first + count):
        m, total = scratch[p, 1], scratch[p, place]
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
