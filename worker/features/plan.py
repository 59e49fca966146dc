"""Plans: what is folded and read of the entities of one type, as arrays that kernels interpret."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.features import codes
from worker.features.aggregations import AGGREGATIONS
from worker.features.entity import EntitySpec, Recorded, Window
from worker.features.feature import Feature

(
    RECORD_LENGTH, TILES_ROW, FORGET_MS, WITH_IDS, TILED_COLUMNS, SPAN_MS, GROUPS_BEFORE,
    RING_BEFORE, REGISTERS_BEFORE,
) = range(9)  # fmt: skip
"""Places in `Plan.limits`: length of a record; tiles a row; the silence that is forgotten; whether
ids are kept; number of columns in tiles; longest span of tiles: an event that is older than it is
of no more use; and how many groups, ring ops and register ops are without the current event, which
come first and are read before it is folded.
"""


class Plan(NamedTuple):
    """An `EntitySpec` as arrays: the program that the kernels interpret.

    ``recorded`` gives the places in a record of what is kept of each column, 0 for what is not (1,
    the record's own count, for a value that is never missing); columns in tiles come first.
    Windows with one end are a group.
    """

    recorded: Int64  # (F, 6): places of sum, squares (2), extremes (2), count, bits (4); form
    sets: Int64  # (S, 4): tile_ms, tiles, first tile in the row, tile_ms * tiles
    inverses: Float64  # (S, 2): 1 / tile_ms, 1 / tiles
    groups: Int64  # (G, 4): include_current, delay_ms, first window, end of windows
    windows: Int64  # (W, 5): size_ms, tile set, first op, end of ops on moments, end of all ops;
    # sizes ascend in a group
    ops: Int64  # (R, 3): code, recorded column or -1, column of X
    scales: Float64  # (R, 2): multiply, divide
    ring_ops: Int64  # (Q, 7): code, recorded column or -1, a second one, column of X,
    # size_ms (0: the whole ring), delay_ms, last k (0: all)
    ring_scales: Float64  # (Q, 3): multiply, divide, parameter
    registers: Int64  # (D, 2): what it holds, recorded column or -1
    rates: Float64  # (D,): decay in 1 / ms
    register_ops: Int64  # (P, 4): code, register, a second one, column of X
    register_scales: Float64  # (P, 3): multiply, divide, parameter
    outliers: Int64  # (B, 3): recorded column, the column that it judges, whether by the median
    spreads: Float64  # (B,): from how many spreads on a value is an outlier
    since: Int64  # columns of X with the time since the last event
    limits: Int64  # (9,)


@lru_cache(maxsize=64)  # every shard of a worker asks for the same ones
def make_plan(entity: EntitySpec, features: tuple[Feature, ...], forget_ms: int) -> Plan:
    """Return the program that folds and reads an entity."""
    recorded, record_length = _places(entity)
    tile_sets, row_length = _tile_places(entity)
    groups, windows, ops = _program(entity, features)
    ring = _by_phase(entity, features, "ring")
    registers = _by_phase(entity, features, "register")
    outliers = [(i, r) for i, r in enumerate(entity.recorded) if r.source.kind == "outlier"]
    before = [
        sum(not group[0] for group in groups),
        sum(not features[c].include_current for c in ring),
        sum(not features[c].include_current for c in registers),
    ]
    tiled = sum(r.tiled for r in entity.recorded)
    span_ms = max((place[3] for place in tile_sets), default=0)
    first = [record_length, row_length, forget_ms, entity.primary, tiled, span_ms]
    return Plan(
        _matrix(recorded, 6),
        _matrix(tile_sets, 4),
        1.0 / _matrix(tile_sets, 4)[:, :2],
        _matrix(groups, 4),
        _matrix(windows, 5),
        _matrix([(_code(features[c]), _column(entity, features[c]), c) for c in ops], 3),
        _scales([(features[c].multiply, features[c].divide) for c in ops], 2),
        _matrix([_ring_op(entity, features[c], c) for c in ring], 7),
        _scales([_scale(features[c]) for c in ring], 3),
        _matrix([(r.holds, entity.place(r.source)) for r in entity.registers], 2),
        np.array([r.rate for r in entity.registers], np.float64),
        _matrix([_register_op(entity, features[c], c) for c in registers], 4),
        _scales([_scale(features[c]) for c in registers], 3),
        _matrix([(i, _judged(entity, r), int(r.source.robust)) for i, r in outliers], 3),
        np.array([r.source.beyond for _, r in outliers], np.float64),
        np.array(_by_phase(entity, features, "since"), np.int64),
        np.array(first + before, np.int64),
    )


def without_reads(plan: Plan) -> Plan:
    """Return the program that folds the same and reads nothing: its X needs no columns."""
    limits = plan.limits.copy()
    limits[[GROUPS_BEFORE, RING_BEFORE, REGISTERS_BEFORE]] = 0
    return plan._replace(
        groups=plan.groups[:0],
        ring_ops=plan.ring_ops[:0],
        register_ops=plan.register_ops[:0],
        since=plan.since[:0],
        limits=limits,
    )


def _places(entity: EntitySpec) -> tuple[list[tuple[int, ...]], int]:
    """Return where what is kept of each column lies in a record, and the length of a record."""
    places: list[tuple[int, ...]] = []
    end = 2
    for column in entity.recorded:
        at = {}
        sizes = (1, 2 * column.squares, 2 * column.extremes, int(column.optional), 4 * column.bits)
        for part, size in enumerate(sizes):
            at[part] = end if size and column.tiled else 0
            end += size * column.tiled
        count = at[codes.PLACE_COUNT] if column.optional else 1
        places.append((*(at[i] for i in range(3)), count, at[codes.PLACE_BITS], column.form))
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
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], list[int]]:
    """Return groups of windows with one end, the windows, and the columns read from each."""
    lengths = [tile_set.tile_ms for tile_set in entity.tile_sets]
    windowed = [c for c in entity.columns if _reads(features[c]) == "window"]
    groups: list[list[int]] = []
    windows: list[tuple[int, ...]] = []
    ops: list[int] = []
    for w, window in enumerate(entity.windows):
        head = [int(window.include_current), window.delay_ms]
        if not groups or groups[-1][:2] != head:
            groups.append([*head, w, w])
        groups[-1][3] = w + 1
        here = [c for c in windowed if _is_in(features[c], window)]
        moments = [c for c in here if _code(features[c]) <= codes.MAX]
        first = len(ops)
        ops += moments + [c for c in here if c not in moments]
        tile_set = lengths.index(window.tile_ms)
        windows.append((window.size_ms, tile_set, first, first + len(moments), len(ops)))
    return [tuple(group) for group in groups], windows, ops


def _is_in(feature: Feature, window: Window) -> bool:
    return (feature.include_current, feature.delay_ms, feature.window_ms) == (
        window.include_current,
        window.delay_ms,
        window.size_ms,
    )


def _by_phase(entity: EntitySpec, features: tuple[Feature, ...], reads: str) -> list[int]:
    """Return the columns of one way to read, those without the current event first."""
    mine = [c for c in entity.columns if _reads(features[c]) == reads]
    return sorted(mine, key=lambda c: features[c].include_current)


def _reads(feature: Feature) -> str:
    return AGGREGATIONS[feature.aggregation].reads_of(feature.options)


def _code(feature: Feature) -> int:
    return AGGREGATIONS[feature.aggregation].code_of(feature.options)


def _column(entity: EntitySpec, feature: Feature, which: int = 0) -> int:
    """Return the recorded column that a feature reads, -1 for none."""
    return entity.place(feature.sources[which]) if len(feature.sources) > which else -1


def _judged(entity: EntitySpec, outlier: Recorded) -> int:
    return entity.place(outlier.source.judged)


def _ring_op(entity: EntitySpec, feature: Feature, column: int) -> tuple[int, ...]:
    places = _column(entity, feature), _column(entity, feature, 1)
    size_ms, last = feature.window_ms or 0, feature.options.last
    return (_code(feature), *places, column, size_ms, feature.delay_ms, last)


def _register_op(entity: EntitySpec, feature: Feature, column: int) -> tuple[int, ...]:
    own = [entity.registers.index(r) for r in feature.registers]
    return (_code(feature), own[0], own[-1], column)


def _scale(feature: Feature) -> tuple[float, float, float]:
    parameter = AGGREGATIONS[feature.aggregation].parameter(feature.options)
    return feature.multiply, feature.divide, parameter


def _matrix(rows: Iterable[tuple[int, ...]], width: int) -> Int64:
    return np.array(list(rows), np.int64).reshape(-1, width)


def _scales(rows: Iterable[tuple[float, ...]], width: int) -> Float64:
    return np.array(list(rows), np.float64).reshape(-1, width)
