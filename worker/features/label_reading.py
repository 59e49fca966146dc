"""Reading labels: trailing runs, and the times of the first and the last known fraud."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.features.codes import (
    CLEAN_RUN,
    FRAUD_RUN,
    FRAUD_RUN_AGE,
    FRAUD_RUN_GAP,
    MISSING,
    PLACE_SUM,
)
from worker.features.compiling import helper
from worker.features.label_plan import LabelPlan
from worker.features.plan import FORGET_MS, TILES_ROW, Plan
from worker.features.state import SIZE, TILE_ROW, TILED_MAX, Rows


@helper
def read_runs(
    plan: Plan, labels: LabelPlan, rows: Rows, slot: int, now: int, X: Float64, e: int
) -> None:
    """Write what the trailing labelled events of the ring say; what is as old as what an entity
    forgets is out of reach.
    """
    runs, oldest = labels.runs, now - plan.limits[FORGET_MS]
    read, y, length, began, before = -1, np.int64(MISSING), 0, np.int64(0), np.int64(-1)
    for r in range(len(runs)):
        if runs[r, 0] != read:
            read = runs[r, 0]
            y, length, began, before = _run(rows, slot, 1 + read, oldest)
        code, column = runs[r, 1], runs[r, 2]
        if code == CLEAN_RUN:
            X[e, column] = length if y == 0 else 0.0
        elif code == FRAUD_RUN:
            X[e, column] = length if y == 1 else 0.0
        elif code == FRAUD_RUN_AGE and y == 1:
            X[e, column] = (now - began) / 1000.0
        elif code == FRAUD_RUN_GAP and y == 1 and before >= 0:
            X[e, column] = (began - before) / 1000.0


@helper
def _run(
    rows: Rows, slot: int, y_row: int, oldest: int
) -> tuple[np.int64, int, np.int64, np.int64]:
    """Return the truth of the newest known events, how many have it, the first one's time, and the
    time of the one before, -1 for none; without any the truth is `MISSING`.
    """
    ring, size, length = rows.ring, rows.meta[slot, SIZE], 0
    y, began = np.int64(MISSING), np.int64(0)
    for k in range(size):
        t, known = ring[slot, 0, size - 1 - k], ring[slot, y_row, size - 1 - k]
        if t <= oldest:
            break
        if known == MISSING:
            continue
        if length > 0 and known != y:
            return y, length, began, t
        y, length, began = known, length + 1, t
    return y, length, began, np.int64(-1)


@helper
def read_times(
    plan: Plan, labels: LabelPlan, rows: Rows, slot: int, now: int, X: Float64, e: int
) -> None:
    """Write the time since the first or last known fraud of each window, where it holds one.

    Its column has the number of these frauds by now, which is above 0 then.
    """
    meta, times = rows.meta, labels.times
    for r in range(len(times)):
        truth, is_first, column = times[r, 0], times[r, 1], times[r, 5]
        if X[e, column] <= 0.0:
            X[e, column] = -1.0
            continue
        end = now - times[r, 3]
        start = end - times[r, 2]
        found = _in_ring(rows.ring, slot, meta[slot, SIZE], 1 + truth, start, end, is_first)
        if meta[slot, TILED_MAX] > start and (is_first or found < 0):
            in_tiles = _in_tiles(plan, truth, rows, slot, times[r, 4], start, end, is_first)
            found = in_tiles if in_tiles >= 0 else found
        X[e, column] = (now - found) / 1000.0


@helper
def _in_ring(
    ring: Int64, slot: int, size: int, y_row: int, start: int, end: int, is_first: int
) -> int:
    """Return the time of the first or last fraud of the ring in (start, end], or -1."""
    found = -1
    for i in range(size):
        t = ring[slot, 0, i]
        if start < t <= end and ring[slot, y_row, i] == 1 and (found < 0 or not is_first):
            found = t
    return found


@helper
def _in_tiles(
    plan: Plan, truth: int, rows: Rows, slot: int, s: int, start: int, end: int, is_first: int
) -> int:
    """Return the middle of the first or last tile with a fraud, within the window, or -1."""
    sets, tiles, newest = plan.sets, rows.tiles, rows.meta[slot, TILED_MAX]
    tile_ms, length, place = sets[s, 0], sets[s, 1], plan.recorded[truth, PLACE_SUM]
    row = rows.meta[slot, TILE_ROW] * plan.limits[TILES_ROW] + sets[s, 2]
    found = -1
    for n in range(max(start + 1, 0) // tile_ms, min(end, newest) // tile_ms + 1):
        at = row + n % length
        holds_fraud = tiles[at, 1] > 0 and tiles[at, 0] == n and tiles[at, place] > 0
        if holds_fraud and (found < 0 or not is_first):
            begins = max(n * tile_ms, start + 1)
            found = (begins + min((n + 1) * tile_ms - 1, newest, end)) // 2
    return found
