"""Kernels: fold events into the rows of `worker.features.state` and read features, in order.

The event loop is `fold`; everything below it is called per event. All arithmetic on values is on
integers; floats begin in `_emit`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from worker.contracts.records import Bool, Float64, Int64
from worker.features.aggregations import COUNT, MAX, MEAN, MIN, STD, SUM
from worker.features.state import HEAD, NOW, SIZE, TILE_ROW, TILED_MAX, Plan, Rows

_LARGEST = np.iinfo(np.int64).max
_SMALLEST = np.iinfo(np.int64).min
_TWO_62 = 2.0**62
_TWO_64 = 2.0**64


@njit(cache=True)
def fold(
    plan: Plan,
    rows: Rows,
    slots: Int64,
    time_ms: Int64,
    id_hash: Int64,
    values: Int64,
    duplicate: Bool,
    X: Float64,
) -> int:
    """Fold events in order and write what they read into their rows of X; return newly dirty slots.

    ``values`` has shape (F, n), ``slots`` -1 where an event has no such entity. The primary entity
    writes ``duplicate``, others obey it: a duplicate changes nothing. There must be a free tile row
    per event.
    """
    scratch = np.empty((4, plan.limits[0]), np.int64)
    weight = np.ones(3, np.float64)
    newly_dirty = 0
    for e in range(len(slots)):
        slot = slots[e]
        if slot < 0 or duplicate[e]:
            continue
        t = time_ms[e]
        if rows.meta[slot, SIZE] > 0 and t - rows.meta[slot, NOW] > plan.limits[2]:
            _forget(rows, slot)
        if plan.limits[3] and _holds(rows, slot, id_hash[e]):
            duplicate[e] = True
            continue
        now = max(rows.meta[slot, NOW], t)
        for i in range(len(plan.since)):
            silent_ms = now - rows.meta[slot, NOW]
            X[e, plan.since[i]] = silent_ms / 1000.0 if rows.meta[slot, SIZE] > 0 else -1.0
        _read(plan, rows, slot, now, 0, scratch, weight, X, e)
        rows.meta[slot, NOW] = now
        _insert(plan, rows, slot, t, id_hash[e], values, e)
        _read(plan, rows, slot, now, 1, scratch, weight, X, e)
        newly_dirty += not rows.dirty[slot]
        rows.dirty[slot] = True
    return newly_dirty


@njit(cache=True)
def _holds(rows: Rows, slot: int, id_hash: int) -> bool:
    """Return whether the ring holds an event with this hash of its id."""
    last = rows.ring.shape[1] - 1
    # Unless it is full, a ring begins at 0; so its places are 0 .. size - 1 in any case.
    found = False
    for i in range(rows.meta[slot, SIZE]):
        found |= rows.ring[slot, last, i] == id_hash
    return found


@njit(cache=True)
def _forget(rows: Rows, slot: int) -> None:
    """Make an entity as if it had never been seen."""
    rows.meta[slot, SIZE] = 0
    rows.meta[slot, HEAD] = 0
    rows.meta[slot, NOW] = -1
    rows.meta[slot, TILED_MAX] = -1
    row = rows.meta[slot, TILE_ROW]
    if row >= 0:
        rows.tiles[row, :, :] = 0


@njit(cache=True)
def _insert(plan: Plan, rows: Rows, slot: int, t: int, id_hash: int, values: Int64, e: int) -> None:
    """Put an event in its place in the ring; what does not fit goes to the tiles."""
    capacity = rows.ring.shape[2]
    size, head = rows.meta[slot, SIZE], rows.meta[slot, HEAD]
    if size == capacity:
        if t < rows.ring[slot, 0, head]:
            _tile(plan, rows, slot, t, values[:, e])
            return
        fields = len(plan.fields)
        _tile(plan, rows, slot, rows.ring[slot, 0, head], rows.ring[slot, 1 : 1 + fields, head])
        head = head + 1 if head + 1 < capacity else 0
        rows.meta[slot, HEAD] = head
        size -= 1
    to = head + size if head + size < capacity else head + size - capacity
    for _ in range(size):
        previous = to - 1 if to > 0 else capacity - 1
        if rows.ring[slot, 0, previous] <= t:
            break
        rows.ring[slot, :, to] = rows.ring[slot, :, previous]
        to = previous
    rows.ring[slot, 0, to] = t
    for f in range(len(plan.fields)):
        rows.ring[slot, 1 + f, to] = values[f, e]
    if plan.limits[3]:
        rows.ring[slot, 1 + len(plan.fields), to] = id_hash
    rows.meta[slot, SIZE] = size + 1


@njit(cache=True)
def _tile(plan: Plan, rows: Rows, slot: int, t: int, event: Int64) -> None:
    """Add an event to its tile of every set; one that is out of every window's reach is let go."""
    row = rows.meta[slot, TILE_ROW]
    if row < 0:
        if len(plan.tile_sets) == 0:
            return
        rows.free_count[0] -= 1
        row = rows.free[rows.free_count[0]]
        rows.meta[slot, TILE_ROW] = row
    rows.meta[slot, TILED_MAX] = max(rows.meta[slot, TILED_MAX], t)
    for s in range(len(plan.tile_sets)):
        number = t // plan.tile_sets[s, 0]
        place = plan.tile_sets[s, 2] + number % plan.tile_sets[s, 1]
        tile = rows.tiles[row, place]
        if tile[1] == 0 or tile[0] < number:
            tile[0] = number
            _clear(plan, tile[1:])
        if tile[0] == number:
            _add(plan, tile[1:], event)


