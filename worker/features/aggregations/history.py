"""Values and times of single events: the first, the newest, the last few."""

from __future__ import annotations

from collections.abc import Sequence

from worker.features import codes
from worker.features.aggregations.base import (
    Aggregation,
    Field,
    Options,
    Past,
    Reads,
    Register,
    Source,
    passing,
)


class First(Aggregation):
    """Oldest value that the ring holds, in the window where one is given.

    None there: 0.0. Missing values are passed over. Exact by definition. Cost: O(ring).

    >>> First.of(Past([None, 3.0, 1.0])), First.of(Past([]))
    (3.0, 0.0)
    """

    name = "first"
    reads = "ring"
    code = codes.FIRST
    each = "ring"
    in_units = True
    words = "first {field} of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return the first value."""
        return float(past.known[0]) if past.known else 0.0


class Last(Aggregation):
    """Newest value that the ring holds before this event, in the window where one is given.

    None there: 0.0. Missing values are passed over. Of equal times the one that arrived later.
    Exact by definition. Cost: O(ring).

    >>> Last.of(Past([3.0, 1.0, None])), Last.of(Past([]))
    (1.0, 0.0)
    """

    name = "last"
    reads = "ring"
    code = codes.LAST
    each = "ring"
    in_units = True
    include_current = False
    words = "last {field} of this {entity} in {window}"

    @staticmethod
    def of(past: Past) -> float:
        """Return the last value."""
        return float(past.known[-1]) if past.known else 0.0


class MeanLast(Aggregation):
    """Mean of the last k values that the ring holds; of fewer where there are fewer.

    None there: 0.0. Missing values are passed over. Exact by definition, rounded twice. ``k`` is at
    most the ring. Cost: O(ring).

    >>> MeanLast.of(Past([9.0, 3.0, None, 1.0], options=Options(last=2))), MeanLast.of(Past([]))
    (2.0, 0.0)
    """

    name = "mean_last"
    reads = "ring"
    code = codes.MEAN_LAST
    each = "last"
    in_units = True
    tolerance = 4e-16
    words = "mean {field} of the last {last} events of this {entity}"

    @staticmethod
    def of(past: Past) -> float:
        """Return Σ v / k of the last k."""
        values = past.known[-past.options.last :]
        return float(sum(values) / len(values)) if values else 0.0


class TimeSinceLast(Aggregation):
    """Seconds from the entity's newest earlier event to its now; −1.0 for its first event.

    0.0 for a late event: an event at or after its time is known. Exact. With a filter, since the
    newest event of the ring that passes it, −1.0 where none does. An entity that was silent for
    longer than the spec remembers (at least a year where this is asked) starts anew. Cost: O(1),
    with a filter O(ring).

    >>> TimeSinceLast.of(Past([1, 1], [0, 1_500], 3_000)), TimeSinceLast.of(Past([]))
    (1.5, -1.0)
    """

    name = "time_since_last"
    reads = "since"
    code = codes.SINCE_LAST
    each = "nothing"
    types = ()
    field_count = 0
    options = ("where",)
    include_current = False
    empty = -1.0
    words = "time since the last event of this {entity}"

    @classmethod
    def reads_of(cls, options: Options) -> Reads:
        """Return the ring where a filter must be asked of each event."""
        return "ring" if options.where else "since"

    @classmethod
    def sources(cls, fields: Sequence[Field], options: Options) -> tuple[Source, ...]:
        """Return a column that is 1 or missing where there is a filter."""
        return passing(options)

    @staticmethod
    def of(past: Past) -> float:
        """Return now − newest time."""
        times_ms = past.known_times_ms
        return (past.now_ms - times_ms[-1]) / 1000.0 if times_ms else -1.0


class TimeSinceFirst(Aggregation):
    """Seconds from the entity's first event to its now; −1.0 for its first event.

    The first by event time of all that came before. With a filter, the first that passes it. Exact.
    Forgets as `time_since_last`. Cost: O(1), 8 B of state.

    >>> TimeSinceFirst.of(Past([1, 1], [0, 1_500], 3_000)), TimeSinceFirst.of(Past([]))
    (3.0, -1.0)
    """

    name = "time_since_first"
    reads = "register"
    code = codes.SINCE_FIRST
    each = "nothing"
    types = ()
    field_count = 0
    options = ("where",)
    include_current = False
    empty = -1.0
    words = "time since the first event of this {entity}"

    @classmethod
    def sources(cls, fields: Sequence[Field], options: Options) -> tuple[Source, ...]:
        """Return a column that is 1 or missing where there is a filter."""
        return passing(options)

    @classmethod
    def registers(cls, sources: tuple[Source, ...], options: Options) -> tuple[Register, ...]:
        """Return the first time."""
        return (Register(codes.FIRST_TIME, 0.0, sources[0] if sources else None),)

    @staticmethod
    def of(past: Past) -> float:
        """Return now − oldest time."""
        times_ms = past.known_times_ms
        return (past.now_ms - times_ms[0]) / 1000.0 if times_ms else -1.0


class Streak(Aggregation):
    """Newest events of the ring that follow each other within a gap, the current one included.

    n where each of the n newest events is at most the gap after the one before it, and the next is
    further away. At least 1.0 with the current event; at most the ring. Exact by definition. Cost:
    O(ring).

    >>> Streak.of(Past([1, 1, 1], [0, 9_000, 9_500], options=Options(gap_ms=1_000)))
    2.0
    """

    name = "streak"
    reads = "ring"
    code = codes.STREAK
    each = "gap"
    types = ()
    field_count = 0
    options = ("include_current", "where")
    words = "events of this {entity} in a row, each within {gap} of the one before"

    @classmethod
    def sources(cls, fields: Sequence[Field], options: Options) -> tuple[Source, ...]:
        """Return a column that is 1 or missing where there is a filter."""
        return passing(options)

    @classmethod
    def parameter(cls, options: Options) -> float:
        """Return the gap."""
        return float(options.gap_ms)

    @staticmethod
    def of(past: Past) -> float:
        """Return the length of the newest run."""
        times_ms = past.known_times_ms
        count = min(1, len(times_ms))
        while 0 < count < len(times_ms):
            if times_ms[-count] - times_ms[-count - 1] > past.options.gap_ms:
                break
            count += 1
        return float(count)
