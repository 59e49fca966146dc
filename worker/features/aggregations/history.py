"""Times and values of single events: the newest, the first, the last few."""

from __future__ import annotations

from worker.features.aggregations.base import Aggregation, Past


class TimeSinceLast(Aggregation):
    """Seconds from the entity's newest earlier event to its now; −1.0 for its first event.

    0.0 for a late event: an event at or after its time is known. Exact. An entity that was silent
    for longer than the spec remembers (at least a year where this is asked) starts anew. O(1).

    >>> TimeSinceLast.of(Past([1, 1], [0, 1_500], 3_000)), TimeSinceLast.of(Past([]))
    (1.5, -1.0)
    """

    name = "time_since_last"
    reads = "since"
    each = "nothing"
    types = ()
    field_count = 0
    options = ()
    include_current = False
    empty = -1.0
    words = "time since the last event of this {entity}"

    @staticmethod
    def of(past: Past) -> float:
        """Return now − newest time."""
        return (past.now_ms - past.times_ms[-1]) / 1000.0 if past.times_ms else -1.0
