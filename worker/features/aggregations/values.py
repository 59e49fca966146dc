"""Which values there were: how many different ones, how much of one, whether a new one."""

from __future__ import annotations

import math
from collections import Counter

from worker.features import codes
from worker.features.aggregations.base import EXACT_TYPES, Aggregation, Past

ANY_TYPES = (*EXACT_TYPES, "category", "string")


class Distinct(Aggregation):
    """Number of different values in the window.

    Empty: 0.0. A missing value is none; all undeclared values of a category are one. Exact where
    the ring covers the window. Beyond it by linear counting, 256 bits a tile, of the values in the
    window and in the tiles cut by an edge: a standard error of 1 in 20 values, 2 in 50, 5 in 100
    and 14 in 200; never more than 1420. Cost: O(ring² + 12), 32 B a tile at most.
    Source: Whang et al., A linear-time probabilistic counting algorithm, 1990.

    >>> Distinct.of(Past(["a", "b", None, "a"])), Distinct.of(Past([]))
    (2.0, 0.0)
    """

    name = "distinct"
    code = codes.DISTINCT
    types = ANY_TYPES
    keeps = ("bits",)
    words = "different values of {field} of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return the size of the set."""
        return float(len(set(past.known)))

    @staticmethod
    def bounds(sure: Past, inside: Past, wide: Past) -> tuple[float, float]:
        """Return four standard errors below what is sure and above all there may be."""
        low, high = len(set(sure.known)), len(set(wide.known))
        return low - 1 - 4 * _error(low), high + 1 + 4 * _error(high)


class TopShare(Aggregation):
    """Share of the commonest value among those that the ring holds, in the window if one is given.

    None there: 0.0. Missing values do not count. Exact by definition. Cost: O(ring²).

    >>> TopShare.of(Past(["a", "b", None, "a", "a"])), TopShare.of(Past([]))
    (0.75, 0.0)
    """

    name = "top_share"
    reads = "ring"
    code = codes.TOP_SHARE
    each = "ring"
    types = ANY_TYPES
    words = "share of the commonest {field} of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return max count / n."""
        counts = Counter(past.known)
        return max(counts.values()) / len(past.known) if counts else 0.0


class FirstSeen(Aggregation):
    """1.0 where this event's value is new to the entity, else 0.0.

    New: no earlier event that the ring holds has it, in the window where one is given. 1.0 for the
    first event; 0.0 for a missing value. Exact by definition. Cost: O(ring).

    >>> FirstSeen.of(Past(["a"], own="b")), FirstSeen.of(Past(["a"], own="a"))
    (1.0, 0.0)
    >>> FirstSeen.of(Past([], own="a")), FirstSeen.of(Past([], own=None))
    (1.0, 0.0)
    """

    name = "first_seen"
    reads = "ring"
    code = codes.FIRST_SEEN
    each = "ring"
    types = ANY_TYPES
    options = ("delay", "where")
    include_current = False
    compares = True
    words = "{field} is new to this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return whether the value is none of the others."""
        return float(past.own is not None and past.own not in past.known)


def _error(count: int) -> float:
    """Return the standard error of linear counting with 256 bits.

    Source: Whang et al., theorem 2: sqrt(m (e^t − t − 1)) with t = n / m.
    """
    load = count / 256
    return math.sqrt(256 * (math.exp(load) - load - 1))
