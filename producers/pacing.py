"""When each recorded item is due: its recorded spacing at a speed, a bounded rate, or at once."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pacer:
    """Waits until each item is due.

    Parameters
    ----------
    speed
        Recorded seconds per second: 60 plays an hour in a minute. None: as fast as possible.
    rate_max
        Items per second at most. None: no bound.
    now, sleep
        The clock, in seconds, and how to wait on it; a test hands in its own.

    Raises
    ------
    ValueError
        A speed or a rate that is not above 0.

    Examples
    --------
    >>> pacer = Pacer(speed=60, now=lambda: 100.0)
    >>> pacer.due(5_000), pacer.due(65_000), pacer.due(5_000)
    (100.0, 101.0, 100.0)
    """

    def __init__(
        self,
        speed: float | None = None,
        rate_max: float | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if (speed is not None and not speed > 0) or (rate_max is not None and not rate_max > 0):
            raise ValueError(f"expected a speed and a rate above 0, got {speed} and {rate_max}")
        self._speed, self._rate_max, self._now, self._sleep = speed, rate_max, now, sleep
        self._start: float | None = None
        self._start_time_ms = 0
        self._count = 0

    def due(self, time_ms: int) -> float:
        """Return the clock's reading at which the next item, of this recorded time, may be sent.

        The first item is due at once and anchors both schedules, so waits never add up to a drift.
        An item that is older than the first is due at once.
        """
        if self._start is None:
            self._start, self._start_time_ms = self._now(), time_ms
        due = self._start
        if self._speed is not None:
            due += max(0, time_ms - self._start_time_ms) / 1000 / self._speed
        if self._rate_max is not None:
            due = max(due, self._start + self._count / self._rate_max)
        self._count += 1
        return due

    def wait(self, time_ms: int) -> None:
        """Sleep until the item is due. A player that fell behind catches up without sleeping."""
        if self._speed is None and self._rate_max is None:
            return
        seconds = self.due(time_ms) - self._now()
        if seconds > 0:
            self._sleep(seconds)
