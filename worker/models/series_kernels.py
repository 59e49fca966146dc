"""Machine code of `worker.models.series`: what one number says against its own past."""

from __future__ import annotations

import math

from worker.contracts.records import Bool, Float64, Int64
from worker.models.compiled import compiled

SHORT = 3.0
"""Values that the fast level holds."""

DRAWN = 8.0
"""Spreads from where a value moves the level no further."""

# Entries of the state of one feature. A peak is the strangest value so far, as it fades.
COUNT, LEVEL, SPREAD, FAST, RESIDUAL, LOW, HIGH, LEVEL_PEAK, RESIDUAL_PEAK = range(9)
NUMBERS = 9


@compiled
def fold(
    X: Float64, usable: Bool, slots: Int64, states: Float64, window: float, warm_up: float,
    scores: Float64, past: Float64,
) -> None:  # fmt: skip
    """Score and then learn each usable row by the state (features, numbers) of its slot.

    ``past`` (rows, features, 2) gets each feature's level before the row, and how unusual it is. A
    slot of -1 and a row that is not usable change nothing; their score is 0.0, their level NaN.
    """
    for i in range(X.shape[0]):
        scores[i] = 0.0
        past[i, :, 0], past[i, :, 1] = math.nan, 0.0
        if usable[i] and slots[i] >= 0:
            state = states[slots[i]]
            for j in range(X.shape[1]):
                if state[j, COUNT] >= warm_up:
                    past[i, j, 0], past[i, j, 1] = state[j, LEVEL], _unusual(X[i, j], state[j])
                    scores[i] = max(scores[i], past[i, j, 1])
            learn(X[i], state, window, warm_up)


@compiled
def score(x: Float64, state: Float64, warm_up: float) -> float:
    """Return how unusual a row is: that of its most unusual feature."""
    most = 0.0
    for j in range(x.shape[0]):
        if state[j, COUNT] >= warm_up:
            most = max(most, _unusual(x[j], state[j]))
    return most


@compiled
def learn(x: Float64, state: Float64, window: float, warm_up: float) -> None:
    """Take one row into the state."""
    for j in range(x.shape[0]):
        _learn(x[j], state[j], window, warm_up)


@compiled
def _unusual(value: float, s: Float64) -> float:
    """Return in [0, 2): distances as shares of themselves and their peaks, and what is beyond the
    range.
    """
    floor = _floor(s)
    level = abs(value - s[LEVEL]) / (s[SPREAD] + floor)
    residual = abs(value - s[FAST]) / (s[RESIDUAL] + floor)
    beyond = max(value - s[HIGH], s[LOW] - value, 0.0) / (s[SPREAD] + floor)
    part = max(_share(level, s[LEVEL_PEAK]), _share(residual, s[RESIDUAL_PEAK]))
    return part + beyond / (beyond + 3.0)  # type: ignore[no-any-return]


@compiled
def _share(value: float, peak: float) -> float:
    return value / (value + peak) if value > 0.0 else 0.0


@compiled
def _floor(s: Float64) -> float:
    """Return the least spread that counts: a thousandth of the range, and what rounding makes."""
    return 0.001 * (s[HIGH] - s[LOW]) + 1e-9 * abs(s[LEVEL]) + 1e-12  # type: ignore[no-any-return]


@compiled
def _learn(value: float, s: Float64, window: float, warm_up: float) -> None:
    if s[COUNT] == 0.0:
        s[COUNT] = 1.0
        s[LEVEL] = s[FAST] = s[LOW] = s[HIGH] = value
        return
    floor = _floor(s)
    spread, usual = s[SPREAD] + floor, s[RESIDUAL] + floor
    off, residual = value - s[LEVEL], value - s[FAST]
    keep = 1.0 - 1.0 / window
    if s[COUNT] > 10.0:  # the first distances are of a spread that means nothing
        s[LEVEL_PEAK] = max(abs(off) / spread, keep * s[LEVEL_PEAK])
        s[RESIDUAL_PEAK] = max(abs(residual) / usual, keep * s[RESIDUAL_PEAK])
    s[COUNT] += 1.0
    rate = 1.0 / min(s[COUNT], window)
    s[FAST] += residual / min(s[COUNT], SHORT)
    if s[COUNT] > warm_up:
        off = math.copysign(min(abs(off), DRAWN * spread), off)
        residual = math.copysign(min(abs(residual), DRAWN * usual), residual)
    s[LEVEL] += rate * off
    s[SPREAD] += rate * (abs(off) - s[SPREAD])
    s[RESIDUAL] += rate * (abs(residual) - s[RESIDUAL])
    s[HIGH] = max(s[HIGH] + rate * (s[LEVEL] - s[HIGH]), value)
    s[LOW] = min(s[LOW] + rate * (s[LEVEL] - s[LOW]), value)
