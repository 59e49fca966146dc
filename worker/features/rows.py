"""Features of the event alone: own fields, categories and the calendar of its time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worker.contracts.records import Events, Float64, Int64
from worker.features.feature import Feature

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


def hour(time_ms: Int64) -> Int64:
    """Return the hour of the day, 0 to 23, UTC.

    >>> hour(np.array([0, 86_399_999]))
    array([ 0, 23])
    """
    return time_ms % _DAY_MS // _HOUR_MS


def weekday(time_ms: Int64) -> Int64:
    """Return the day of the week, 0 for Monday, UTC. The epoch began on a Thursday.

    >>> weekday(np.array([0]))
    array([3])
    """
    return (time_ms // _DAY_MS + 3) % 7


def is_night(time_ms: Int64) -> Int64:
    """Return 1 from 00:00 to 06:59 UTC, else 0.

    Source: Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection,
    chapter 3, "Baseline feature transformation": hour <= 6.

    >>> is_night(np.array([6 * 3_600_000, 7 * 3_600_000]))
    array([1, 0])
    """
    return (hour(time_ms) <= 6).astype(np.int64)


def is_weekend(time_ms: Int64) -> Int64:
    """Return 1 on Saturday and Sunday, UTC, else 0.

    >>> is_weekend(np.array([86_400_000, 2 * 86_400_000]))
    array([0, 1])
    """
    return (weekday(time_ms) >= 5).astype(np.int64)


CALENDAR_FUNCTIONS: dict[str, Callable[[Int64], Int64]] = {
    "hour": hour,
    "weekday": weekday,
    "is_night": is_night,
    "is_weekend": is_weekend,
}


def write_rows(features: tuple[Feature, ...], events: Events, X: Float64) -> None:
    """Write the columns of X that need nothing but the event itself."""
    for column, feature in enumerate(features):
        if feature.entity is not None:
            continue
        if feature.field is None:
            X[:, column] = CALENDAR_FUNCTIONS[feature.aggregation](events.time_ms)
            continue
        values = events.columns[feature.field]
        assert isinstance(values, np.ndarray), feature.field
        if feature.category is not None:
            X[:, column] = values == feature.category
        else:
            X[:, column] = values * feature.multiply / feature.divide
