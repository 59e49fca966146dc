"""This event's value against the entity's own history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from worker.features import codes
from worker.features.aggregations.base import (
    Aggregation,
    Field,
    Options,
    Past,
    Reads,
    Source,
    source_of,
)
from worker.features.aggregations.windowed import std_of

SPREAD_OF_MAD = 1.4826


class _Comparison(Aggregation):
    """Base of what compares with a mean and a spread, or with a median and the MAD."""

    each = "ring"
    options = ("delay", "include_current", "over", "robust", "where")
    include_current = False
    compares = True
    window_code = -1

    @classmethod
    def reads_of(cls, options: Options) -> Reads:
        """Return the window and its tiles where only moments are asked of it."""
        return "window" if options.window_ms and not options.robust else "ring"

    @classmethod
    def code_of(cls, options: Options) -> int:
        """Return the op for where it reads."""
        return cls.window_code if cls.reads_of(options) == "window" else cls.code

    @classmethod
    def parameter(cls, options: Options) -> float:
        """Return whether it is by the median."""
        return float(options.robust)


class Ratio(_Comparison):
    """This value over the mean of the entity's earlier ones (``robust``: their median).

    Over the window where one is given, else over the ring; the median is always of the ring, in the
    window. 1.0, as usual, where the value is missing, where there is no other, and where the mean
    is zero. Rounded twice. Error beyond the ring: that of `mean`. Cost: O(ring + 12), robust
    O(ring²).

    >>> Ratio.of(Past([10.0, 20.0], own=30.0)), Ratio.of(Past([], own=30.0))
    (2.0, 1.0)
    """

    name = "ratio"
    empty = 1.0
    code = codes.RATIO
    window_code = codes.WINDOW_RATIO
    tolerance = 1e-15
    words = "{field} over the mean of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return v / centre."""
        if past.own is None or not past.known:
            return 1.0
        centre = _centre(past)
        return float(past.own / centre) if centre else 1.0

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the ratios to the smallest and the greatest value, unbounded around zero."""
        if wide.own is None or not wide.known:
            return 1.0, 1.0
        least, most = float(min(wide.known)), float(max(wide.known))
        if least <= 0.0 <= most:
            return -math.inf, math.inf
        ends = float(wide.own) / least, float(wide.own) / most
        return min(ends), max(ends)


class Zscore(_Comparison):
    """(v − mean) / std of the entity's earlier values (``robust``: median, and 1.4826 MAD).

    Over the window where one is given, else over the ring; median and MAD are always of the ring,
    in the window. 0.0 where the value is missing, where there are fewer than two others, and where
    they are all alike. Relative error of a few 1e-15. Error beyond the ring: mean and std are those
    of some share of the values in tiles cut by an edge, besides those surely in the window. Cost:
    O(ring + 12), robust O(ring²).

    >>> round(Zscore.of(Past([1.0, 3.0], own=4.0)), 6), Zscore.of(Past([1.0], own=4.0))
    (1.414214, 0.0)
    """

    name = "zscore"
    code = codes.ZSCORE
    window_code = codes.WINDOW_ZSCORE
    keeps = ("squares",)
    tolerance = 1e-13
    words = "{field} in standard deviations above the mean of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return (v − centre) / spread."""
        if past.own is None or not past.known:
            return 0.0
        spread = _spread(past)
        return float(past.own - _centre(past)) / spread if spread else 0.0

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the least and the greatest of any share of what the edges cut."""
        if wide.own is None or not wide.known:
            return 0.0, 0.0
        cut = list(wide.known)
        for v in sure.known:
            cut.remove(v)
        low = _least_mean(sure.known, cut)
        high = -_least_mean([-v for v in sure.known], [-v for v in cut])
        distances = [float(wide.own - low), float(wide.own - high)]
        least = math.sqrt(_squares(sure) / max(len(wide.known) - 1, 1))
        most = math.sqrt(_squares(wide) / max(len(sure.known) - 1, 1))
        if most == 0.0:
            return 0.0, 0.0
        ends = [distance / most for distance in distances]
        if least > 0.0:
            ends += [distance / least for distance in distances]
        else:  # as near to 0 as can be, and where it is 0 there is no comparison
            ends += [math.copysign(math.inf, distance) for distance in distances if distance]
            ends.append(0.0)
        return min(ends), max(ends)


class Rank(Aggregation):
    """Share of the entity's earlier values below this one, and half of its equals: 0.0 to 1.0.

    Of those that the ring holds, in the window where one is given. 0.5 where the value is missing
    or there is no other. Exact by definition. Cost: O(ring).

    >>> Rank.of(Past([1.0, 2.0, 2.0, 5.0], own=2.0)), Rank.of(Past([], own=2.0))
    (0.5, 0.5)
    """

    name = "rank"
    reads = "ring"
    code = codes.RANK
    each = "ring"
    options = ("delay", "include_current", "over", "where")
    include_current = False
    compares = True
    empty = 0.5
    words = "rank of {field} among those of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return (below + equal / 2) / n."""
        if past.own is None or not past.known:
            return 0.5
        below = sum(v < past.own for v in past.known)
        return float(below + 0.5 * past.known.count(past.own)) / len(past.known)


