"""Rows of entities are asked for before a kernel comes to them, so it does not wait for memory."""

from __future__ import annotations

from worker.contracts.records import Int64
from worker.features.compiling import helper, prefetch
from worker.features.plan import TILES_ROW, Plan
from worker.features.state import TILE_ROW, TILED_MAX, Rows

AHEAD = 8
"""Events ahead of the one that is folded, of which the rows are asked for."""

AHEAD_TILES = 3
"""The same of tiles: by then it is known where they are."""

LINE_ITEMS = 8
"""Numbers in a cache line."""


@helper
def fetch_ahead(plan: Plan, rows: Rows, slots: Int64, time_ms: Int64, e: int) -> None:
    """Ask for what events after event e will read."""
    if e + AHEAD < len(slots) and slots[e + AHEAD] >= 0:
        fetch(rows, slots[e + AHEAD])
    if e + AHEAD_TILES < len(slots) and slots[e + AHEAD_TILES] >= 0:
        fetch_tiles(plan, rows, slots[e + AHEAD_TILES], time_ms[e + AHEAD_TILES])


@helper
def fetch(rows: Rows, slot: int) -> None:
    """Ask for what is kept of an entity, but its tiles."""
    prefetch(rows.meta, slot * rows.meta.shape[1])
    prefetch(rows.dirty, slot)
    prefetch(rows.registers, slot * rows.registers.shape[1])
    size = rows.ring.shape[1] * rows.ring.shape[2]
    for item in range(slot * size, (slot + 1) * size + LINE_ITEMS - 1, LINE_ITEMS):
        prefetch(rows.ring, item)


@helper
def fetch_tiles(plan: Plan, rows: Rows, slot: int, t: int) -> None:
    """Ask for the tiles of an entity that an event of time t may read."""
    meta, width = rows.meta, rows.tiles.shape[1]
    if meta[slot, TILE_ROW] < 0:
        return
    row = meta[slot, TILE_ROW] * plan.limits[TILES_ROW]
    for s in range(len(plan.sets)):
        if t - meta[slot, TILED_MAX] < plan.sets[s, 3]:
            first = (row + plan.sets[s, 2]) * width
            end = first + plan.sets[s, 1] * width + LINE_ITEMS - 1
            for item in range(first, end, LINE_ITEMS):
                prefetch(rows.tiles, item)
