"""Machine code of `worker.models.sketch`: what a merge does, and what ranks follow from it."""

from __future__ import annotations

import math

from worker.contracts.records import Float64, Int64
from worker.features.compiling import allocating, helper
from worker.models.compiled import compiled

BLOCK = 256
"""Values between two merges; what a value says about others changes only there."""

EVIDENCE = 5
"""Values that must lie above a point before it may be called so rare, until the window is full."""

FIRST = 4 * BLOCK
"""Values before anything is told at all: models begin with scores that mean nothing."""

CAPACITY = 768
_TAIL_VALUES = 100.0  # at the top, which the tail is fitted to; a tenth of all while there are few
_GRAIN = 0.04  # a centroid's largest share of the values above it
_SHAPE_MIN, _SHAPE_MAX = -1.0, 0.5  # of the tail: bounded as the uniform's, heavy as t with 2
_RAREST = 1e-12
_STEP_MAX = 0.1  # nats that one exceedance moves a level by; less where a block has many
_REACH = math.log(3.0)  # nats that the feedback may move a level by: three times the rate

# Rows of `table`. A point is a centroid whose values are all equal.
MEAN, WEIGHT, POINT, BEFORE = range(4)
# Entries of `counters`.
SIZE, BUFFERED, SEEN = range(3)
# Entries of `facts`. TAIL_SCALE is zero where no tail is fitted.
WINDOW, TOTAL, TAIL_START, TAIL_SHARE, TAIL_SCALE, TAIL_SHAPE = range(6)
# Rows of `levels`. Rarity is -ln(1 - share): the declared one, and the one in the sketch that held
# it; then the value that has it.
RARITY, HELD, VALUE = range(3)


@allocating
def add(
    value: float, table: Float64, scratch: Float64, buffer: Float64, counters: Int64,
    facts: Float64, levels: Float64,
) -> None:  # fmt: skip
    """Add one value; merge when the block is full.

    Zeros before anything else are left out: they stand for a model that says nothing yet.
    """
    if value == 0.0 and counters[SEEN] == 0:
        return
    buffer[counters[BUFFERED]] = value
    counters[BUFFERED] += 1
    counters[SEEN] += 1
    if counters[BUFFERED] == BLOCK:
        buffer.sort()
        _feed_back(buffer, levels)
        _fade(table, counters, facts)
        _merge(table, scratch, buffer, counters, facts)
        counters[BUFFERED] = 0
        finish(table, counters, facts, levels)


@helper
def rank(value: float, table: Float64, counters: Int64, facts: Float64, levels: Float64) -> float:
    """Return the share of the merged values that lie below ``value``, [0, 1)."""
    size = counters[SIZE]
    if size == 0:
        return 0.0
    if facts[TAIL_SCALE] > 0.0 and value > facts[TAIL_START]:
        share = 1.0 - facts[TAIL_SHARE] * _survival(value - facts[TAIL_START], facts)
    else:
        share = _body_rank(value, table, size) / facts[TOTAL]
    return min(_corrected(share, levels), rarest(counters, facts))


@helper
def rarest(counters: Int64, facts: Float64) -> float:
    """Return the largest share that may be told: not more than the evidence is good for."""
    merged = counters[SEEN] - counters[BUFFERED]
    if merged < FIRST:
        return 0.0
    return 1.0 - (_RAREST if merged >= facts[WINDOW] else EVIDENCE / merged)


@helper
def _survival(excess: float, facts: Float64) -> float:
    shape, ratio = facts[TAIL_SHAPE], excess / facts[TAIL_SCALE]
    if abs(shape) < 1e-9:
        return math.exp(-ratio)
    inner = 1.0 + shape * ratio
    return math.pow(inner, -1.0 / shape) if inner > 0.0 else 0.0


