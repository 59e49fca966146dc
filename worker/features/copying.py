"""Copying: what rows hold of some entities, put into empty slots of other rows by a kernel."""

from __future__ import annotations

from collections.abc import Callable

from worker.contracts.records import Int64
from worker.features import compiling, fetching, plan, state
from worker.features.compiling import bare_kernel, digest_of, helper
from worker.features.fetching import AHEAD_TILES, fetch, fetch_tiles
from worker.features.plan import TILES_ROW, Plan
from worker.features.state import NOW, TILE_ROW, Rows


@helper
def _copy(source: Rows, slot: int, target: Rows, place: int) -> None:
    """Copy all but tiles."""
    for i in range(source.meta.shape[1]):
        target.meta[place, i] = source.meta[slot, i]
    for row in range(source.ring.shape[1]):
        for i in range(source.ring.shape[2]):
            target.ring[place, row, i] = source.ring[slot, row, i]
    for r in range(source.registers.shape[1]):
        target.registers[place, r] = source.registers[slot, r]


@helper
def _copy_tiles(plan: Plan, source: Rows, row: int, target: Rows, place: int) -> None:
    """Copy a row of tiles into the next free one."""
    target.free_count[0] -= 1
    free = target.free[target.free_count[0]]
    target.meta[place, TILE_ROW] = free
    length = plan.limits[TILES_ROW]
    for tile in range(length):
        for i in range(source.tiles.shape[1]):
            target.tiles[free * length + tile, i] = source.tiles[row * length + tile, i]


def _make_copy(sources: str) -> Callable[[Plan, Rows, Int64, Rows, Int64], None]:
    @bare_kernel
    def copy_slots(plan: Plan, source: Rows, slots: Int64, target: Rows, places: Int64) -> None:
        """Copy slots into empty slots of other rows, which have a free row for each one's tiles."""
        sources  # noqa: B018  # see worker.features.compiling
        meta = source.meta
        for i in range(len(slots)):
            if i + AHEAD_TILES < len(slots):
                fetch(source, slots[i + AHEAD_TILES])
            if i + 1 < len(slots):
                fetch_tiles(plan, source, slots[i + 1], meta[slots[i + 1], NOW])
            _copy(source, slots[i], target, places[i])
            if meta[slots[i], TILE_ROW] >= 0:
                _copy_tiles(plan, source, meta[slots[i], TILE_ROW], target, places[i])

    return copy_slots


copy_slots = _make_copy(digest_of(compiling, fetching, plan, state))
