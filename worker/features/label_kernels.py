"""Label kernels: fold what became known about events into the L-part of an entity, and read it.

The L-part depends on which truths are known, never on the order in which they came: labels and
events interleave differently when a shard is rebuilt. So the ring holds the newest N labelled
events by (event time, id hash); what it loses goes to tiles, of which only sums are kept; a truth
that is revised changes its event in the ring, or its tile by the difference. A tile makes room for
a newer number only, and one that no window can reach from the newest labelled event is never added
to: that is also what a blob leaves out.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.contracts.records import Bool, Float64, Int64
from worker.features import kernels, label_plan, label_reading
from worker.features.accumulators import accumulate, clear, high_square
from worker.features.codes import MISSING, PLACE_COUNT
from worker.features.compiling import bare_kernel, digest_of, helper
from worker.features.fetching import fetch_ahead
from worker.features.kernels import divide
from worker.features.label_plan import LabelPlan, Truths
from worker.features.label_reading import read_runs, read_times
from worker.features.plan import TILED_COLUMNS, TILES_ROW, Plan
from worker.features.reading import read_windows
from worker.features.ringing import read_ring
from worker.features.state import NOW, SIZE, TILE_ROW, TILED_MAX, Rows


@helper
def _learn(plan: Plan, rows: Rows, truths: Truths, j: int) -> None:
    """Fold one truth."""
    meta, slot, t = rows.meta, truths.slots[j], truths.time_ms[j]
    if truths.revised[j]:
        at = _place_of(rows.ring, slot, meta[slot, SIZE], t, truths.id_hash[j])
        if at >= 0:
            for f in range(len(plan.recorded)):
                rows.ring[slot, 1 + f, at] = truths.values[j, f]
        elif meta[slot, TILE_ROW] >= 0:
            _add(plan, rows, slot, t, 0, truths.values, j, 1)
            _add(plan, rows, slot, t, 0, truths.old, j, -1)
        return
    meta[slot, NOW] = max(meta[slot, NOW], t)
    tiled_ms = _insert(rows, slot, t, truths.id_hash[j], truths.values, j)
    meta[slot, SIZE] = min(meta[slot, SIZE] + 1, rows.ring.shape[2])
    if tiled_ms >= 0 and len(plan.sets) > 0:
        if meta[slot, TILE_ROW] < 0:
            rows.free_count[0] -= 1
            meta[slot, TILE_ROW] = rows.free[rows.free_count[0]]
        meta[slot, TILED_MAX] = max(meta[slot, TILED_MAX], tiled_ms)
        _add(plan, rows, slot, tiled_ms, 1, rows.event.reshape(1, -1), 0, 1)


@helper
def _place_of(ring: Int64, slot: int, size: int, t: int, id_hash: int) -> int:
    """Return where in the ring the event of this time and id lies, or -1."""
    last, at = ring.shape[1] - 1, -1
    for i in range(size):
        if ring[slot, last, i] == id_hash and ring[slot, 0, i] == t:
            at = i
    return at


@helper
def _insert(rows: Rows, slot: int, t: int, id_hash: int, values: Int64, j: int) -> int:
    """Put an event in its place by (time, id hash); return the time of the one that does not fit,
    its values in ``rows.event``, or -1.
    """
    ring, evicted, size = rows.ring, rows.event, rows.meta[slot, SIZE]
    fields, last, to = len(evicted), ring.shape[1] - 1, size
    while to > 0 and _is_after(ring, slot, to - 1, t, id_hash):
        to -= 1
    tiled_ms = -1
    if size < ring.shape[2]:
        for r in range(ring.shape[1]):
            for i in range(size, to, -1):
                ring[slot, r, i] = ring[slot, r, i - 1]
    elif to == 0:
        for f in range(fields):
            evicted[f] = values[j, f]
        return t
    else:
        tiled_ms = ring[slot, 0, 0]
        for f in range(fields):
            evicted[f] = ring[slot, 1 + f, 0]
        to -= 1
        for r in range(ring.shape[1]):
            for i in range(to):
                ring[slot, r, i] = ring[slot, r, i + 1]
    ring[slot, 0, to] = t
    for f in range(fields):
        ring[slot, 1 + f, to] = values[j, f]
    ring[slot, last, to] = id_hash
    return tiled_ms


@helper
def _is_after(ring: Int64, slot: int, i: int, t: int, id_hash: int) -> bool:
    """Return whether an event of the ring comes after (t, id_hash)."""
    time_ms, last = ring[slot, 0, i], ring.shape[1] - 1
    return bool(time_ms > t or (time_ms == t and ring[slot, last, i] > id_hash))


@helper
def _add(
    plan: Plan, rows: Rows, slot: int, t: int, count: int, values: Int64, j: int, sign: int
) -> None:
    """Add an event to its tile of every set, or with ``sign`` -1 take its values away.

    With a ``count`` of 0 its tile is there, or is of no more use.
    """
    sets, inverses, tiles, recorded = plan.sets, plan.inverses, rows.tiles, plan.recorded
    row = rows.meta[slot, TILE_ROW] * plan.limits[TILES_ROW]
    for s in range(len(sets)):
        number = divide(t, sets[s, 0], inverses[s, 0])
        newest = divide(rows.meta[slot, NOW], sets[s, 0], inverses[s, 0])
        if number <= newest - sets[s, 1]:
            continue
        round_ = divide(number, sets[s, 1], inverses[s, 1])
        at = row + sets[s, 2] + number - round_ * sets[s, 1]
        if tiles[at, 1] == 0 or tiles[at, 0] < number:
            tiles[at, 0] = number
            clear(recorded, plan.limits[TILED_COLUMNS], tiles, at)
        elif tiles[at, 0] > number:
            continue
        tiles[at, 1] += count
        for f in range(plan.limits[TILED_COLUMNS]):
            v = values[j, f]
            if v != MISSING:
                high = sign * high_square(v)
                accumulate(recorded, f, tiles, at, sign * v, sign * v * v, high, v, v)
                if recorded[f, PLACE_COUNT] > 1:
                    tiles[at, recorded[f, PLACE_COUNT]] += sign


SOURCES = (*kernels.SOURCES, kernels, label_plan, label_reading)
"""The modules whose helpers and constants are in these kernels, other than this one."""


def _make_fold(rare: bool, sources: str) -> Callable[..., int]:
    """Return a kernel that has the ops that are ``rare``, or lacks their code."""

    @bare_kernel
    def fold_labels(
        plan: Plan,
        labels: LabelPlan,
        rows: Rows,
        truths: Truths,
        slots: Int64,
        now: Int64,
        own: Int64,
        duplicate: Bool,
        X: Float64,
    ) -> int:
        sources  # noqa: B018  # see worker.features.compiling
        meta, newly_dirty, j = rows.meta, 0, 0
        for e in range(len(slots) + 1):
            fetch_ahead(plan, rows, slots, now, e)
            while j < len(truths.before) and (truths.before[j] <= e or e == len(slots)):
                fetch_ahead(plan, rows, truths.slots, truths.time_ms, j)
                _learn(plan, rows, truths, j)
                newly_dirty += not rows.dirty[truths.slots[j]]
                rows.dirty[truths.slots[j]] = True
                j += 1
            if e == len(slots) or slots[e] < 0 or duplicate[e] or meta[slots[e], SIZE] == 0:
                continue
            for g in range(len(plan.groups)):
                read_windows(plan, rows, g, slots[e], now[e], own, X, e)
            if rare:
                read_ring(
                    plan.ring_ops, plan.ring_scales, 0, len(plan.ring_ops), rows.ring, rows.order,
                    slots[e], meta[slots[e], SIZE], now[e], now[e], own, X, e,
                )  # fmt: skip
            read_runs(plan, labels, rows, slots[e], now[e], X, e)
            read_times(plan, labels, rows, slots[e], now[e], X, e)
        return newly_dirty

    return fold_labels


_fold_all = _make_fold(True, digest_of(*SOURCES))
_fold_windows = _make_fold(False, digest_of(*SOURCES))


def fold_labels_of(plan: Plan) -> Callable[..., int]:
    """Return the kernel for a plan: ring ops are compiled where a feature reads them.

    ``fold(plan, labels, rows, truths, slots, now, own, duplicate, X)`` folds truths in order,
    writes what is known at each event into its row of X and returns newly dirty slots. ``slots``
    has the L-part of each event's entity (-1 for none), ``now`` its entity's now when it is read,
    ``own`` its recorded values. Duplicates read nothing. There must be a free tile row per truth.
    """
    return _fold_all if len(plan.ring_ops) else _fold_windows