@helper
def _body_rank(value: float, table: Float64, size: int) -> float:
    """Return the weight below a value: a step at a point, a line between the middles of others."""
    low, high = 0, size  # the first centroid whose mean is not below the value
    while low < high:
        middle = (low + high) // 2
        if table[MEAN, middle] < value:
            low = middle + 1
        else:
            high = middle
    if low == size:
        return table[BEFORE, size - 1] + table[WEIGHT, size - 1]  # type: ignore[no-any-return]
    right = table[BEFORE, low]
    if table[POINT, low] == 0.0:
        right += 0.5 * table[WEIGHT, low]
    if low == 0 or table[MEAN, low] == value:
        return right if low > 0 or table[MEAN, low] == value else 0.0
    left = table[BEFORE, low - 1] + table[WEIGHT, low - 1]
    if table[POINT, low - 1] == 0.0:
        left -= 0.5 * table[WEIGHT, low - 1]
    gap = table[MEAN, low] - table[MEAN, low - 1]
    return left + (right - left) * ((value - table[MEAN, low - 1]) / gap)  # type: ignore[no-any-return]


@helper
def _corrected(share: float, levels: Float64) -> float:
    """Return the share as the feedback has it: lines between the levels, in rarity."""
    last = levels.shape[1] - 1
    first = 1.0 - math.exp(-levels[HELD, 0])
    if share <= first:
        return share * ((1.0 - math.exp(-levels[RARITY, 0])) / first)
    rarity = -math.log(max(1.0 - share, _RAREST))
    k = 0
    while k < last and rarity > levels[HELD, k + 1]:
        k += 1
    further = rarity - levels[HELD, k]
    if k < last:
        held = levels[HELD, k + 1] - levels[HELD, k]
        further *= (levels[RARITY, k + 1] - levels[RARITY, k]) / held
    return 1.0 - math.exp(-(levels[RARITY, k] + further))


@helper
def _feed_back(block: Float64, levels: Float64) -> None:
    """Move each level by how many values of a sorted block exceeded it, against how many should."""
    for k in range(levels.shape[1]):
        if levels[VALUE, k] == math.inf:
            continue
        above = 0
        while above < BLOCK and block[BLOCK - 1 - above] > levels[VALUE, k]:
            above += 1
        expected = BLOCK * math.exp(-levels[RARITY, k])
        moved = levels[HELD, k] + min(_STEP_MAX, 0.2 / expected) * (above - expected)
        low = levels[RARITY, k] - _REACH
        if k > 0:
            low = max(low, levels[HELD, k - 1] + 0.01)
        levels[HELD, k] = max(min(moved, levels[RARITY, k] + _REACH), low, 0.01)


@compiled
def _quantile(share: float, table: Float64, counters: Int64, facts: Float64) -> float:
    if facts[TAIL_SCALE] > 0.0 and share >= 1.0 - facts[TAIL_SHARE]:
        left = (1.0 - share) / facts[TAIL_SHARE]
        shape, scale = facts[TAIL_SHAPE], facts[TAIL_SCALE]
        if abs(shape) < 1e-9:
            return facts[TAIL_START] - scale * math.log(left)  # type: ignore[no-any-return]
        return facts[TAIL_START] + scale / shape * (math.pow(left, -shape) - 1.0)  # type: ignore[no-any-return]
    wanted = share * facts[TOTAL]
    for i in range(counters[SIZE]):
        if table[BEFORE, i] + table[WEIGHT, i] >= wanted:
            return table[MEAN, i]  # type: ignore[no-any-return]
    return table[MEAN, counters[SIZE] - 1]  # type: ignore[no-any-return]


@compiled
def _fade(table: Float64, counters: Int64, facts: Float64) -> None:
    """Make room for a block: the total never exceeds the window."""
    room = facts[WINDOW] - BLOCK
    if facts[TOTAL] > room:
        factor = room / facts[TOTAL]
        for i in range(counters[SIZE]):
            table[WEIGHT, i] *= factor
        facts[TOTAL] = room
    facts[TOTAL] += BLOCK


