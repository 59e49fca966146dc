"""Aggregations: one class each, found through `AGGREGATIONS`. Defined here, computed in kernels.

A window of an entity is (now − delay − size, now − delay]: open at its old end, closed at its new
one. ``now`` is the largest event time the entity has seen, this event included: it never moves
back, and a late event is read at the entity's now, not at its own time. The event itself is in the
window unless ``include_current: false``.

A window that the entity's ring covers is exact. Of an older one, the part that the ring no longer
holds comes from tiles of size/12 (of an hour for 1 d; coarser where a long delay would need more
than 256): the tile that an edge of the window cuts counts in proportion to the time that
lies inside (extremes: whole). So an answer is wrong by at most what happened in that tile.

What is defined over the ring sees the newest N events of the entity and no others, those of the
window where one is given: that is its meaning, not an error.
"""

from __future__ import annotations

from worker.features.aggregations.base import Aggregation, Field, Options, Past, Register, Source
from worker.features.aggregations.comparison import Outliers, OutliersLast, Rank, Ratio, Zscore
from worker.features.aggregations.decayed import DecayedMean, DecayedRate
from worker.features.aggregations.geo import GeoDistance, GeoSpeed
from worker.features.aggregations.history import (
    First,
    Last,
    MeanLast,
    Streak,
    TimeSinceFirst,
    TimeSinceLast,
)
from worker.features.aggregations.values import Distinct, FirstSeen, TopShare
from worker.features.aggregations.windowed import Count, Max, Mean, Min, Std, Sum

_CLASSES: tuple[type[Aggregation], ...] = (
    Count, Sum, Mean, Std, Min, Max, Distinct, First, Last, MeanLast, TopShare, FirstSeen, Ratio,
    Zscore, Rank, Outliers, OutliersLast, DecayedRate, DecayedMean, TimeSinceLast, TimeSinceFirst,
    Streak, GeoDistance, GeoSpeed,
)  # fmt: skip
AGGREGATIONS: dict[str, type[Aggregation]] = {c.name: c for c in _CLASSES}
"""Every aggregation by its name in a configuration."""

__all__ = ["AGGREGATIONS", "Aggregation", "Field", "Options", "Past", "Register", "Source"]
