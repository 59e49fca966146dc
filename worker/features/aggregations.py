"""Aggregations: one class each, found through `AGGREGATIONS`. Defined here, computed in kernels.

A window of an entity is (now − delay − size, now − delay]: open at its old end, closed at its new
one. ``now`` is the largest event time the entity has seen, this event included: it never moves
back, and a late event is read at the entity's now, not at its own time. The event itself is in the
window unless ``include_current: false``.

A window that the entity's ring covers is exact. Of an older one, the part that the ring no longer
holds comes from tiles of size/12 (of an hour for 1 d; coarser where a long delay would need more
than 256): the tile that an edge of the window cuts counts in proportion to the time that
lies inside (extremes: whole). So an answer is wrong by at most what happened in that tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

COUNT, SUM, MEAN, STD, MIN, MAX = range(6)
"""Codes of the windowed aggregations in the kernels."""


class Aggregation:
    """Base of all aggregations; subclasses say what they need and define `of`."""

    name: ClassVar[str]
    code: ClassVar[int] = -1
    takes_field: ClassVar[bool] = True
    takes_windows: ClassVar[bool] = True
    needs_squares: ClassVar[bool] = False
    needs_extremes: ClassVar[bool] = False
    words: ClassVar[str]

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return the aggregation of the values in a window: its definition, in plain Python."""
        raise NotImplementedError


class Count(Aggregation):
    """Number of events in the window.

    Empty: 0.0. Error beyond the ring: at most the number of events in the tiles cut by an edge.
    Cost: O(ring + 12).

    >>> Count.of([5.0, 7.0, 7.0]), Count.of([])
    (3.0, 0.0)
    """

    name = "count"
    code = COUNT
    takes_field = False
    words = "events of this {entity} in {window}"

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return n."""
        return float(len(values))


class Sum(Aggregation):
    """Σ v, from integers of the field's resolution: the double nearest to the exact sum.

    Empty: 0.0. Error beyond the ring: at most Σ |v| of the tiles cut by an edge. Exact integers
    never drift. Cost: O(ring + 12).

    >>> Sum.of([0.1, 0.2]), Sum.of([])
    (0.3, 0.0)
    """

    name = "sum"
    code = SUM
    words = "sum of {field} of this {entity} over {window}"

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return Σ v, rounded to twelve decimals as a stand-in for the integers."""
        return round(math.fsum(values), 12)


class Mean(Aggregation):
    """Σ v / n, rounded once.

    Empty: 0.0. Error beyond the ring: it stays between the smallest and the largest value of the
    window and the tiles cut by an edge. Cost: O(ring + 12).

    >>> Mean.of([1.0, 2.0]), Mean.of([])
    (1.5, 0.0)
    """

    name = "mean"
    code = MEAN
    words = "mean {field} of this {entity} over {window}"

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return Σ v / n."""
        return math.fsum(values) / len(values) if values else 0.0


class Std(Aggregation):
    """Sample standard deviation, sqrt(Σ (v − mean)² / (n − 1)).

    Empty or one value: 0.0. From an exact integer sum of squares, shifted to an integer near the
    mean, so nothing cancels: relative error of a few 1e-16. Error beyond the ring: at most the
    range of the values in the window and in the tiles cut by an edge (n is interpolated there, and
    n − 1 never taken below 1). Cost: O(ring + 12).

    >>> Std.of([1.0, 3.0]) == 2**0.5, Std.of([7.0]), Std.of([])
    (True, 0.0, 0.0)
    """

    name = "std"
    code = STD
    needs_squares = True
    words = "standard deviation of {field} of this {entity} over {window}"

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return the two-pass form."""
        if len(values) < 2:
            return 0.0
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


class Min(Aggregation):
    """Smallest value in the window.

    Empty: 0.0. Error beyond the ring: tiles cut by an edge count whole, so it may be the smallest
    value of up to one tile more. Cost: O(ring + 12).

    >>> Min.of([3.0, -1.0]), Min.of([])
    (-1.0, 0.0)
    """

    name = "min"
    code = MIN
    needs_extremes = True
    words = "smallest {field} of this {entity} in {window}"

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return min v."""
        return min(values, default=0.0)


class Max(Aggregation):
    """Largest value in the window.

    Empty: 0.0. Error beyond the ring: tiles cut by an edge count whole, so it may be the largest
    value of up to one tile more. Cost: O(ring + 12).

    >>> Max.of([3.0, -1.0]), Max.of([])
    (3.0, 0.0)
    """

    name = "max"
    code = MAX
    needs_extremes = True
    words = "largest {field} of this {entity} in {window}"

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return max v."""
        return max(values, default=0.0)


class TimeSinceLast(Aggregation):
    """Seconds from the entity's newest earlier event to its now; −1.0 for its first event.

    0.0 for a late event: an event at or after its time is known. Exact. An entity that was silent
    for longer than the spec remembers (at least a year where this is asked) starts anew. O(1).

    >>> TimeSinceLast.of([0.0, 1.5]), TimeSinceLast.of([0.0])
    (1.5, -1.0)
    """

    name = "time_since_last"
    takes_field = False
    takes_windows = False
    words = "time since the last event of this {entity}"

    @staticmethod
    def of(values: Sequence[float]) -> float:
        """Return now − newest earlier time, of times in s in the order of arrival."""
        if len(values) < 2:
            return -1.0
        return max(0.0, values[-1] - max(values[:-1]))


_CLASSES: tuple[type[Aggregation], ...] = (Count, Sum, Mean, Std, Min, Max, TimeSinceLast)
AGGREGATIONS: dict[str, type[Aggregation]] = {c.name: c for c in _CLASSES}
"""Every aggregation by its name in a configuration."""