@compiled
def _merge(
    table: Float64, scratch: Float64, buffer: Float64, counters: Int64, facts: Float64
) -> None:
    """Merge the sorted block into the sorted centroids, joining neighbours as far as allowed."""
    size, i, j, k = counters[SIZE], 0, 0, -1
    before = 0.0  # the weight of all centroids made but the last
    while i < size or j < BLOCK:
        if j == BLOCK or (i < size and table[MEAN, i] <= buffer[j]):
            mean, weight, point = table[MEAN, i], table[WEIGHT, i], table[POINT, i]
            i += 1
        else:
            mean, weight, point = buffer[j], 1.0, 1.0
            j += 1
        if k >= 0:
            joined = scratch[WEIGHT, k] + weight
            is_same = point * scratch[POINT, k] == 1.0 and mean == scratch[MEAN, k]
            allowed = max(_GRAIN * (facts[TOTAL] - before - joined), 0.5)
            if is_same or joined <= allowed or k == CAPACITY - 1:
                if not is_same:
                    scratch[MEAN, k] += (mean - scratch[MEAN, k]) * (weight / joined)
                    scratch[POINT, k] = 0.0
                scratch[WEIGHT, k] = joined
                continue
            before += scratch[WEIGHT, k]
        k += 1
        scratch[MEAN, k], scratch[WEIGHT, k], scratch[POINT, k] = mean, weight, point
    counters[SIZE] = k + 1
    for row in range(3):
        for c in range(k + 1):
            table[row, c] = scratch[row, c]


@compiled
def finish(table: Float64, counters: Int64, facts: Float64, levels: Float64) -> None:
    """Compute what follows from centroids and levels: weights before each, tail, thresholds."""
    before = 0.0
    for i in range(counters[SIZE]):
        table[BEFORE, i] = before
        before += table[WEIGHT, i]
    _fit_tail(table, counters, facts)
    for k in range(levels.shape[1]):
        _tell(k, table, counters, facts, levels)


@compiled
def aim(share: float, table: Float64, counters: Int64, facts: Float64, levels: Float64) -> None:
    """Move the first level to another share; what feedback has learned of it goes along."""
    rarity = -math.log(max(1.0 - share, _RAREST))
    levels[HELD, 0] = max(levels[HELD, 0] + rarity - levels[RARITY, 0], 0.01)
    levels[RARITY, 0] = rarity
    _tell(0, table, counters, facts, levels)


@compiled
def _tell(k: int, table: Float64, counters: Int64, facts: Float64, levels: Float64) -> None:
    """Set the value of a level: infinity where there is too little evidence for it."""
    levels[VALUE, k] = math.inf
    if counters[SIZE] > 0 and 1.0 - math.exp(-levels[RARITY, k]) <= rarest(counters, facts):
        share = 1.0 - math.exp(-levels[HELD, k])
        levels[VALUE, k] = _quantile(share, table, counters, facts)


@compiled
def _fit_tail(table: Float64, counters: Int64, facts: Float64) -> None:
    facts[TAIL_SCALE] = 0.0
    wanted = min(_TAIL_VALUES, 0.1 * facts[TOTAL])
    first = counters[SIZE] - 1  # the last centroid that is below the tail
    above = 0.0
    while first >= 0 and above + table[WEIGHT, first] <= wanted:
        above += table[WEIGHT, first]
        first -= 1
    if first < 0 or above < 20.0:
        return  # a heavy point lies there: steps are all that is known
    start, mean_excess, moment, higher = table[MEAN, first], 0.0, 0.0, above
    for i in range(first + 1, counters[SIZE]):
        share = table[WEIGHT, i] / above * (table[MEAN, i] - start)
        higher -= table[WEIGHT, i]
        mean_excess += share
        moment += share * (higher + 0.5 * table[WEIGHT, i]) / above
    spread = mean_excess - 2.0 * moment
    if not (spread > 1e-9 * mean_excess):
        return
    shape = min(max(2.0 - mean_excess / spread, _SHAPE_MIN), _SHAPE_MAX)
    facts[TAIL_START], facts[TAIL_SHARE] = start, above / facts[TOTAL]
    facts[TAIL_SCALE], facts[TAIL_SHAPE] = mean_excess * (1.0 - shape), shape


@compiled
def add_all(
    values: Float64,
    table: Float64,
    scratch: Float64,
    buffer: Float64,
    counters: Int64,
    facts: Float64,
    levels: Float64,
) -> None:
    for i in range(values.shape[0]):
        add(values[i], table, scratch, buffer, counters, facts, levels)


@compiled
def rank_all(
    values: Float64, table: Float64, counters: Int64, facts: Float64, levels: Float64, out: Float64
) -> None:
    for i in range(values.shape[0]):
        out[i] = rank(values[i], table, counters, facts, levels)
