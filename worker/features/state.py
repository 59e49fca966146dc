"""What is kept of every entity of one type, as flat arrays that kernels read and write.

A *slot* is the row of an entity. Its ring holds its last N events by time (ties by arrival), the
oldest first: ``rows.ring[slot, 0]`` the times, then a row per recorded column (`MISSING` where an
event lacks the value), and for the primary entity a last row with the 64-bit hashes of the events'
ids. When it is full it moves by one place: 256 bytes a row at N = 32, which costs less than to wrap
around in every read.

Events that leave the ring, and late ones older than all of a full ring, go to tiles; so tiles and
ring are disjoint. Tiles lie in a pool, one row for each entity that ever overflowed. A record
is [tile number = time // tile_ms, count, then per column that tiles keep: sum, and where asked the
squares, the extremes, a count of its own and 256 bits]; count 0 means empty. Record i of a set
holds the numbers ≡ i modulo the set's length. A missing value is in the record's count only.

Squares are two limbs: Σ v² modulo 2^64, and Σ ⌊v² / 2^40⌋. With |v| <= 2^40 and fewer than 2^23
events both fit, and together they give Σ v² exactly. Integers are order-free and never drift.

Registers are numbers that are folded in the order of the log: the first time, decayed sums.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Bool, Float64, Int64
from worker.features.plan import RECORD_LENGTH, TILES_ROW, WITH_IDS, Plan

Scalar = TypeVar("Scalar", bound=np.generic)

NOW, SIZE, TILED_MAX, TILE_ROW = range(4)
"""Columns of `Rows.meta`: largest event time; number of the ring's events; largest time of any
event in tiles and the entity's row of tiles, both -1 for none.
"""


class Rows(NamedTuple):
    """All state of one entity type; grown by doubling, so `grow_slots` returns a new one."""

    meta: Int64  # (slots, 4)
    ring: Int64  # (slots, 1 + F + ids, N)
    registers: Float64  # (slots, D)
    dirty: Bool  # (slots,)
    tiles: Int64  # (tile rows * tiles a row, length of a record)
    free: Int64  # (tile rows,): numbers of free tile rows; the first free_count[0] count
    free_count: Int64  # (1,)
    scratch: Int64  # (4, length of a record): for kernels, of no meaning between calls
    weight: Float64  # (4,): the same
    event: Int64  # (F,): the same
    order: Int64  # (N,): the same


def make_rows(plan: Plan, ring: int, slots: int) -> Rows:
    """Return state for so many slots, all empty, without tiles."""
    depth = 1 + len(plan.recorded) + int(plan.limits[WITH_IDS])
    length = int(plan.limits[RECORD_LENGTH])
    return Rows(
        _empty_meta(slots),
        np.zeros((slots, depth, ring), np.int64),
        np.zeros((slots, len(plan.registers)), np.float64),
        np.zeros(slots, np.bool_),
        np.zeros((0, length), np.int64),
        np.zeros(0, np.int64),
        np.zeros(1, np.int64),
        np.zeros((4, length), np.int64),
        np.ones(4, np.float64),
        np.zeros(len(plan.recorded), np.int64),
        np.zeros(ring, np.int64),
    )


def grow_slots(rows: Rows, slots: int) -> Rows:
    """Return the same state with room for ``slots`` entities."""
    more = slots - len(rows.meta)
    return rows._replace(
        meta=np.concatenate([rows.meta, _empty_meta(more)]),
        ring=_extended(rows.ring, more),
        registers=_extended(rows.registers, more),
        dirty=_extended(rows.dirty, more),
    )


def with_free_tiles(plan: Plan, rows: Rows, count: int) -> Rows:
    """Return the same state with at least ``count`` free tile rows: kernels never allocate."""
    free_count, have, length = int(rows.free_count[0]), len(rows.free), int(plan.limits[TILES_ROW])
    if free_count >= count or length == 0:
        return rows
    more = max(count - free_count, have)
    free = np.concatenate([rows.free, np.zeros(more, np.int64)])
    free[free_count : free_count + more] = np.arange(have + more - 1, have - 1, -1)
    rows.free_count[0] += more
    return rows._replace(tiles=_extended(rows.tiles, more * length), free=free)


def clear_slots(plan: Plan, rows: Rows, slots: Int64) -> None:
    """Make slots empty and give back their tiles."""
    tiled = rows.meta[slots, TILE_ROW]
    tiled, first = tiled[tiled >= 0], int(rows.free_count[0])
    length = int(plan.limits[TILES_ROW])
    if len(tiled):
        rows.tiles.reshape(-1, length, rows.tiles.shape[1])[tiled] = 0
    rows.free[first : first + len(tiled)] = tiled
    rows.free_count[0] += len(tiled)
    rows.meta[slots] = _empty_meta(1)[0]
    rows.dirty[slots] = False


def clear_first(plan: Plan, rows: Rows, count: int) -> None:
    """Do as `clear_slots` with the first slots, where no other has ever been used: all tiles are
    free again then, and a third of the time is enough.
    """
    first, length = int(rows.free_count[0]), int(plan.limits[TILES_ROW])
    if first < len(rows.free):
        rows.tiles.reshape(-1, length, rows.tiles.shape[1])[rows.free[first:]] = 0
        rows.free_count[0] = len(rows.free)
    rows.meta[:count] = -1
    rows.meta[:count, SIZE] = 0
    rows.dirty[:count] = False


def _empty_meta(slots: int) -> Int64:
    meta = np.zeros((slots, 4), np.int64)
    meta[:, (NOW, TILED_MAX, TILE_ROW)] = -1
    return meta


def _extended(array: NDArray[Scalar], more: int) -> NDArray[Scalar]:
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])