@njit(cache=True)
def _clear(plan: Plan, record: Int64) -> None:
    record[:] = 0
    for f in range(len(plan.fields)):
        extremes = plan.fields[f, 2]
        if extremes:
            record[extremes] = _LARGEST
            record[extremes + 1] = _SMALLEST


@njit(cache=True)
def high_square(v: int) -> int:
    """Return ⌊v² / 2^40⌋ for |v| <= 2^40."""
    if -(1 << 31) < v < (1 << 31):
        return (v * v) >> 40
    high, low = abs(v) >> 20, abs(v) & 0xFFFFF
    return high * high + ((2 * high * low + ((low * low) >> 20)) >> 20)


@njit(cache=True)
def _add(plan: Plan, record: Int64, event: Int64) -> None:
    """Add one event's values to a record."""
    record[0] += 1
    for f in range(len(plan.fields)):
        v = event[f]
        record[plan.fields[f, 0]] += v
        squares, extremes = plan.fields[f, 1], plan.fields[f, 2]
        if squares:
            record[squares] += v * v
            record[squares + 1] += high_square(v)
        if extremes:
            record[extremes] = min(record[extremes], v)
            record[extremes + 1] = max(record[extremes + 1], v)


@njit(cache=True)
def _merge(plan: Plan, record: Int64, other: Int64) -> None:
    """Add a record to a record."""
    record[0] += other[0]
    for f in range(len(plan.fields)):
        record[plan.fields[f, 0]] += other[plan.fields[f, 0]]
        squares, extremes = plan.fields[f, 1], plan.fields[f, 2]
        if squares:
            record[squares] += other[squares]
            record[squares + 1] += other[squares + 1]
        if extremes:
            record[extremes] = min(record[extremes], other[extremes])
            record[extremes + 1] = max(record[extremes + 1], other[extremes + 1])


@njit(cache=True)
def _read(
    plan: Plan,
    rows: Rows,
    slot: int,
    now: int,
    include_current: int,
    scratch: Int64,
    weight: Float64,
    X: Float64,
    e: int,
) -> None:
    """Write the features of all windows with, or all without, the current event.

    Windows with one end are nested: one walk from the end into the past serves them all. Scratch:
    record 0 is the ring's part, 1 adds whole tiles, 2 and 3 are tiles cut by an edge.
    """
    capacity = rows.ring.shape[2]
    for g in range(len(plan.groups)):
        if plan.groups[g, 0] != include_current:
            continue
        end = now - plan.groups[g, 1]
        _clear(plan, scratch[0])
        left = rows.meta[slot, SIZE]
        at = rows.meta[slot, HEAD] + left
        at = (at if at <= capacity else at - capacity) - 1
        while left > 0 and rows.ring[slot, 0, at] > end:
            left -= 1
            at = at - 1 if at > 0 else capacity - 1
        for w in range(plan.groups[g, 2], plan.groups[g, 3]):
            start = end - plan.windows[w, 0]
            while left > 0 and rows.ring[slot, 0, at] > start:
                _add(plan, scratch[0], rows.ring[slot, 1:, at])
                left -= 1
                at = at - 1 if at > 0 else capacity - 1
            if rows.meta[slot, TILED_MAX] > start:
                cut = _add_tiles(plan, rows, slot, w, start, end, scratch, weight)
                _emit(plan, w, scratch[1:], cut, weight, X, e)
            else:
                _emit(plan, w, scratch, 1, weight, X, e)


