"""Machine code of `worker.models.distance`: a mean and a covariance that forget, kept robust.

Everything is in standardised coordinates: a feature minus its median, over its spread, both of the
warm-up. Loops run along rows, so that they are vectorised without a sum in another order.
"""

from __future__ import annotations

import math

import numpy as np

from worker.contracts.records import Bool, Float64, Int64
from worker.models.compiled import compiled

REFRESH = 32
"""Examples from one factor of the covariance to the next."""

RIDGE = 1e-3
"""Variance that every direction has at least, in squared spreads of the warm-up."""

FAR = 1e9
"""Spreads beyond which all distances of a feature are the same."""

# Rows of `places`: the scale of each feature and the mean on it, then scratch.
MEDIAN, SPREAD, MEAN, Z, REST = range(5)
# Entries of `counters`.
COUNT, IS_STARTED = range(2)


@compiled
def score_learn(
    X: Float64,
    scorable: Bool,
    learn_X: Float64,
    before: Int64,
    window: int,
    kept: Float64,
    places: Float64,
    covariance: Float64,
    factor: Float64,
    counters: Int64,
    scores: Float64,
) -> None:
    """Fill ``scores``: NaN where an event is not scorable, 0.0 during the warm-up.

    ``kept`` (warm_up, f) holds the examples of the warm-up; ``covariance`` and ``factor`` (f, f)
    use their upper triangles.
    """
    done = 0
    for i in range(X.shape[0] + 1):
        while done < before.shape[0] and before[done] <= i:
            if counters[IS_STARTED]:
                _learn(learn_X[done], window, places, covariance, factor, counters)
            else:
                _keep(learn_X[done], window, kept, places, covariance, factor, counters)
            done += 1
        if i == X.shape[0]:
            break
        if not scorable[i]:
            scores[i] = math.nan
        elif not counters[IS_STARTED]:
            scores[i] = 0.0
        else:
            scores[i] = math.sqrt(_squared(X[i], places, factor) / X.shape[1])


@compiled
def _squared(x: Float64, places: Float64, factor: Float64) -> float:
    """Return the squared distance of x from the mean; row Z becomes its deviation."""
    f = x.shape[0]
    z, rest = places[Z], places[REST]
    for j in range(f):
        scaled = (x[j] - places[MEDIAN, j]) / places[SPREAD, j]
        z[j] = min(max(scaled, -FAR), FAR) - places[MEAN, j]
        rest[j] = z[j]
    total = 0.0
    for j in range(f):
        part = rest[j] / factor[j, j]
        total += part * part
        row = factor[j]
        for k in range(j + 1, f):
            rest[k] -= part * row[k]
    return total


@compiled
def _learn(
    x: Float64, window: int, places: Float64, covariance: Float64, factor: Float64, counters: Int64
) -> None:
    """Move mean and covariance towards x, which is first drawn in to the usual distance."""
    f = x.shape[0]
    squared = _squared(x, places, factor)
    most = f + 3.0 * math.sqrt(2.0 * f)
    drawn = 1.0 if squared <= most else math.sqrt(most / squared)
    counters[COUNT] += 1
    rate = 1.0 / min(counters[COUNT], window)
    z = places[Z]
    for j in range(f):
        z[j] *= drawn
        places[MEAN, j] += rate * z[j]
    for j in range(f):
        row, share = covariance[j], rate * z[j]
        for k in range(j, f):
            row[k] = (1.0 - rate) * (row[k] + share * z[k])
    if counters[COUNT] % REFRESH == 0:
        _refresh(covariance, factor)


@compiled
def _refresh(covariance: Float64, factor: Float64) -> None:
    """Make the upper factor U of the covariance and the ridge: U' U (Cholesky)."""
    f = covariance.shape[0]
    for j in range(f):
        for k in range(j, f):
            factor[j, k] = covariance[j, k]
        factor[j, j] += RIDGE
    for j in range(f):
        top = factor[j]
        pivot = math.sqrt(max(top[j], 0.5 * RIDGE))
        top[j] = pivot
        for k in range(j + 1, f):
            top[k] /= pivot
        for i in range(j + 1, f):
            row, share = factor[i], top[i]
            for k in range(i, f):
                row[k] -= share * top[k]


@compiled
def _keep(
    x: Float64,
    window: int,
    kept: Float64,
    places: Float64,
    covariance: Float64,
    factor: Float64,
    counters: Int64,
) -> None:
    """Keep an example of the warm-up; with the last one make the scale and learn all of them."""
    count = counters[COUNT]
    kept[count] = x
    counters[COUNT] += 1
    if counters[COUNT] < kept.shape[0]:
        return
    for j in range(kept.shape[1]):
        places[MEDIAN, j], places[SPREAD, j] = _scale(np.sort(kept[:, j]))
        covariance[j, j] = 1.0
    _refresh(covariance, factor)
    counters[IS_STARTED] = 1
    for i in range(kept.shape[0]):
        _learn(kept[i], window, places, covariance, factor, counters)
    kept[:] = 0.0


@compiled
def _scale(ordered: Float64) -> tuple[float, float]:
    """Return median and spread, as a standard deviation; of the tails where the middle has none."""
    n = ordered.shape[0]
    spread = (ordered[75 * n // 100] - ordered[25 * n // 100]) / 1.35
    if not spread > 0.0:
        spread = (ordered[95 * n // 100] - ordered[5 * n // 100]) / 3.3
    if not spread > 0.0:
        spread = (ordered[n - 1] - ordered[0]) / 6.0
    return ordered[n // 2], (spread if spread > 1e-250 else 1.0)
