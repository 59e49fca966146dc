"""Reading: the features of all windows of one entity at its now, written into a row of X."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.features.accumulators import (
    accumulate,
    bits_set,
    clear,
    copy,
    high_square,
    merge,
    set_bit,
    std_of,
    total_of,
)
from worker.features.codes import (
    DISTINCT,
    MAX,
    MEAN,
    MIN,
    MISSING,
    PLACE_BITS,
    PLACE_COUNT,
    PLACE_EXTREMES,
    PLACE_SUM,
    STD,
    SUM,
    WINDOW_RATIO,
)
from worker.features.compiling import helper, outlined
from worker.features.elementary import LINEAR_COUNT
from worker.features.plan import TILED_COLUMNS, TILES_ROW, Plan
from worker.features.ringing import distinct_of
from worker.features.state import SIZE, TILE_ROW, TILED_MAX, Rows

_LARGEST = np.iinfo(np.int64).max
_SMALLEST = np.iinfo(np.int64).min
_TWO_20 = 1 << 20


@helper
def read_windows(
    plan: Plan, rows: Rows, g: int, slot: int, now: int, own: Int64, X: Float64, e: int
) -> None:
    """Write the features of one group of windows; ``own[e]`` are the event's recorded values.

    Windows with one end are nested: one walk from the end into the past serves them all. Scratch:
    record 0 is the ring's part, 1 adds whole tiles, 2 and 3 are tiles cut by an edge.
    """
    groups, windows, ring, meta = plan.groups, plan.windows, rows.ring, rows.meta
    end, newest = now - groups[g, 1], meta[slot, TILED_MAX]
    clear(plan.recorded, plan.limits[TILED_COLUMNS], rows.scratch, 0)
    until = meta[slot, SIZE]
    while until > 0 and ring[slot, 0, until - 1] > end:
        until -= 1
    last = until
    for w in range(groups[g, 2], groups[g, 3]):
        start, begin = end - windows[w, 0], until
        while begin > 0 and ring[slot, 0, begin - 1] > start:
            begin -= 1
        if begin < until:
            _add_ring(plan, rows, slot, begin, until)
            until = begin
        first, count = 0, 1
        if newest > start:
            row = meta[slot, TILE_ROW] * plan.limits[TILES_ROW]
            count = _add_tiles(plan, rows, windows[w, 1], row, newest, start, end)
            first = 1
        _emit(plan, rows, w, first, count, X, e)
        if windows[w, 3] < windows[w, 4]:
            _emit_others(plan, rows, w, first, count, slot, begin, last, own, X, e)


@helper
def _add_ring(plan: Plan, rows: Rows, slot: int, begin: int, until: int) -> None:
    """Add the ring's events from ``begin`` to before ``until`` to record 0 of scratch."""
    recorded, ring, scratch = plan.recorded, rows.ring, rows.scratch
    scratch[0, 1] += until - begin
    for f in range(plan.limits[TILED_COLUMNS]):
        total, low, high, smallest, largest = 0, 0, 0, _LARGEST, _SMALLEST
        if recorded[f, PLACE_COUNT] == 1:
            for i in range(begin, until):
                v = ring[slot, 1 + f, i]
                total += v
                low += v * v
                smallest, largest = min(smallest, v), max(largest, v)
        else:
            for i in range(begin, until):
                v = ring[slot, 1 + f, i]
                if v != MISSING:
                    scratch[0, recorded[f, PLACE_COUNT]] += 1
                    total += v
                    low += v * v
                    smallest, largest = min(smallest, v), max(largest, v)
        if smallest <= -_TWO_20 or largest >= _TWO_20:
            for i in range(begin, until):
                v = ring[slot, 1 + f, i]
                high += high_square(v) if v != MISSING else 0
        accumulate(recorded, f, scratch, 0, total, low, high, smallest, largest)
        if recorded[f, PLACE_BITS]:
            for i in range(begin, until):
                if ring[slot, 1 + f, i] != MISSING:
                    set_bit(scratch, 0, recorded[f, PLACE_BITS], ring[slot, 1 + f, i])


