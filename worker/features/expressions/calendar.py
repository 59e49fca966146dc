"""The calendar of an event's time, in a time zone."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Int64
from worker.features.expressions.function import Function
from worker.features.expressions.values import MISSING, Values, truth
from worker.features.expressions.zones import Zone

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


def hour(time_ms: Int64) -> Int64:
    """Return the hour of the day, 0 to 23.

    >>> hour(np.array([0, 86_399_999]))
    array([ 0, 23])
    """
    return time_ms % _DAY_MS // _HOUR_MS


def weekday(time_ms: Int64) -> Int64:
    """Return the day of the week, 0 for Monday. The epoch began on a Thursday.

    >>> weekday(np.array([0]))
    array([3])
    """
    return (time_ms // _DAY_MS + 3) % 7


def day(time_ms: Int64) -> Int64:
    """Return the day of the month, 1 to 31.

    >>> day(np.array([0, 31 * 86_400_000]))
    array([1, 1])
    """
    days = (time_ms // _DAY_MS).astype("datetime64[D]")
    months = days.astype("datetime64[M]").astype("datetime64[D]")
    return np.asarray((days - months).astype(np.int64) + 1)


class _Calendar(Function):
    takes_zone = True
    forms = ((("time",), "number"), (("time", "zone"), "number"))


class Hour(_Calendar):
    """Hour of the day, 0 to 23, in the time zone.

    >>> from worker.features.expressions.zones import UTC
    >>> Hour.of(3_600_000, UTC)
    1.0
    """

    name = "hour"
    words = "hour of the day"

    @staticmethod
    def of(time_ms: int, zone: Zone) -> float:
        """Return the hour of one time."""
        return float(hour(zone.local(np.array([time_ms])))[0])

    @staticmethod
    def run(time_ms: Values, zone: Zone) -> Values:
        """Return the hour of each time."""
        return _dated(time_ms, hour(zone.local(np.asarray(time_ms))))

    @classmethod
    def classes(cls, constants: tuple[float, ...]) -> tuple[str, ...]:
        """Return the hours."""
        return tuple(map(str, range(24)))


class Weekday(_Calendar):
    """Day of the week in the time zone, 0 for Monday.

    >>> from worker.features.expressions.zones import UTC
    >>> Weekday.of(0, UTC)
    3.0
    """

    name = "weekday"
    words = "day of the week (0 is Monday)"

    @staticmethod
    def of(time_ms: int, zone: Zone) -> float:
        """Return the weekday of one time."""
        return float(weekday(zone.local(np.array([time_ms])))[0])

    @staticmethod
    def run(time_ms: Values, zone: Zone) -> Values:
        """Return the weekday of each time."""
        return _dated(time_ms, weekday(zone.local(np.asarray(time_ms))))

    @classmethod
    def classes(cls, constants: tuple[float, ...]) -> tuple[str, ...]:
        """Return the days."""
        return ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Day(_Calendar):
    """Day of the month in the time zone, 1 to 31.

    >>> from worker.features.expressions.zones import UTC
    >>> Day.of(0, UTC)
    1.0
    """

    name = "day"
    words = "day of the month"

    @staticmethod
    def of(time_ms: int, zone: Zone) -> float:
        """Return the day of one time."""
        return float(day(zone.local(np.array([time_ms])))[0])

    @staticmethod
    def run(time_ms: Values, zone: Zone) -> Values:
        """Return the day of each time."""
        return _dated(time_ms, day(zone.local(np.asarray(time_ms))))


class IsNight(_Calendar):
    """Whether the hour is 0 to 6 in the time zone, that is 00:00 to 06:59.

    Source: Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection,
    chapter 3, "Baseline feature transformation": hour <= 6.

    >>> from worker.features.expressions.zones import UTC
    >>> IsNight.of(6 * 3_600_000, UTC), IsNight.of(7 * 3_600_000, UTC)
    (True, False)
    """

    name = "is_night"
    forms = ((("time",), "boolean"), (("time", "zone"), "boolean"))
    words = "at night, 00:00 to 06:59"

    @staticmethod
    def of(time_ms: int, zone: Zone) -> bool:
        """Return whether one time is at night."""
        return Hour.of(time_ms, zone) <= 6

    @staticmethod
    def run(time_ms: Values, zone: Zone) -> Values:
        """Return whether each time is at night."""
        hours = Hour.run(time_ms, zone)
        return truth(hours <= 6, np.isnan(hours))


class IsWeekend(_Calendar):
    """Whether it is Saturday or Sunday in the time zone.

    >>> from worker.features.expressions.zones import UTC
    >>> IsWeekend.of(0, UTC), IsWeekend.of(2 * 86_400_000, UTC)
    (False, True)
    """

    name = "is_weekend"
    forms = ((("time",), "boolean"), (("time", "zone"), "boolean"))
    words = "at the weekend"

    @staticmethod
    def of(time_ms: int, zone: Zone) -> bool:
        """Return whether one time is at the weekend."""
        return Weekday.of(time_ms, zone) >= 5

    @staticmethod
    def run(time_ms: Values, zone: Zone) -> Values:
        """Return whether each time is at the weekend."""
        days = Weekday.run(time_ms, zone)
        return truth(days >= 5, np.isnan(days))


def _dated(time_ms: Values, found: Values) -> Values:
    return np.where(np.asarray(time_ms) == MISSING, np.nan, found)
