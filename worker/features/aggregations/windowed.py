"""Moments and extremes of a window: from the ring, and beyond it from tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from worker.features import codes
from worker.features.aggregations.base import Aggregation, Field, Options, Past, Source, passing


class Count(Aggregation):
    """Number of events in the window.

    Empty: 0.0. Error beyond the ring: at most the number of events in the tiles cut by an edge.
    Cost: O(ring + 12).

    >>> Count.of(Past([5.0, 7.0, 7.0])), Count.of(Past([]))
    (3.0, 0.0)
    """

    name = "count"
    code = codes.COUNT
    types = ()
    field_count = 0
    words = "events of this {entity} in {window}"

    @classmethod
    def sources(cls, fields: Sequence[Field], options: Options) -> tuple[Source, ...]:
        """Return nothing: records count. With a filter, a column that is 1 or missing."""
        return passing(options)

    @staticmethod
    def of(past: Past) -> float:
        """Return n."""
        return float(len(past.known))

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return n without and with the tiles cut by an edge."""
        return float(len(sure.known)), float(len(wide.known))


class Sum(Aggregation):
    """Σ v, from integers of the field's resolution: the double nearest to the exact sum.

    Empty: 0.0. A missing value adds nothing. Error beyond the ring: at most Σ |v| of the tiles cut
    by an edge. Exact integers never drift. Cost: O(ring + 12).

    >>> Sum.of(Past([0.5, 0.25, None])), Sum.of(Past([]))
    (0.75, 0.0)
    """

    name = "sum"
    code = codes.SUM
    in_units = True
    words = "sum of {field} of this {entity} over {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return Σ v."""
        return float(sum(past.known))

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the sum of what is sure, with all that is below or above zero beside it."""
        cut = list(wide.known)
        for v in sure.known:
            cut.remove(v)
        total = sum(sure.known)
        below, above = sum(v for v in cut if v < 0), sum(v for v in cut if v > 0)
        return float(total + below), float(total + above)


class Mean(Aggregation):
    """Σ v / n over the values that are there, rounded once.

    Empty: 0.0. Error beyond the ring: it stays between the smallest and the largest value of the
    window and the tiles cut by an edge. Cost: O(ring + 12).

    >>> Mean.of(Past([1.0, None, 2.0])), Mean.of(Past([]))
    (1.5, 0.0)
    """

    name = "mean"
    code = codes.MEAN
    in_units = True
    words = "mean {field} of this {entity} over {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return Σ v / n."""
        return float(sum(past.known) / len(past.known)) if past.known else 0.0

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the smallest and the largest value."""
        return float(min(wide.known, default=0.0)), float(max(wide.known, default=0.0))


class Std(Aggregation):
    """Sample standard deviation, sqrt(Σ (v − mean)² / (n − 1)), over the values that are there.

    Empty or one value: 0.0. From an exact integer sum of squares, shifted to an integer near the
    mean, so nothing cancels: relative error of a few 1e-16. Error beyond the ring: at most the
    range of the values in the window and in the tiles cut by an edge (n is interpolated there, and
    n − 1 never taken below 1). Cost: O(ring + 12).

    >>> Std.of(Past([1.0, 3.0])) == 2**0.5, Std.of(Past([7.0])), Std.of(Past([]))
    (True, 0.0, 0.0)
    """

    name = "std"
    code = codes.STD
    keeps = ("squares",)
    in_units = True
    tolerance = 2e-15
    words = "standard deviation of {field} of this {entity} over {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return the two-pass form."""
        return std_of(past)

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the range of the values on both sides of the truth."""
        spread = float(max(wide.known) - min(wide.known)) if wide.known else 0.0
        return Std.of(inside) - spread, Std.of(inside) + spread


class Min(Aggregation):
    """Smallest value in the window.

    Empty: 0.0. Error beyond the ring: tiles cut by an edge count whole, so it may be the smallest
    value of up to one tile more. Cost: O(ring + 12).

    >>> Min.of(Past([3.0, -1.0, None])), Min.of(Past([]))
    (-1.0, 0.0)
    """

    name = "min"
    code = codes.MIN
    keeps = ("extremes",)
    in_units = True
    words = "smallest {field} of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return min v."""
        return float(min(past.known, default=0.0))

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the smallest of all, and of what is sure."""
        known = sure.known or [max(wide.known, default=0.0)]
        return float(min(wide.known, default=0.0)), float(min(known))


class Max(Aggregation):
    """Largest value in the window.

    Empty: 0.0. Error beyond the ring: tiles cut by an edge count whole, so it may be the largest
    value of up to one tile more. Cost: O(ring + 12).

    >>> Max.of(Past([3.0, -1.0, None])), Max.of(Past([]))
    (3.0, 0.0)
    """

    name = "max"
    code = codes.MAX
    keeps = ("extremes",)
    in_units = True
    words = "largest {field} of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return max v."""
        return float(max(past.known, default=0.0))

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return the largest of what is sure, and of all."""
        known = sure.known or [min(wide.known, default=0.0)]
        return float(max(known)), float(max(wide.known, default=0.0))


def std_of(past: Past) -> float:
    """Return the sample standard deviation, 0.0 of fewer than two values."""
    values = past.known
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
