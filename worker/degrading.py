"""Under overload a worker leaves out what can wait, step by step, and never an event.

Every score says what was left out when it was made, so nothing here has to be done again in a
replay: a score states its model version, and a challenger that was not asked has no score.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.contracts.settings import DegradeSettings
from worker.streams import Polled
from worker.telemetry import Telemetry


class Degrading:
    """Tells how much is left out: ``level`` 0 is nothing, 1 the first of `DEGRADED`, and so on.

    A worker is behind for as long as some partition of its events was not seen at its end. Where
    that reaches a bound, the level rises to the bound's; it falls by one whenever no bound was
    reached for ``recover``.

    Parameters
    ----------
    settings
        None leaves nothing out, ever.
    topic
        The topic of the events.
    """

    def __init__(
        self,
        settings: DegradeSettings | None,
        topic: str,
        telemetry: Telemetry,
        clock_s: Callable[[], float],
    ) -> None:
        self.level = 0
        self._topic, self._telemetry, self._clock_s = topic, telemetry, clock_s
        self._bounds_s: tuple[float, ...] = ()
        self._recover_s = 0.0
        if settings is not None:
            self._bounds_s = (settings.learning / 1000, settings.challengers / 1000)
            self._recover_s = settings.recover / 1000
        self._ended_s: dict[int, float] = {}
        self._asked_s = clock_s()

    def hear(self, polled: Polled) -> None:
        """Take note of the last poll of a step; at most one level is taken back."""
        if not self._bounds_s:
            return
        now_s = self._clock_s()
        self._ended_s = {
            p: now_s if (self._topic, p) in polled.caught_up else self._ended_s.get(p, now_s)
            for p in polled.assigned
        }
        behind_s = now_s - min(self._ended_s.values(), default=now_s)
        asked = sum(behind_s >= bound_s for bound_s in self._bounds_s)
        if asked:
            self._asked_s = now_s
            self._set(max(asked, self.level))
        elif now_s - self._asked_s >= self._recover_s:
            self._asked_s = now_s
            self._set(max(0, self.level - 1))

    def _set(self, level: int) -> None:
        if level != self.level:
            self._telemetry.log.warning("degraded", to=level, before=self.level)
            self._telemetry.degraded.set(level)
        self.level = level
