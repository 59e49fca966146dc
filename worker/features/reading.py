"""Reading: the features of all windows of one entity at its now, written into a row of X."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.features.accumulators import (
    accumulate,
    clear,
    copy,
    high_square,
    merge,
    std_of,
    total_of,
)
from worker.features.aggregations import MAX, MEAN, MIN, STD, SUM
from worker.features.compiling import helper
from worker.features.state import SIZE, TILE_ROW, TILED_MAX

_LARGEST = np.iinfo(np.int64).max
_SMALLEST = np.iinfo(np.int64).min
_TWO_20 = 1 << 20


@helper
def read(
    fields: Int64,
    sets: Int64,
    groups: Int64,
    windows: Int64,
    ops: Int64,
    scales: Float64,
    g: int,
    ring: Int64,
    meta: Int64,
    tiles: Int64,
    tiles_row: int,
    slot: int,
    now: int,
    scratch: Int64,
    weight: Float64,
    X: Float64,
    e: int,
) -> None:
    """Write the features of one group of windows.

    Windows with one end are nested: one walk from the end into the past serves them all. Scratch:
    record 0 is the ring's part, 1 adds whole tiles, 2 and 3 are tiles cut by an edge.
    """
    end, newest = now - groups[g, 1], meta[slot, TILED_MAX]
    clear(fields, scratch, 0)
    until = meta[slot, SIZE]
    while until > 0 and ring[slot, 0, until - 1] > end:
        until -= 1
    for w in range(groups[g, 2], groups[g, 3]):
        start, begin = end - windows[w, 0], until
        while begin > 0 and ring[slot, 0, begin - 1] > start:
            begin -= 1
        if begin < until:
            _add_ring(fields, ring, slot, begin, until, scratch)
            until = begin
        first, count = 0, 1
        if newest > start:
            row = meta[slot, TILE_ROW] * tiles_row
            count = _add_tiles(
                fields, sets, windows[w, 1], tiles, row, newest, start, end, scratch, weight
            )
            first = 1
        _emit(fields, windows, ops, scales, w, scratch, first, count, weight, X, e)


@helper
def _add_ring(
    fields: Int64, ring: Int64, slot: int, begin: int, until: int, scratch: Int64
) -> None:
    """Add the ring's events from ``begin`` to before ``until`` to record 0 of scratch."""
    scratch[0, 1] += until - begin
    for f in range(len(fields)):
        total, low, high, smallest, largest = 0, 0, 0, _LARGEST, _SMALLEST
        for i in range(begin, until):
            v = ring[slot, 1 + f, i]
            total += v
            low += v * v
            smallest, largest = min(smallest, v), max(largest, v)
        if smallest <= -_TWO_20 or largest >= _TWO_20:
            for i in range(begin, until):
                high += high_square(ring[slot, 1 + f, i])
        accumulate(fields, f, scratch, 0, total, low, high, smallest, largest)


@helper
def _add_tiles(
    fields: Int64,
    sets: Int64,
    s: int,
    tiles: Int64,
    row: int,
    newest: int,
    start: int,
    end: int,
    scratch: Int64,
    weight: Float64,
) -> int:
    """Fill records 1 to 3 of scratch for the window (start, end]; return how many there are.

    A tile reaches from its first millisecond to its last, but not beyond the newest event that went
    to tiles; what lies inside the window over that is its weight.
    """
    copy(scratch, 0, scratch, 1)
    records = 1
    tile_ms, length, first = sets[s, 0], sets[s, 1], row + sets[s, 2]
    number = max(start + 1, 0) // tile_ms
    at = first + number % length
    for n in range(number, min(end, newest) // tile_ms + 1):
        tile = at
        at = at + 1 if at + 1 < first + length else first
        if tiles[tile, 1] == 0 or tiles[tile, 0] != n:
            continue
        begins, ends = n * tile_ms, min((n + 1) * tile_ms, newest + 1)
        inside = min(ends, end + 1) - max(begins, start + 1)
        if inside == ends - begins:
            merge(fields, tiles, tile, scratch, 1)
        else:
            weight[1 + records] = inside / (ends - begins)
            records += 1
            copy(tiles, tile, scratch, records)
    return records


@helper
def _emit(
    fields: Int64,
    windows: Int64,
    ops: Int64,
    scales: Float64,
    w: int,
    scratch: Int64,
    first: int,
    count: int,
    weight: Float64,
    X: Float64,
    e: int,
) -> None:
    """Write the features of one window, of ``count`` records from ``first`` on: one whole, the
    others by weight.
    """
    n = total_of(scratch, first, count, weight, 1)
    if n == 0.0:
        return
    for r in range(windows[w, 2], windows[w, 3]):
        code, f, column = ops[r, 0], ops[r, 1], ops[r, 2]
        value, divisor = n, scales[r, 1]
        if code in (SUM, MEAN):
            value = total_of(scratch, first, count, weight, fields[f, 0])
            divisor = divisor * n if code == MEAN else divisor
        elif code == STD:
            value = std_of(scratch, first, count, weight, n, fields[f, 0], fields[f, 1])
        elif code == MIN:
            value = float(scratch[first, fields[f, 2]])
            for p in range(first + 1, first + count):
                value = min(value, float(scratch[p, fields[f, 2]]))
        elif code == MAX:
            value = float(scratch[first, fields[f, 2] + 1])
            for p in range(first + 1, first + count):
                value = max(value, float(scratch[p, fields[f, 2] + 1]))
        X[e, column] = value * scales[r, 0] / divisor