@njit(cache=True)
def _add_tiles(
    plan: Plan,
    rows: Rows,
    slot: int,
    w: int,
    start: int,
    end: int,
    scratch: Int64,
    weight: Float64,
) -> int:
    """Fill records 1 to 3 of scratch for the window (start, end]; return how many there are.

    A tile reaches from its first millisecond to its last, but not beyond the newest event that went
    to tiles; what lies inside the window over that is its weight.
    """
    scratch[1] = scratch[0]
    records = 1
    s = plan.windows[w, 1]
    tile_ms, tiles, first = plan.tile_sets[s, 0], plan.tile_sets[s, 1], plan.tile_sets[s, 2]
    row, after = rows.meta[slot, TILE_ROW], rows.meta[slot, TILED_MAX] + 1
    number = max(start + 1, 0) // tile_ms
    last = min(end, after - 1) // tile_ms
    place = number % tiles
    for n in range(number, last + 1):
        tile = rows.tiles[row, first + place]
        place = place + 1 if place + 1 < tiles else 0
        if tile[1] == 0 or tile[0] != n:
            continue
        begins, ends = n * tile_ms, min((n + 1) * tile_ms, after)
        inside = min(ends, end + 1) - max(begins, start + 1)
        if inside == ends - begins:
            _merge(plan, scratch[1], tile[1:])
        else:
            weight[records] = inside / (ends - begins)
            records += 1
            scratch[records] = tile[1:]
    return records


@njit(cache=True)
def _emit(
    plan: Plan, w: int, parts: Int64, count: int, weight: Float64, X: Float64, e: int
) -> None:
    """Write the features of one window: of its parts, the first whole, others by weight."""
    n = float(parts[0, 0])
    for p in range(1, count):
        n += weight[p] * parts[p, 0]
    if n == 0.0:
        return
    for r in range(plan.windows[w, 2], plan.windows[w, 3]):
        code, f, column = plan.ops[r, 0], plan.ops[r, 1], plan.ops[r, 2]
        multiply, divide = plan.scales[r, 0], plan.scales[r, 1]
        if code == COUNT:
            X[e, column] = n
        elif code in (SUM, MEAN):
            total = _total(parts, count, weight, plan.fields[f, 0])
            divide = divide * n if code == MEAN else divide
            X[e, column] = total * multiply / divide
        elif code == STD:
            X[e, column] = _std(plan, parts, count, weight, n, f) * multiply / divide
        elif code in (MIN, MAX):
            place = plan.fields[f, 2] + (code == MAX)
            X[e, column] = _extreme(parts, count, place, code == MIN) * multiply / divide


@njit(cache=True)
def _total(parts: Int64, count: int, weight: Float64, place: int) -> float:
    total = float(parts[0, place])
    for p in range(1, count):
        total += weight[p] * parts[p, place]
    return total


@njit(cache=True)
def _extreme(parts: Int64, count: int, place: int, smallest: bool) -> int:
    found: int = parts[0, place]
    for p in range(1, count):
        found = min(found, parts[p, place]) if smallest else max(found, parts[p, place])
    return found


@njit(cache=True)
def _std(plan: Plan, parts: Int64, count: int, weight: Float64, n: float, f: int) -> float:
    """Return the sample standard deviation in units, by moments about an integer near the mean."""
    place, squares = plan.fields[f, 0], plan.fields[f, 1]
    reference = int(np.rint(_total(parts, count, weight, place) / n))
    distance, square = 0.0, 0.0
    for p in range(count):
        m, total = parts[p, 0], parts[p, place]
        distance += weight[p] * (total - m * reference)
        square += weight[p] * shifted_squares(
            m, total, parts[p, squares], parts[p, squares + 1], reference
        )
    # Integers: Σ d² >= |Σ d|, and |Σ d| <= n / 2; so at most half of the squares cancels.
    return math.sqrt(max(square - distance * distance / n, 0.0) / max(n - 1.0, 1.0))


@njit(cache=True)
def shifted_squares(n: int, total: int, low: int, high: int, reference: int) -> float:
    """Return Σ (v − reference)², rounded once, from n, Σ v and the two limbs of Σ v².

    Modulo 2^64 it is exact; a float estimate, good to far better than 2^63, says which multiple of
    2^64 to add.
    """
    modular = low - 2 * reference * total + n * reference * reference
    rest = np.uint64(low) - (np.uint64(high) << np.uint64(40))
    squares = float(high) * 2.0**40 + float(rest)
    r = float(reference)
    estimate = squares - 2.0 * r * float(total) + float(n) * r * r
    if estimate < _TWO_62:
        return float(modular)
    remainder = estimate - np.floor(estimate / _TWO_64) * _TWO_64
    return estimate + float(np.int64(np.uint64(modular) - np.uint64(remainder)))