@helper
def _add_tiles(plan: Plan, rows: Rows, s: int, row: int, newest: int, start: int, end: int) -> int:
    """Fill records 1 to 3 of scratch for the window (start, end]; return how many there are.

    A tile reaches from its first millisecond to its last, but not beyond the newest event that went
    to tiles; what lies inside the window over that is its weight.
    """
    tiles, scratch, sets = rows.tiles, rows.scratch, plan.sets
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
            merge(plan.recorded, plan.limits[TILED_COLUMNS], tiles, tile, scratch, 1)
        else:
            rows.weight[1 + records] = inside / (ends - begins)
            records += 1
            copy(tiles, tile, scratch, records)
    return records


@helper
def _emit(plan: Plan, rows: Rows, w: int, first: int, count: int, X: Float64, e: int) -> None:
    """Write the moments of one window, of ``count`` records from ``first`` on: one whole, the
    others by weight.
    """
    recorded, ops, scales = plan.recorded, plan.ops, plan.scales
    scratch, weight = rows.scratch, rows.weight
    events = total_of(scratch, first, count, weight, 1)
    if events == 0.0:
        return
    for r in range(plan.windows[w, 2], plan.windows[w, 3]):
        code, f, column = ops[r, 0], ops[r, 1], ops[r, 2]
        n, divisor = events, scales[r, 1]
        if f >= 0 and recorded[f, PLACE_COUNT] > 1:
            n = total_of(scratch, first, count, weight, recorded[f, PLACE_COUNT])
            if n == 0.0:
                continue
        value = n
        if code in (SUM, MEAN):
            value = total_of(scratch, first, count, weight, recorded[f, PLACE_SUM])
            divisor = divisor * n if code == MEAN else divisor
        elif code == STD:
            value = std_of(recorded, f, scratch, first, count, weight, n)
        elif code == MIN:
            value = float(scratch[first, recorded[f, PLACE_EXTREMES]])
            for p in range(first + 1, first + count):
                value = min(value, float(scratch[p, recorded[f, PLACE_EXTREMES]]))
        elif code == MAX:
            value = float(scratch[first, recorded[f, PLACE_EXTREMES] + 1])
            for p in range(first + 1, first + count):
                value = max(value, float(scratch[p, recorded[f, PLACE_EXTREMES] + 1]))
        X[e, column] = value * scales[r, 0] / divisor


@outlined
def _emit_others(
    plan: Plan,
    rows: Rows,
    w: int,
    first: int,
    count: int,
    slot: int,
    begin: int,
    until: int,
    own: Int64,
    X: Float64,
    e: int,
) -> None:
    """Write what needs more than moments: the event's own value, or the ring's values."""
    recorded, scratch, weight = plan.recorded, rows.scratch, rows.weight
    for r in range(plan.windows[w, 3], plan.windows[w, 4]):
        code, f, column = plan.ops[r, 0], plan.ops[r, 1], plan.ops[r, 2]
        if code == DISTINCT:
            if first == 0:
                X[e, column] = distinct_of(rows.ring, slot, 1 + f, begin, until)
            else:
                bits = bits_set(scratch, first, count, recorded[f, PLACE_BITS])
                X[e, column] = LINEAR_COUNT[min(bits, 255)]
            continue
        v, counts, place = own[e, f], recorded[f, PLACE_COUNT], recorded[f, PLACE_SUM]
        n = total_of(scratch, first, count, weight, counts)
        total = total_of(scratch, first, count, weight, place)
        if code == WINDOW_RATIO:
            X[e, column] = float(v) * n / total if v != MISSING and total != 0.0 else 1.0
            continue
        std = std_of(recorded, f, scratch, first, count, weight, n) if v != MISSING else 0.0
        if std > 0.0:
            distance = 0.0
            for p in range(first, first + count):
                distance += weight[p] * (v * scratch[p, counts] - scratch[p, place])
            X[e, column] = distance / n / std
