"""Machine code of `worker.models.sampled_scaler`, operation for operation."""

from __future__ import annotations

import math

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.models.compiled import compiled

# Entries of `counters`.
COUNT, NEXT, KEPT = range(3)
# Rows of `scale`.
MEDIAN, SPREAD = range(2)
LOGIT_MAX = 30.0


@compiled
def squash(x: Float64, scale: Float64, has_scale: bool, z: Float64) -> None:
    """Write each feature between 0 and 1 into ``z``; 0.5 before anything was learned."""
    for i in range(x.shape[0]):
        distance = x[i] - scale[MEDIAN, i] if has_scale else 0.0
        logit = distance / (scale[SPREAD, i] if has_scale else 1.0) / 1.5
        z[i] = 1.0 / (1.0 + math.exp(-min(max(logit, -LOGIT_MAX), LOGIT_MAX)))


@compiled
def _mixed(value: np.uint64) -> np.uint64:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _take_scale(kept: Float64, scale: Float64) -> None:
    n = kept.shape[0]
    for i in range(kept.shape[1]):
        ordered = np.sort(kept[:, i])
        spread = (ordered[75 * n // 100] - ordered[25 * n // 100]) / 1.35
        if not spread > 0.0:
            spread = (ordered[95 * n // 100] - ordered[5 * n // 100]) / 3.3
        if not spread > 0.0:
            spread = (ordered[n - 1] - ordered[0]) / 6.0
        scale[MEDIAN, i] = ordered[50 * n // 100] + 0.0  # -0.0 and 0.0 are one
        scale[SPREAD, i] = spread if spread > 0.0 else 1.0


@compiled
def _learn(
    x: Float64, kept: Float64, scale: Float64, counters: Int64, seed: np.uint64, horizon: int
) -> None:
    counters[COUNT] += 1
    count, size = counters[COUNT], kept.shape[0]
    near = min(count, horizon)
    if counters[KEPT] < size:
        kept[counters[KEPT]] = x
        counters[KEPT] += 1
    else:
        place = _mixed(seed + np.uint64(count)) % np.uint64(near)
        if place < np.uint64(size):
            kept[np.int64(place)] = x
    if count >= counters[NEXT]:
        counters[NEXT] = count + max(50 if count >= 50 else 1, near // 8)
        _take_scale(kept[: counters[KEPT]], scale)


@compiled
def scale_learn(
    X: Float64, learn_X: Float64, before: Int64, kept: Float64, scale: Float64, counters: Int64,
    seed: np.uint64, horizon: int, Z: Float64, learn_Z: Float64,
) -> None:  # fmt: skip
    """Fill ``Z`` and ``learn_Z``: each example is learned, then scaled, before its event is."""
    done = 0
    for i in range(X.shape[0] + 1):
        while done < before.shape[0] and before[done] <= i:
            _learn(learn_X[done], kept, scale, counters, seed, horizon)
            squash(learn_X[done], scale, counters[COUNT] > 0, learn_Z[done])
            done += 1
        if i < X.shape[0]:
            squash(X[i], scale, counters[COUNT] > 0, Z[i])
