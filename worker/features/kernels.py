"""Kernels: fold events into the rows of `worker.features.state`, in order, reading as they go.

Helpers take arrays and places in them, never a slice. Values are integers until they are features.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.contracts.records import Bool, Float64, Int64
from worker.features import (
    accumulators,
    codes,
    compiling,
    elementary,
    fetching,
    plan,
    reading,
    registering,
    ringing,
    state,
)
from worker.features.accumulators import add_event, clear
from worker.features.codes import MISSING
from worker.features.compiling import bare_kernel, digest_of, helper
from worker.features.expressions import logarithm
from worker.features.fetching import fetch_ahead
from worker.features.plan import (
    FORGET_MS,
    GROUPS_BEFORE,
    REGISTERS_BEFORE,
    RING_BEFORE,
    SPAN_MS,
    TILED_COLUMNS,
    TILES_ROW,
    WITH_IDS,
    Plan,
)
from worker.features.reading import read_windows
from worker.features.registering import (
    clear_registers,
    fold_registers,
    move_registers,
    read_registers,
)
from worker.features.ringing import read_ring, zscore_of
from worker.features.state import NOW, SIZE, TILE_ROW, TILED_MAX, Rows


@helper
def _move_rare(plan: Plan, rows: Rows, slot: int, size: int, before: int, now: int) -> None:
    """Move registers to the entity's now."""
    if size == 0:
        clear_registers(plan.registers, rows.registers, slot)
    move_registers(plan.registers, plan.rates, rows.registers, slot, now - before)


@helper
def _add_rare(
    plan: Plan, rows: Rows, slot: int, t: int, now: int, size: int, own: Int64, e: int
) -> None:
    """Mark an event that is an outlier, and add it to registers."""
    for b in range(len(plan.outliers)):
        column, judged, robust = plan.outliers[b, 0], plan.outliers[b, 1], plan.outliers[b, 2]
        v = own[e, judged]
        if v != MISSING:
            z = zscore_of(rows.ring, rows.order, slot, 1 + judged, 0, size, v, float(robust))
            v = 1 if abs(z) > plan.spreads[b] else 0
        own[e, column] = v
    fold_registers(plan.registers, plan.rates, rows.registers, slot, t, now, own, e)


@helper
def _read_rare(
    plan: Plan, rows: Rows, phase: int, slot: int, now: int, t: int, own: Int64, X: Float64, e: int
) -> None:
    """Write the features of ring ops and register ops of one phase."""
    first, end = _range_of(phase, plan.limits[RING_BEFORE], len(plan.ring_ops))
    size = rows.meta[slot, SIZE]
    read_ring(
        plan.ring_ops, plan.ring_scales, first, end, rows.ring, rows.order, slot, size, now, t,
        own, X, e,
    )  # fmt: skip
    first, end = _range_of(phase, plan.limits[REGISTERS_BEFORE], len(plan.register_ops))
    read_registers(
        plan.register_ops, plan.register_scales, first, end, rows.registers, slot, now, X, e
    )


@helper
def _range_of(phase: int, before: int, count: int) -> tuple[int, int]:
    """Return which of so many ops, the first ``before`` without the event, are of a phase."""
    return (before, count) if phase else (0, before)


@helper
def _add(
    plan: Plan, rows: Rows, slot: int, t: int, now: int, id_hash: int, own: Int64, e: int
) -> None:
    """Add an event to ring and tiles, and move the entity's now."""
    meta, ring = rows.meta, rows.ring
    size = meta[slot, SIZE]
    tiled_ms = _insert(ring, rows.event, slot, size, t, id_hash, own, e, plan.limits[WITH_IDS])
    if tiled_ms >= 0 and now - tiled_ms < plan.limits[SPAN_MS]:
        if meta[slot, TILE_ROW] < 0:
            rows.free_count[0] -= 1
            meta[slot, TILE_ROW] = rows.free[rows.free_count[0]]
        meta[slot, TILED_MAX] = max(meta[slot, TILED_MAX], tiled_ms)
        _tile(plan, rows, slot, tiled_ms, now)
    meta[slot, NOW], meta[slot, SIZE] = now, min(size + 1, ring.shape[2])


@helper
def _holds(ring: Int64, slot: int, size: int, id_hash: int) -> bool:
    """Return whether the ring holds an event with this hash of its id."""
    last = ring.shape[1] - 1
    found = 0
    for i in range(size):
        found |= ring[slot, last, i] == id_hash
    return found > 0


@helper
def _forget(plan: Plan, rows: Rows, slot: int) -> None:
    """Make an entity as if it had never been seen."""
    meta, tiles, length = rows.meta, rows.tiles, plan.limits[TILES_ROW]
    meta[slot, NOW], meta[slot, SIZE], meta[slot, TILED_MAX] = -1, 0, -1
    if meta[slot, TILE_ROW] >= 0:
        first = meta[slot, TILE_ROW] * length
        for at in range(first, first + length):
            for i in range(tiles.shape[1]):
                tiles[at, i] = 0


