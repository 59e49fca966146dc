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

UInt16 = NDArray[np.uint16]

PADDING = 0.15
"""Share of a range at either end that no split falls in; River's constant."""

# Entries of `counters`.
COUNTER, IS_FIRST_WINDOW, SCALER_SEEN, WINDOW = range(4)

# Columns of a node: the threshold in `nodes`, the others in `whole`, which is the same memory as
# uint16. RECENT counts the running window (River's l_mass), REFERENCE the last full one (r_mass);
# both are of the window STAMP, and a node that was not touched since is brought up when it is.
# So the end of a window touches no node, which was most of the time of large forests; the rest is
# waiting for memory, so a node is small.
THRESHOLD = 0
FEATURE, STAMP, RECENT, REFERENCE = 4, 5, 6, 7
NODE_BYTES = 16
# Rows of `places`: the node that a row has come to, its event (-1: not scored), whether it is
# learned, whether masses still count, their sum.
PLACE, EVENT, LEARNS, COUNTS, TOTAL = range(5)
ROWS = 128
"""Rows that go through the trees together."""
UINT16_MAX = (1 << 16) - 1


@compiled
def _next_split(node: int, count: int) -> int:
    """Return the inner node after ``node`` in depth-first order; ``count`` when there is none."""
    if 2 * node + 1 < count:
        return 2 * node + 1
    while node > 0 and node % 2 == 0:
        node = (node - 1) // 2
    return node + 1 if node > 0 else count


@compiled
def _narrow(node: int, nodes: Float64, whole: UInt16, low: Float64, high: Float64) -> None:
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
            high[whole[parent, FEATURE]] = nodes[parent, THRESHOLD]
        else:
            low[whole[parent, FEATURE]] = nodes[parent, THRESHOLD]


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
def grow(draws: Float64, order: Int64, limits: Float64, nodes: Float64, whole: UInt16) -> None:
    """Build one tree from two uniform draws per inner node, depth first as River draws them.

    ``limits`` has shape (2, f), ``order`` the columns in the order of sorted feature names.
    """
    count = nodes.shape[0] // 2  # inner nodes
    sums, low, high = np.empty((3, order.shape[0]))
    node = 0
    k = 0
    while node < count:
        low[:], high[:] = limits[0], limits[1]
        _narrow(node, nodes, whole, low, high)
        chosen = _choose(low, high, order, draws[k], sums)
        a, b = low[chosen], high[chosen]
        start, end = a + PADDING * (b - a), b - PADDING * (b - a)
        whole[node, FEATURE] = chosen
        nodes[node, THRESHOLD] = start + (end - start) * draws[k + 1]
        k += 2
        node = _next_split(node, count)


@compiled
def _learn_scaler(x: Float64, low: Float64, high: Float64) -> bool:
    """Widen the ranges; return whether one changed."""
    grew = False
    for i in range(x.shape[0]):
        if x[i] < low[i]:
            low[i] = x[i]
            grew = True
        if x[i] > high[i]:
            high[i] = x[i]
            grew = True
    return grew


@compiled
def scale(x: Float64, low: Float64, high: Float64, z: Float64) -> None:
    for i in range(x.shape[0]):
        gap = high[i] - low[i]
        z[i] = (x[i] - low[i]) / gap if gap != 0.0 else 0.0


@compiled
def _settle(whole: UInt16, p: int, window: int) -> None:
    """Bring the masses of one node up to the running window, as if it had been pivoted in time."""
    behind = window - whole[p, STAMP]
    if behind > 0:
        whole[p, REFERENCE] = whole[p, RECENT] if behind == 1 else 0
        whole[p, RECENT] = 0
        whole[p, STAMP] = window


@compiled
def _walk(
    Z: Float64, count: int, nodes: Float64, whole: UInt16, tree: int, height: int, window: int,
    size_limit: float, places: Int64,
) -> None:  # fmt: skip
    """Take the rows of ``Z`` down one tree: score, learn, or both, which is one way.

    Rows take a step each in turn: memory then works on all their next nodes at once, and a tree
    stays in the cache until all rows are through. Row TOTAL gains mass times 2 ** depth.
    """
    first = tree * ((1 << (height + 1)) - 1)
    for row in range(count):
        places[PLACE, row] = first
        places[COUNTS, row] = places[EVENT, row] >= 0
    for depth in range(height + 1):
        for row in range(count):
            p = places[PLACE, row]
            if p < 0:
                continue
            behind = window - whole[p, STAMP]
            mass = whole[p, REFERENCE] if behind == 0 else whole[p, RECENT] if behind == 1 else 0
            places[TOTAL, row] += (np.int64(mass) << depth) * places[COUNTS, row]
            places[COUNTS, row] &= mass >= size_limit
            if places[LEARNS, row]:
                whole[p, RECENT] = whole[p, RECENT] + 1 if behind == 0 else 1
                whole[p, REFERENCE] = mass
                whole[p, STAMP] = window
            elif not places[COUNTS, row]:
                places[PLACE, row] = -1
                continue
            if depth < height:
                is_left = Z[row, whole[p, FEATURE]] < nodes[p, THRESHOLD]
                places[PLACE, row] = 2 * p - first + 2 - is_left


