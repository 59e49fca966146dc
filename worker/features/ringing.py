"""What is defined over the events of a ring: by place and by order, not by sums.

An op reads the events ``begin`` to before ``until`` of a slot's ring, of one recorded column, which
is row 1 + f. Missing values are as if the event were not there.
"""

from __future__ import annotations

import math

from worker.contracts.records import Float64, Int64
from worker.features.codes import (
    DISTANCE,
    FIRST,
    FIRST_SEEN,
    LAST,
    MEAN_LAST,
    MISSING,
    RANK,
    RATIO,
    SINCE_LAST,
    STREAK,
    SUM_LAST,
    TOP_SHARE,
    ZSCORE,
)
from worker.features.compiling import helper, outlined
from worker.features.elementary import great_circle_km

SPREAD_OF_MAD = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""

HOUR_MS = 3_600_000
SPEED_MS_MIN = 1_000
"""Shortest time that a speed is taken over: clocks of terminals are no better."""


@outlined
def read_ring(
    ops: Int64,
    scales: Float64,
    first: int,
    end: int,
    ring: Int64,
    order: Int64,
    slot: int,
    size: int,
    now: int,
    t: int,
    own: Int64,
    X: Float64,
    e: int,
) -> None:
    """Write the features of ring ops ``first`` to before ``end`` for an event of time t."""
    for r in range(first, end):
        size_ms, newest = ops[r, 4], now - ops[r, 5]
        until = size
        while until > 0 and ring[slot, 0, until - 1] > newest:
            until -= 1
        begin = 0
        while size_ms > 0 and begin < until and ring[slot, 0, begin] <= newest - size_ms:
            begin += 1
        X[e, ops[r, 3]] = _value_of(ops, scales, r, ring, order, slot, begin, until, now, t, own, e)


@helper
def _value_of(
    ops: Int64,
    scales: Float64,
    r: int,
    ring: Int64,
    order: Int64,
    slot: int,
    begin: int,
    until: int,
    now: int,
    t: int,
    own: Int64,
    e: int,
) -> float:
    """Return what one op reads of a part of the ring."""
    code, f, other, last = ops[r, 0], ops[r, 1], ops[r, 2], ops[r, 6]
    parameter = scales[r, 2]
    if code in (FIRST, LAST, MEAN_LAST, SUM_LAST):
        ends = _mean_of_end(ring, slot, 1 + f, begin, until, code, last)
        return float(ends * scales[r, 0] / scales[r, 1])
    if code == TOP_SHARE:
        return _top_share(ring, slot, 1 + f, begin, until)
    if code in (FIRST_SEEN, RANK):
        return _place_of(ring, slot, 1 + f, begin, until, own[e, f], code)
    if code == RATIO:
        return _ratio_to(ring, order, slot, 1 + f, begin, until, own[e, f], parameter)
    if code == ZSCORE:
        return zscore_of(ring, order, slot, 1 + f, begin, until, own[e, f], parameter)
    if code == SINCE_LAST:
        while until > begin and ring[slot, 1 + f, until - 1] == MISSING:
            until -= 1
        return float(now - ring[slot, 0, until - 1]) / 1000.0 if until > begin else -1.0
    if code == STREAK:
        return _streak(ring, slot, 1 + f, begin, until, parameter)
    return _distance(ring, slot, f, other, begin, until, t, own, e, code)


@helper
def distinct_of(ring: Int64, slot: int, row: int, begin: int, until: int) -> float:
    """Return how many different values there are."""
    count = 0
    for i in range(begin, until):
        v = ring[slot, row, i]
        new = v != MISSING
        for j in range(begin, i):
            new &= ring[slot, row, j] != v
        count += new
    return float(count)


@helper
def _mean_of_end(
    ring: Int64,
    slot: int,
    row: int,
    begin: int,
    until: int,
    code: int,
    last: int,
) -> float:
    """Return the first value, the last one, or mean or sum of the last few; 0.0 without any."""
    total, count, wanted = 0, 0, max(last, 1)
    for k in range(until - begin):
        v = ring[slot, row, begin + k if code == FIRST else until - 1 - k]
        if v != MISSING and count < wanted:
            total += v
            count += 1
    return float(total) if code == SUM_LAST else total / max(count, 1)


@helper
def _top_share(ring: Int64, slot: int, row: int, begin: int, until: int) -> float:
    """Return the share of the commonest value."""
    known, most = 0, 0
    for i in range(begin, until):
        v = ring[slot, row, i]
        if v == MISSING:
            continue
        known += 1
        same = 0
        for j in range(begin, until):
            same += ring[slot, row, j] == v
        most = max(most, same)
    return most / known if known else 0.0