@helper
def _insert(
    ring: Int64,
    evicted: Int64,
    slot: int,
    size: int,
    t: int,
    id_hash: int,
    values: Int64,
    e: int,
    with_ids: int,
) -> int:
    """Put an event in its place; return the time of the one that does not fit, its values in
    ``evicted``, or -1.
    """
    fields, tiled_ms, to = len(evicted), -1, size
    if size < ring.shape[2]:
        while to > 0 and ring[slot, 0, to - 1] > t:
            for r in range(ring.shape[1]):
                ring[slot, r, to] = ring[slot, r, to - 1]
            to -= 1
    elif t < ring[slot, 0, 0]:
        for f in range(fields):
            evicted[f] = values[e, f]
        return t
    else:
        tiled_ms = ring[slot, 0, 0]
        for f in range(fields):
            evicted[f] = ring[slot, 1 + f, 0]
        to -= 1
        while ring[slot, 0, to] > t:
            to -= 1
        for r in range(ring.shape[1]):
            for i in range(to):
                ring[slot, r, i] = ring[slot, r, i + 1]
    ring[slot, 0, to] = t
    for f in range(fields):
        ring[slot, 1 + f, to] = values[e, f]
    if with_ids:
        ring[slot, 1 + fields, to] = id_hash
    return tiled_ms


@helper
def divide(a: int, b: int, inverse: float) -> int:
    """Return ⌊a / b⌋ for 0 <= a < 2^52 and ``inverse`` = 1 / b; a tenth of a division's time."""
    quotient = int(a * inverse)
    rest = a - quotient * b
    return quotient + (rest >= b) - (rest < 0)


@helper
def _tile(plan: Plan, rows: Rows, slot: int, t: int, now: int) -> None:
    """Add ``rows.event`` to its tile of every set whose windows may still reach it."""
    sets, inverses, tiles = plan.sets, plan.inverses, rows.tiles
    recorded, tiled = plan.recorded, plan.limits[TILED_COLUMNS]
    row = rows.meta[slot, TILE_ROW] * plan.limits[TILES_ROW]
    for s in range(len(sets)):
        if now - t >= sets[s, 3]:
            continue
        number = divide(t, sets[s, 0], inverses[s, 0])
        round_ = divide(number, sets[s, 1], inverses[s, 1])
        at = row + sets[s, 2] + number - round_ * sets[s, 1]
        if tiles[at, 1] == 0 or tiles[at, 0] < number:
            tiles[at, 0] = number
            clear(recorded, tiled, tiles, at)
        elif tiles[at, 0] > number:
            continue
        add_event(recorded, tiled, rows.event, tiles, at)


SOURCES = (
    accumulators, codes, compiling, elementary, fetching, logarithm, plan, reading, registering,
    ringing, state,
)  # fmt: skip
"""The modules whose helpers and constants are in these kernels, other than this one."""


def _make_fold(rare: bool, sources: str) -> Callable[..., int]:
    """Return a kernel that has the ops that are ``rare``, or lacks their code."""

    @bare_kernel
    def fold(
        plan: Plan,
        rows: Rows,
        slots: Int64,
        time_ms: Int64,
        id_hash: Int64,
        values: Int64,
        duplicate: Bool,
        nows: Int64,
        X: Float64,
    ) -> int:
        sources  # noqa: B018  # see worker.features.compiling
        meta, newly_dirty = rows.meta, 0
        for e in range(len(slots)):
            fetch_ahead(plan, rows, slots, time_ms, e)
            slot, t = slots[e], time_ms[e]
            if slot < 0 or duplicate[e]:
                continue
            if meta[slot, SIZE] > 0 and t - meta[slot, NOW] > plan.limits[FORGET_MS]:
                _forget(plan, rows, slot)
            size, before = meta[slot, SIZE], meta[slot, NOW]
            if plan.limits[WITH_IDS] and _holds(rows.ring, slot, size, id_hash[e]):
                duplicate[e] = True
                continue
            now = max(before, t)
            nows[e] = now
            if rare:
                _move_rare(plan, rows, slot, size, before, now)
            for i in range(len(plan.since)):
                X[e, plan.since[i]] = (now - before) / 1000.0 if size > 0 else -1.0
            for phase in range(2):  # features without the event, then those with it
                if phase == 1:
                    if rare:
                        _add_rare(plan, rows, slot, t, now, size, values, e)
                    _add(plan, rows, slot, t, now, id_hash[e], values, e)
                first, end = _range_of(phase, plan.limits[GROUPS_BEFORE], len(plan.groups))
                for g in range(first, end):
                    read_windows(plan, rows, g, slot, now, values, X, e)
                if rare:
                    _read_rare(plan, rows, phase, slot, now, t, values, X, e)
            newly_dirty += not rows.dirty[slot]
            rows.dirty[slot] = True
        return newly_dirty

    return fold


_fold_all = _make_fold(True, digest_of(*SOURCES))
_fold_windows = _make_fold(False, digest_of(*SOURCES))


def fold_of(plan: Plan) -> Callable[..., int]:
    """Return the kernel for a plan: without rare ops, it takes a quarter less to compile.

    ``fold(plan, rows, slots, time_ms, id_hash, values, duplicate, nows, X)`` folds events in order,
    writes what they read into rows of X and returns newly dirty slots. ``values`` has shape (n,
    recorded columns); marks of outliers are put into it. ``slots`` are -1 where an event has no
    such entity. The primary entity writes ``duplicate``, others obey it: a duplicate changes
    nothing. ``nows`` gets the now at which each event was read. There must be a free tile row per
    event.
    """
    rare = len(plan.ring_ops) or len(plan.registers) or len(plan.outliers)
    return _fold_all if rare else _fold_windows
