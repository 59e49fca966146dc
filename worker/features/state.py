"""What is kept of every entity of one type, as flat arrays that kernels read and write.

A *slot* is the row of an entity. Its ring holds its last N events by time (ties by arrival), the
oldest first: ``rows.ring[slot, 0]`` the times, then a row per recorded field in units, and for the
primary entity a last row with the 64-bit hashes of the events' ids. When it is full it moves by one
place: 256 bytes a row at N = 32, which costs less than to wrap around in every read.

Events that leave the ring, and late ones older than all of a full ring, go to tiles; so tiles and
ring are disjoint. Tiles lie in a pool, one row for each entity that ever overflowed. A record
is [tile number = time // tile_ms, count, then per field: sum, and where asked the squares and the
extremes]; count 0 means empty. Record i of a set holds the numbers ≡ i modulo the set's length.

Squares are two limbs: Σ v² modulo 2^64, and Σ ⌊v² / 2^40⌋. With |v| <= 2^40 and fewer than 2^23
events both fit, and together they give Σ v² exactly. Integers are order-free and never drift.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Bool, Float64, Int64
from worker.features.aggregations import AGGREGATIONS
from worker.features.spec import EntitySpec, Feature, Window

NOW, SIZE, TILED_MAX, TILE_ROW = range(4)
"""Columns of `Rows.meta`: largest event time; number of the ring's events; largest time of any
event in tiles and the entity's row of tiles, both -1 for none.
"""


class Plan(NamedTuple):
    """An `EntitySpec` as arrays: the program that the kernels interpret.

    ``fields`` gives the places in a record of what is kept of each field, 0 for what is not.
    Windows with one end are a group; the first ``limits[4]`` groups are without the current event
    and read before it is folded.
    """

    fields: Int64  # (F, 3): place of sum, of squares (2), of extremes (2)
    sets: Int64  # (S, 4): tile_ms, tiles, first tile in the row, tile_ms * tiles
    inverses: Float64  # (S, 2): 1 / tile_ms, 1 / tiles
    groups: Int64  # (G, 4): include_current, delay_ms, first window, end of windows
    windows: Int64  # (W, 4): size_ms, tile set, first op, end of ops; sizes ascend in a group
    ops: Int64  # (R, 3): code, field, column of X
    scales: Float64  # (R, 2): multiply, divide
    since: Int64  # columns of X with the time since the last event
    limits: Int64  # (6,): length of a record, tiles a row, forget_ms, ids kept (0 or 1), see
    # below, longest span of tiles: an event that is older than it is of no more use


class Rows(NamedTuple):
    """All state of one entity type; grown by doubling, so `grow` returns a new one."""

    meta: Int64  # (slots, 4)
    ring: Int64  # (slots, 1 + F + ids, N)
    dirty: Bool  # (slots,)
    tiles: Int64  # (tile rows, tiles, length of a record)
    free: Int64  # (tile rows,): numbers of free tile rows; the first free_count[0] count
    free_count: Int64  # (1,)
    scratch: Int64  # (4, length of a record): for kernels, of no meaning between calls
    weight: Float64  # (4,): the same
    event: Int64  # (F,): the same


def make_plan(entity: EntitySpec, features: tuple[Feature, ...], forget_ms: int) -> Plan:
    """Return the program that folds and reads an entity."""
    fields, record_length = _places(entity)
    tile_sets, row_length = _tile_places(entity)
    groups, windows, ops = _program(entity, features)
    before = sum(not group[0] for group in groups)
    span_ms = max((place[3] for place in tile_sets), default=0)
    return Plan(
        _matrix(fields, 3),
        _matrix(tile_sets, 4),
        1.0 / _matrix(tile_sets, 4)[:, :2],
        _matrix(groups, 4),
        _matrix(windows, 4),
        _matrix([(AGGREGATIONS[f.aggregation].code, k, column) for f, k, column in ops], 3),
        np.array([(f.multiply, f.divide) for f, _, _ in ops], np.float64).reshape(-1, 2),
        np.array(
            [c for c in entity.columns if features[c].aggregation == "time_since_last"], np.int64
        ),
        np.array([record_length, row_length, forget_ms, entity.primary, before, span_ms], np.int64),
    )


def make_rows(plan: Plan, ring: int, slots: int) -> Rows:
    """Return state for so many slots, all empty, without tiles."""
    depth = 1 + len(plan.fields) + int(plan.limits[3])
    return Rows(
        _empty_meta(slots),
        np.zeros((slots, depth, ring), np.int64),
        np.zeros(slots, np.bool_),
        np.zeros((0, int(plan.limits[1]), int(plan.limits[0])), np.int64),
        np.zeros(0, np.int64),
        np.zeros(1, np.int64),
        np.zeros((4, int(plan.limits[0])), np.int64),
        np.ones(4, np.float64),
        np.zeros(len(plan.fields), np.int64),
    )


def grow_slots(rows: Rows, slots: int) -> Rows:
    """Return the same state with room for ``slots`` entities."""
    more = slots - len(rows.meta)
    return rows._replace(
        meta=np.concatenate([rows.meta, _empty_meta(more)]),
        ring=_extended(rows.ring, more),
        dirty=np.concatenate([rows.dirty, np.zeros(more, np.bool_)]),
    )


def with_free_tiles(rows: Rows, count: int) -> Rows:
    """Return the same state with at least ``count`` free tile rows: kernels never allocate."""
    free_count, have = int(rows.free_count[0]), len(rows.tiles)
    if free_count >= count or rows.tiles.shape[1] == 0:
        return rows
    more = max(count - free_count, have)
    free = np.concatenate([rows.free, np.zeros(more, np.int64)])
    free[free_count : free_count + more] = np.arange(have + more - 1, have - 1, -1)
    rows.free_count[0] += more
    return rows._replace(tiles=_extended(rows.tiles, more), free=free)


def clear_slot(rows: Rows, slot: int) -> None:
    """Make a slot empty and give back its tiles."""
    row = int(rows.meta[slot, TILE_ROW])
    if row >= 0:
        rows.tiles[row] = 0
        rows.free[rows.free_count[0]] = row
        rows.free_count[0] += 1
    rows.meta[slot] = _empty_meta(1)[0]
    rows.dirty[slot] = False


def _places(entity: EntitySpec) -> tuple[list[tuple[int, ...]], int]:
    """Return where each field's sum, squares and extremes lie, and the length of a record."""
    places: list[tuple[int, ...]] = []
    end = 2
    for field in entity.fields:
        squares = end + 1 if field.squares else 0
        extremes = end + 1 + 2 * field.squares if field.extremes else 0
        places.append((end, squares, extremes))
        end += 1 + 2 * field.squares + 2 * field.extremes
    return places, end