@helper
def _place_of(
    ring: Int64, slot: int, row: int, begin: int, until: int, own: int, code: int
) -> float:
    """Return whether a value is new, or its rank: the share below it and half of its equals."""
    known, below, equal = 0, 0, 0
    for i in range(begin, until):
        v = ring[slot, row, i]
        known += v != MISSING
        below += v != MISSING and v < own
        equal += v == own
    if code == FIRST_SEEN:
        return 1.0 if own != MISSING and equal == 0 else 0.0
    return (below + 0.5 * equal) / known if known and own != MISSING else 0.5


@helper
def _ratio_to(
    ring: Int64,
    order: Int64,
    slot: int,
    row: int,
    begin: int,
    until: int,
    own: int,
    robust: float,
) -> float:
    """Return a value over the mean (or median); 1.0 where there is none, or it is zero."""
    if own == MISSING:
        return 1.0
    if robust:
        known = _sort(ring, order, slot, row, begin, until, 0, False)
        twice = _twice_median(order, known)
        return 2.0 * own / twice if known and twice else 1.0
    total, known = 0, 0
    for i in range(begin, until):
        v = ring[slot, row, i]
        if v != MISSING:
            total += v
            known += 1
    return float(own) * known / total if total else 1.0


@outlined
def zscore_of(
    ring: Int64,
    order: Int64,
    slot: int,
    row: int,
    begin: int,
    until: int,
    own: int,
    robust: float,
) -> float:
    """Return how many spreads a value is above the mean (or median); 0.0 without a spread."""
    if own == MISSING:
        return 0.0
    if robust:
        known = _sort(ring, order, slot, row, begin, until, 0, False)
        twice = _twice_median(order, known)
        _sort(ring, order, slot, row, begin, until, twice, True)
        spread = SPREAD_OF_MAD * _twice_median(order, known) / 4.0
        return (own - twice / 2.0) / spread if known and spread > 0.0 else 0.0
    total, known = 0, 0
    for i in range(begin, until):
        v = ring[slot, row, i]
        if v != MISSING:
            total += v
            known += 1
    if known < 2:
        return 0.0
    reference = total // known
    distance, square = 0, 0.0
    for i in range(begin, until):
        v = ring[slot, row, i]
        if v != MISSING:
            distance += v - reference
            square += float(v - reference) * float(v - reference)
    std = math.sqrt(max(square - float(distance) * distance / known, 0.0) / (known - 1))
    return ((own - reference) - distance / known) / std if std > 0.0 else 0.0


@helper
def _sort(
    ring: Int64,
    order: Int64,
    slot: int,
    row: int,
    begin: int,
    until: int,
    twice: int,
    distances: bool,
) -> int:
    """Put the known values (or their distances from half of ``twice``, doubled) in order; return
    how many they are.
    """
    known = 0
    for i in range(begin, until):
        v = ring[slot, row, i]
        if v == MISSING:
            continue
        v = abs(2 * v - twice) if distances else v
        to = known
        while to > 0 and order[to - 1] > v:
            order[to] = order[to - 1]
            to -= 1
        order[to] = v
        known += 1
    return known


@helper
def _twice_median(order: Int64, known: int) -> int:
    """Return twice the median of so many ordered numbers, 0 of none."""
    if known == 0:
        return 0
    return int(order[known // 2] + order[(known - 1) // 2])


@helper
def _streak(ring: Int64, slot: int, row: int, begin: int, until: int, gap_ms: float) -> float:
    """Return how many of the newest events follow each other within a gap."""
    count, later = 0, -1
    for k in range(until - begin):
        i = until - 1 - k
        if row > 0 and ring[slot, row, i] == MISSING:
            continue
        if count > 0 and later - ring[slot, 0, i] > gap_ms:
            break
        later = ring[slot, 0, i]
        count += 1
    return float(count)


@helper
def _distance(
    ring: Int64,
    slot: int,
    a: int,
    b: int,
    begin: int,
    until: int,
    t: int,
    own: Int64,
    e: int,
    code: int,
) -> float:
    """Return the distance from the newest place, or the speed that it takes; 0.0 without one."""
    while until > begin and (
        ring[slot, 1 + a, until - 1] == MISSING or ring[slot, 1 + b, until - 1] == MISSING
    ):
        until -= 1
    if until == begin or own[e, a] == MISSING or own[e, b] == MISSING:
        return 0.0
    last = until - 1
    km = great_circle_km(ring[slot, 1 + a, last], ring[slot, 1 + b, last], own[e, a], own[e, b])
    if code == DISTANCE:
        return km
    elapsed_ms = max(abs(t - int(ring[slot, 0, last])), SPEED_MS_MIN)
    return km * HOUR_MS / elapsed_ms
