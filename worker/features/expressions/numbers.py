"""Functions of numbers."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

import numpy as np

from worker.features.expressions import logarithm
from worker.features.expressions.function import Form, Function
from worker.features.expressions.values import Values, finite

_NUMBER: tuple[Form, ...] = ((("number",), "number"),)
_NUMBERS: tuple[Form, ...] = ((("number", "number", "..."), "number"),)


class Log(Function):
    """Natural logarithm; missing for x ≤ 0.

    >>> Log.of(1.0)
    0.0
    """

    name = "log"
    forms = _NUMBER

    @staticmethod
    def of(x: float) -> float:
        """Return ln x."""
        return math.log(x)

    @staticmethod
    def run(x: Values) -> Values:
        """See `worker.features.expressions.logarithm`."""
        return logarithm.log(x)


class Log1p(Function):
    """Natural logarithm of 1 + x, exact for small x; missing for x ≤ −1.

    >>> Log1p.of(0.0)
    0.0
    """

    name = "log1p"
    forms = _NUMBER

    @staticmethod
    def of(x: float) -> float:
        """Return ln(1 + x)."""
        return math.log1p(x)

    @staticmethod
    def run(x: Values) -> Values:
        """See `worker.features.expressions.logarithm`."""
        return finite(logarithm.log1p(x))


class Sqrt(Function):
    """Square root; missing for x < 0.

    >>> Sqrt.of(9.0)
    3.0
    """

    name = "sqrt"
    forms = _NUMBER

    @staticmethod
    def of(x: float) -> float:
        """Return √x."""
        return math.sqrt(x)

    @staticmethod
    def run(x: Values) -> Values:
        """Of a negative number it is NaN, that is missing."""
        return np.sqrt(x)


class Abs(Function):
    """Size of a number, without its sign.

    >>> Abs.of(-2.0)
    2.0
    """

    name = "abs"
    forms = _NUMBER

    @staticmethod
    def of(x: float) -> float:
        """Return |x|."""
        return abs(x)

    @staticmethod
    def run(x: Values) -> Values:
        """Return |x|."""
        return np.abs(x)


class Round(Function):
    """Nearest whole number; a half goes to the even one.

    >>> Round.of(2.5), Round.of(-1.2)
    (2.0, -1.0)
    """

    name = "round"
    forms = _NUMBER

    @staticmethod
    def of(x: float) -> float:
        """Return x rounded."""
        return float(round(x))

    @staticmethod
    def run(x: Values) -> Values:
        """Return x rounded."""
        return np.rint(x)


class Min(Function):
    """Smallest of two or more numbers.

    >>> Min.of(3.0, 1.0, 2.0)
    1.0
    """

    name = "min"
    forms = _NUMBERS

    @staticmethod
    def of(*numbers: float) -> float:
        """Return the smallest."""
        return min(numbers)

    @staticmethod
    def run(first: Values, *others: Values) -> Values:
        """Return the smallest; `numpy.minimum` keeps NaN."""
        for other in others:
            first = np.minimum(first, other)
        return first


class Max(Function):
    """Largest of two or more numbers.

    >>> Max.of(3.0, 1.0, 2.0)
    3.0
    """

    name = "max"
    forms = _NUMBERS

    @staticmethod
    def of(*numbers: float) -> float:
        """Return the largest."""
        return max(numbers)

    @staticmethod
    def run(first: Values, *others: Values) -> Values:
        """Return the largest; `numpy.maximum` keeps NaN."""
        for other in others:
            first = np.maximum(first, other)
        return first


class Clip(Function):
    """The number, moved into [low, high]: clip(x, low, high).

    >>> Clip.of(7.0, 0.0, 5.0), Clip.of(-7.0, 0.0, 5.0)
    (5.0, 0.0)
    """

    name = "clip"
    forms = ((("number", "constant", "constant"), "number"),)

    @staticmethod
    def of(x: float, low: float, high: float) -> float:
        """Return max(low, min(x, high))."""
        return max(low, min(x, high))

    @staticmethod
    def run(x: Values, low: float, high: float) -> Values:
        """Return max(low, min(x, high)); NaN stays."""
        return np.maximum(low, np.minimum(x, high))


class Bucket(Function):
    """How many of the edges are at most x, from 0 to their number: bucket(x, 10, 50, 100).

    >>> [Bucket.of(x, 10.0, 50.0) for x in (9.9, 10.0, 99.0)]
    [0.0, 1.0, 2.0]
    """

    name = "bucket"
    forms = ((("number", "constant", "..."), "number"),)

    @staticmethod
    def of(x: float, *edges: float) -> float:
        """Return the number of edges <= x; the edges ascend."""
        return float(bisect_right(edges, x))

    @staticmethod
    def run(x: Values, *edges: float) -> Values:
        """Return the number of edges <= x."""
        found = np.searchsorted(np.array(edges), x, side="right").astype(np.float64)
        return np.where(np.isnan(x), np.nan, found)

    @classmethod
    def classes(cls, constants: tuple[float, ...]) -> tuple[str, ...]:
        """Return a name for each bucket.

        >>> Bucket.classes((10.0, 50.0))
        ('<10', '10..50', '>=50')
        """
        edges = [repr(edge).removesuffix(".0") for edge in constants]
        middle = [f"{low}..{high}" for low, high in pairwise(edges)]
        return (f"<{edges[0]}", *middle, f">={edges[-1]}")