def _tile_places(entity: EntitySpec) -> tuple[list[tuple[int, ...]], int]:
    places: list[tuple[int, ...]] = []
    end = 0
    for tile_set in entity.tile_sets:
        span_ms = tile_set.tile_ms * tile_set.tiles
        places.append((tile_set.tile_ms, tile_set.tiles, end, span_ms))
        end += tile_set.tiles
    return places, end


def _program(
    entity: EntitySpec, features: tuple[Feature, ...]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], list[tuple[Feature, int, int]]]:
    """Return groups of windows with one end, the windows, and what is read from each."""
    lengths = [tile_set.tile_ms for tile_set in entity.tile_sets]
    names = [field.name for field in entity.fields]
    groups: list[list[int]] = []
    windows: list[tuple[int, ...]] = []
    ops: list[tuple[Feature, int, int]] = []
    for w, window in enumerate(entity.windows):
        head = [int(window.include_current), window.delay_ms]
        if not groups or groups[-1][:2] != head:
            groups.append([*head, w, w])
        groups[-1][3] = w + 1
        first = len(ops)
        for column in entity.columns:
            feature = features[column]
            if _is_in(feature, window):
                ops.append((feature, names.index(feature.field) if feature.field else -1, column))
        windows.append((window.size_ms, lengths.index(window.tile_ms), first, len(ops)))
    return [tuple(group) for group in groups], windows, ops


def _is_in(feature: Feature, window: Window) -> bool:
    return (feature.include_current, feature.delay_ms, feature.window_ms) == (
        window.include_current,
        window.delay_ms,
        window.size_ms,
    )


def _matrix(rows: list[tuple[int, ...]], width: int) -> Int64:
    return np.array(rows, np.int64).reshape(-1, width)


def _empty_meta(slots: int) -> Int64:
    meta = np.zeros((slots, 4), np.int64)
    meta[:, (NOW, TILED_MAX, TILE_ROW)] = -1
    return meta


def _extended(array: NDArray[np.int64], more: int) -> NDArray[np.int64]:
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), np.int64)])