@compiled
def settle(whole: UInt16, window: int) -> None:
    """Bring the masses of all nodes up to the running window, which becomes number 0."""
    for p in range(whole.shape[0]):
        _settle(whole, p, window)
        whole[p, STAMP] = 0


@compiled
def masses(whole: UInt16, trees: int, window: int, places: Int64, found: UInt16) -> int:
    """Write the places and masses of all nodes that have one, depth first; return their number.

    Only these and their children are looked at: below a node without mass there is none.
    """
    size = whole.shape[0] // trees
    count = 0
    for tree in range(trees):
        node = 0
        while node < size:
            p = tree * size + node
            _settle(whole, p, window)
            is_massive = whole[p, RECENT] != 0 or whole[p, REFERENCE] != 0
            if is_massive:
                places[count] = p
                found[count, 0], found[count, 1] = whole[p, RECENT], whole[p, REFERENCE]
                count += 1
            if is_massive and 2 * node + 1 < size:
                node = 2 * node + 1
                continue
            while node > 0 and node % 2 == 0:
                node = (node - 1) // 2
            node = node + 1 if node > 0 else size
    return count


@compiled
def score_learn(
    X: Float64,
    scorable: Bool,
    learn_X: Float64,
    before: Int64,
    ranges: Float64,
    nodes: Float64,
    whole: UInt16,
    counters: Int64,
    trees: int,
    height: int,
    window_size: int,
    Z: Float64,
    places: Int64,
    scores: Float64,
) -> None:
    """Fill ``scores``: NaN where an event is not scorable. All state arrays change in place.

    ``ranges`` (2, f) holds minima and maxima; ``nodes`` and ``whole`` are two views of the same
    memory, a row per node. ``learn_X`` holds the usable examples only. Scratch: ``Z`` (r, f) and
    ``places`` (5, r). What is learned in a window counts from its end on, so within one window the
    order in which rows meet trees does not matter: up to r of them wait, scaled. An event that is
    learned right after it was scored goes its way once.
    """
    done, count, most = 0, 0, Z.shape[0]
    is_fresh = False  # whether the last row that waits was scaled by the ranges as they are
    for i in range(X.shape[0] + 1):
        while done < before.shape[0] and before[done] <= i:
            x = learn_X[done]
            grew = _learn_scaler(x, ranges[0], ranges[1])
            if is_fresh and not grew and _is_same(x, X[places[EVENT, count - 1]]):
                places[LEARNS, count - 1] = 1
            else:
                if count == most:
                    _pass(Z, count, nodes, whole, trees, height, counters[WINDOW], window_size,
                          places, scores)  # fmt: skip
                    count = 0
                scale(x, ranges[0], ranges[1], Z[count])
                places[EVENT, count], places[LEARNS, count] = -1, 1
                count += 1
            is_fresh = False
            done += 1
            counters[SCALER_SEEN] = 1
            counters[COUNTER] += 1
            if counters[COUNTER] == window_size:
                _pass(Z, count, nodes, whole, trees, height, counters[WINDOW], window_size,
                      places, scores)  # fmt: skip
                count = 0
                _end_window(whole, counters)
        if i == X.shape[0]:
            break
        if not scorable[i]:
            scores[i] = math.nan
            continue
        counters[SCALER_SEEN] = 1
        if counters[IS_FIRST_WINDOW]:
            scores[i] = 0.0
            continue
        if count == most:
            _pass(Z, count, nodes, whole, trees, height, counters[WINDOW], window_size,
                  places, scores)  # fmt: skip
            count = 0
        scale(X[i], ranges[0], ranges[1], Z[count])
        places[EVENT, count], places[LEARNS, count] = i, 0
        count += 1
        is_fresh = True
    _pass(Z, count, nodes, whole, trees, height, counters[WINDOW], window_size, places, scores)


@compiled
def _is_same(x: Float64, other: Float64) -> bool:
    for i in range(x.shape[0]):  # noqa: SIM110  # numba knows no generator expressions
        if x[i] != other[i]:
            return False
    return True


@compiled
def _end_window(whole: UInt16, counters: Int64) -> None:
    counters[WINDOW] += 1
    if counters[WINDOW] == UINT16_MAX:
        settle(whole, counters[WINDOW])
        counters[WINDOW] = 0
    counters[IS_FIRST_WINDOW] = 0
    counters[COUNTER] = 0


@compiled
def _pass(
    Z: Float64, count: int, nodes: Float64, whole: UInt16, trees: int, height: int, window: int,
    window_size: int, places: Int64, scores: Float64,
) -> None:  # fmt: skip
    """Take the rows that wait through all trees, one tree after the other."""
    score_max = float(trees * window_size * ((1 << (height + 1)) - 1))
    for row in range(count):
        places[TOTAL, row] = 0
    for tree in range(trees):
        _walk(Z, count, nodes, whole, tree, height, window, 0.1 * window_size, places)
    for row in range(count):
        if places[EVENT, row] >= 0:
            scores[places[EVENT, row]] = 1.0 - places[TOTAL, row] / score_max