class _Outliers(Aggregation):
    """Base of counts of outliers: each event is judged once, when it comes, by the ring before."""

    options = ("delay", "include_current", "beyond", "robust", "where")
    include_current = False

    @classmethod
    def sources(cls, fields: Sequence[Field], options: Options) -> tuple[Source, ...]:
        """Return a column of 1 for outliers, 0 for others."""
        plain = source_of(fields[0], options.where)
        return (Source("outlier", plain.field, plain.where, options.beyond, options.robust,
                       plain.optional),)  # fmt: skip

    @staticmethod
    def of(past: Past) -> float:
        """Return how many outliers there are."""
        return float(sum(past.known))


class Outliers(_Outliers):
    """Number of the entity's earlier events in the window that lay beyond z of their own history.

    Beyond: |zscore| > ``beyond`` (3 where nothing is said) against the values that the ring held
    before the event, ``robust`` by median and MAD. Empty: 0.0; a missing value is none. Error
    beyond the ring: at most the outliers of the tiles cut by an edge. Cost: O(ring + 12), and
    O(ring) to judge an event, robust O(ring²).

    >>> Outliers.of(Past([0, 1, 1, None])), Outliers.of(Past([]))
    (2.0, 0.0)
    """

    name = "outliers"
    code = codes.SUM
    words = "outliers of {field} of this {entity} in {window}, beyond {beyond:g} spreads"

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the outliers without and with the tiles cut by an edge."""
        return float(sum(sure.known)), float(sum(wide.known))


class OutliersLast(_Outliers):
    """Number of outliers among the last k events of the ring that have the value.

    Outliers as in `outliers`. None there: 0.0. ``k`` is at most the ring. Exact by definition.
    Cost: O(ring).

    >>> OutliersLast.of(Past([1, 0, 1, None], options=Options(last=2)))
    1.0
    """

    name = "outliers_last"
    reads = "ring"
    code = codes.SUM_LAST
    each = "last"
    words = (
        "outliers of {field} in the last {last} events of this {entity}, beyond {beyond:g} spreads"
    )

    @staticmethod
    def of(past: Past) -> float:
        """Return how many outliers are among the last k."""
        return float(sum(past.known[-past.options.last :]))


def _centre(past: Past) -> Any:
    """Return the mean, or the median."""
    values = past.known
    return median(values) if past.options.robust else sum(values) / len(values)


def _least_mean(sure: Sequence[Any], cut: Sequence[Any]) -> Any:
    """Return the least mean of all that is sure and any share of what is cut; one is not empty."""
    total, count = sum(sure), len(sure)
    for v in sorted(cut):
        if count == 0 or v * count < total:
            total, count = total + v, count + 1
    return total / count


def _squares(past: Past) -> float:
    """Return Σ (v − mean)²."""
    return std_of(past) ** 2 * (len(past.known) - 1)


def _spread(past: Past) -> float:
    if not past.options.robust:
        return std_of(past)
    centre = _centre(past)
    return SPREAD_OF_MAD * float(median(abs(v - centre) for v in past.known))
