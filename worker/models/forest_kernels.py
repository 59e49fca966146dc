"""Machine code of `MinMaxScaler | HalfSpaceTrees`, operation for operation as River 0.26 does it.

A tree of height h is a heap of 2 ** (h + 1) - 1 nodes: node i has children 2 i + 1 and 2 i + 2.
All masses are counts below 2 ** 53, so their sums are exact in any order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Bool, Float64, Int64
from worker.models.compiled import compiled

Int32 = NDArray[np.int32]

PADDING = 0.15
"""Share of a range at either end that no split falls in; River's constant."""

# Entries of `counters`.
COUNTER, IS_FIRST_WINDOW, SCALER_SEEN = range(3)


@compiled
def _next_split(node: int, count: int) -> int:
    """Return the inner node after ``node`` in depth-first order; ``count`` when there is none."""
    if 2 * node + 1 < count:
        return 2 * node + 1
    while node > 0 and node % 2 == 0:
        node = (node - 1) // 2
    return node + 1 if node > 0 else count


@compiled
def _narrow(node: int, feature: Int32, threshold: Float64, low: Float64, high: Float64) -> None:
    """Apply to the limits the splits of all ancestors of ``node``, from the root down."""
    depth = 0
    ancestor = node
    while ancestor > 0:
        ancestor = (ancestor - 1) // 2
        depth += 1
    for up in range(depth, 0, -1):
        child = node + 1
        child >>= up - 1  # in 1-based numbering a parent is its child halved
        parent = (child >> 1) - 1
        if child % 2 == 0:
            high[feature[parent]] = threshold[parent]
        else:
            low[feature[parent]] = threshold[parent]


@compiled
def _choose(low: Float64, high: Float64, order: Int64, draw: float, sums: Float64) -> int:
    """Return a column with probability by its range, as random.choices does over ``order``."""
    count = order.shape[0]
    total = 0.0
    for k in range(count):
        gap = high[order[k]] - low[order[k]]
        total = gap if k == 0 else total + gap
        sums[k] = total
    target = draw * (total + 0.0)
    left, right = 0, count - 1
    while left < right:
        middle = (left + right) // 2
        if target < sums[middle]:
            right = middle
        else:
            left = middle + 1
    return order[left]  # type: ignore[no-any-return]  # an element of an array


@compiled
def grow(draws: Float64, order: Int64, limits: Float64, feature: Int32, threshold: Float64) -> None:
    """Build one tree from two uniform draws per inner node, depth first as River draws them.

    ``limits`` has shape (2, f), ``order`` the columns in the order of sorted feature names.
    """
    count = feature.shape[0] // 2  # inner nodes
    sums = np.empty(order.shape[0])
    node = 0
    k = 0
    while node < count:
        low, high = limits[0].copy(), limits[1].copy()
        _narrow(node, feature, threshold, low, high)
        chosen = _choose(low, high, order, draws[k], sums)
        a, b = low[chosen], high[chosen]
        start, end = a + PADDING * (b - a), b - PADDING * (b - a)
        feature[node] = chosen
        threshold[node] = start + (end - start) * draws[k + 1]
        k += 2
        node = _next_split(node, count)


@compiled
def _learn_scaler(x: Float64, low: Float64, high: Float64) -> None:
    for i in range(x.shape[0]):
        if x[i] < low[i]:
            low[i] = x[i]
        if x[i] > high[i]:
            high[i] = x[i]


@compiled
def _scale(x: Float64, low: Float64, high: Float64, z: Float64) -> None:
    for i in range(x.shape[0]):
        gap = high[i] - low[i]
        z[i] = (x[i] - low[i]) / gap if gap != 0.0 else 0.0


@compiled
def _learn(z: Float64, feature: Int32, threshold: Float64, mass: Int32, height: int) -> None:
    """Add one to every node on the path of ``z`` in every tree."""
    for tree in range(feature.shape[0]):
        node = 0
        for _ in range(height):
            mass[tree, node] += 1
            is_left = z[feature[tree, node]] < threshold[tree, node]
            node = 2 * node + 2 - is_left
        mass[tree, node] += 1


@compiled
def _mass_of(
    z: Float64, feature: Int32, threshold: Float64, mass: Int32, height: int, size_limit: float
) -> int:
    """Return the sum over trees of mass times 2 ** depth along the path of ``z``."""
    total = np.int64(0)
    for tree in range(feature.shape[0]):
        node = 0
        depth = 0
        while True:
            here = mass[tree, node]
            total += np.int64(here) << depth
            if depth == height or here < size_limit:
                break
            is_left = z[feature[tree, node]] < threshold[tree, node]
            node = 2 * node + 2 - is_left
            depth += 1
    return total  # type: ignore[return-value]  # numba has one integer type


@compiled
def score_learn(
    X: Float64,
    scorable: Bool,
    learn_X: Float64,
    before: Int64,
    ranges: Float64,
    feature: Int32,
    threshold: Float64,
    recent: Int32,
    reference: Int32,
    counters: Int64,
    height: int,
    window_size: int,
    z: Float64,
    scores: Float64,
) -> None:
    """Fill ``scores``: NaN where an event is not scorable. All state arrays change in place.

    ``ranges`` (2, f) holds minima and maxima; ``recent`` counts the running window (River's
    l_mass), ``reference`` the last full one (r_mass). ``learn_X`` holds the usable examples only.
    """
    size_limit = 0.1 * window_size
    nodes = (1 << (height + 1)) - 1
    score_max = float(feature.shape[0] * window_size * nodes)
    done = 0
    for i in range(X.shape[0] + 1):
        while done < before.shape[0] and before[done] <= i:
            _learn_scaler(learn_X[done], ranges[0], ranges[1])
            _scale(learn_X[done], ranges[0], ranges[1], z)
            _learn(z, feature, threshold, recent, height)
            counters[SCALER_SEEN] = 1
            counters[COUNTER] += 1
            if counters[COUNTER] == window_size:
                reference[:] = recent
                recent[:] = 0
                counters[IS_FIRST_WINDOW] = 0
                counters[COUNTER] = 0
            done += 1
        if i == X.shape[0]:
            break
        if not scorable[i]:
            scores[i] = math.nan
            continue
        counters[SCALER_SEEN] = 1
        if counters[IS_FIRST_WINDOW]:
            scores[i] = 0.0
            continue
        _scale(X[i], ranges[0], ranges[1], z)
        mass = _mass_of(z, feature, threshold, reference, height, size_limit)
        scores[i] = 1.0 - mass / score_max
