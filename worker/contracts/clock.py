"""The event time of a shard, and which events are too far ahead of it to be believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.contracts.records import Bool, Int64

AHEAD_RUN = 100
NO_TIME_MS = -1


class EventClock:
    """The largest event time accepted so far, guarded against clocks that run wild.

    The first event sets it. An event more than ``ahead_max_ms`` beyond it is refused, so one record
    from 2099 ends no window. A real gap in the stream cannot block it for ever: when `AHEAD_RUN`
    refused events follow each other, each at most ``ahead_max_ms`` away from the smallest of the
    run when it comes, the clock jumps to that smallest time and what follows is accepted. The
    events of the run stay refused. A refused event that does not fit the run starts a new one; an
    accepted event ends it.

    Late events are accepted and never move the clock back. The state is three integers, so it is
    part of a shard's fold, and cutting the stream into other batches changes nothing.

    Parameters
    ----------
    ahead_max_ms
        How far an event may be ahead, inclusive.

    Examples
    --------
    >>> clock = EventClock(ahead_max_ms=1_000)
    >>> clock.accept(np.array([5_000, 6_000, 4_000, 7_001])).tolist(), clock.now_ms
    ([True, True, True, False], 6000)
    >>> clock.to_tuple()
    (6000, 7001, 1)
    """

    __slots__ = ("_run_count", "_run_min_ms", "ahead_max_ms", "now_ms")

    def __init__(self, ahead_max_ms: int) -> None:
        self.ahead_max_ms = ahead_max_ms
        self.now_ms = NO_TIME_MS
        self._run_min_ms = NO_TIME_MS
        self._run_count = 0

    def copy(self) -> EventClock:
        """Return a clock that goes on from here on its own."""
        return EventClock.from_tuple(self.ahead_max_ms, self.to_tuple())

    def accept(self, time_ms: Int64) -> Bool:
        """Return which of these consecutive events are accepted, and advance. Times are >= 0.

        One pass in numpy while no event is ahead; else a step per event.
        """
        if self.now_ms != NO_TIME_MS and len(time_ms):
            before = np.maximum.accumulate(np.concatenate(([self.now_ms], time_ms)))
            if bool((time_ms <= before[:-1] + self.ahead_max_ms).all()):
                self.now_ms = int(before[-1])
                self._end_run()
                return np.ones(len(time_ms), np.bool_)
        return np.fromiter(map(self._accept_one, time_ms.tolist()), np.bool_, len(time_ms))

    def to_tuple(self) -> tuple[int, int, int]:
        """Return the state: event time, smallest time and length of the run of refused events."""
        return self.now_ms, self._run_min_ms, self._run_count

    @classmethod
    def from_tuple(cls, ahead_max_ms: int, state: Sequence[int]) -> EventClock:
        """Return a clock that goes on where `to_tuple` was taken."""
        clock = cls(ahead_max_ms)
        clock.now_ms, clock._run_min_ms, clock._run_count = state
        return clock

    def _accept_one(self, time_ms: int) -> bool:
        if self.now_ms == NO_TIME_MS or time_ms <= self.now_ms + self.ahead_max_ms:
            self.now_ms = max(self.now_ms, time_ms)
            self._end_run()
            return True
        self._extend_run(time_ms)
        if self._run_count == AHEAD_RUN:
            self.now_ms = self._run_min_ms
            self._end_run()
        return False

    def _extend_run(self, time_ms: int) -> None:
        if self._run_count and abs(time_ms - self._run_min_ms) <= self.ahead_max_ms:
            self._run_min_ms = min(self._run_min_ms, time_ms)
            self._run_count += 1
        else:
            self._run_min_ms, self._run_count = time_ms, 1

    def _end_run(self) -> None:
        self._run_min_ms, self._run_count = NO_TIME_MS, 0
