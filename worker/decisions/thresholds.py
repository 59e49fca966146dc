"""Which scores are high enough: a fixed threshold, a share of events, or so many a day."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from worker.contracts.decisions import UNTAUGHT
from worker.contracts.records import Bool, Float64, Int64
from worker.contracts.settings import DecisionSettings
from worker.features.compiling import digest_of, helper, kernel
from worker.models import sketch_kernels as sketches
from worker.models.sketch import QuantileSketch

DAY_MS = 86_400_000
_WINDOW_MIN, _WINDOW_MAX = 2_000, 100_000
_ABOVE = 50  # scores that the window holds above the threshold
_SHARE_MAX = 0.5
_PACE_MS = 7.0 * DAY_MS  # over which events a day are counted, older ones fading
# Entries of `pace`.
EVENTS, SPAN_MS, LAST_MS, NOW_MS = range(4)


class Threshold:
    """The threshold in force for each score, and whether it is reached.

    A score at or above it reaches it. A share r is held by the (1 - r) quantile of the last 50 / r
    scores (2,000 to 100,000), taken anew every 256 scores and corrected by how many did exceed it.
    The threshold is the next number above the quantile: scores equal to it are below, so a constant
    never alerts. `UNTAUGHT` is no score. Until 1,024 scores, and 5 / r, have been seen the
    threshold is infinite, and anew when another model begins to decide. N a day is the share
    N / (events a day), by event time over about a week. Where it is one of several partitions, with
    a small share n of the day's alerts, n + sqrt(n) / 2 are aimed at: days that have fewer are not
    made up for by days that would have more.
    """

    def __init__(self, settings: DecisionSettings, partitions: int = 1) -> None:
        self._fixed = settings.threshold
        mine = (settings.alerts_per_day or 0) / partitions
        self._per_day = mine if partitions == 1 else mine + math.sqrt(mine) / 2.0
        share = settings.alert_rate or 1e-6  # of a daily budget: until the pace is known
        window = min(_WINDOW_MAX, max(_WINDOW_MIN, math.ceil(_ABOVE / share)))
        self._begin = (window, (1.0 - share,))
        self._sketch = QuantileSketch(*self._begin)
        self._pace = np.array([0.0, 0.0, -1.0, -1.0])

    def reached(self, scores: Float64, time_ms: Int64) -> tuple[Bool, Float64]:
        """Return whether each score reaches the threshold in force for it, and that threshold."""
        if self._fixed is not None:
            thresholds = np.full(len(scores), self._fixed)
        else:
            quantiles = np.empty(len(scores))
            _follow(scores, time_ms, self._per_day, self._pace, *self._sketch.arrays, quantiles)
            thresholds = np.nextafter(quantiles, np.inf)
        return scores >= thresholds, thresholds

    def begin_anew(self) -> None:
        """Forget all scores, which were another model's; how many events a day come stays known."""
        self._sketch = QuantileSketch(*self._begin)

    def to_bytes(self) -> tuple[bytes, list[float]]:
        """Return the state: nothing for a fixed threshold, else the sketch and the pace."""
        return (b"" if self._fixed is not None else self._sketch.to_bytes()), self._pace.tolist()

    def restore(self, state: bytes, pace: list[float]) -> None:
        """Take a state made by `to_bytes`; of another budget its scores are taken up."""
        if self._fixed is not None or not state:
            return
        held = QuantileSketch.from_bytes(state)
        # A daily budget moves its level itself.
        is_alike = self._sketch.is_alike(held, is_level_free=self._per_day > 0.0)
        self._sketch = held if is_alike else held.aimed_as(self._sketch)
        self._pace[:] = pace


def _make_follow(sources: str) -> Callable[..., None]:
    @kernel
    def follow(
        scores: Float64, time_ms: Int64, per_day: float, pace: Float64, table: Float64,
        scratch: Float64, buffer: Float64, counters: Int64, facts: Float64, levels: Float64,
        quantiles: Float64,
    ) -> None:  # fmt: skip
        sources  # noqa: B018  # see worker.features.compiling
        for i in range(scores.shape[0]):
            if scores[i] == UNTAUGHT:
                quantiles[i] = math.inf
                continue
            quantiles[i] = levels[sketches.VALUE, 0]
            sketches.add(scores[i], table, scratch, buffer, counters, facts, levels)
            pace[NOW_MS] = max(pace[NOW_MS], time_ms[i])
            if per_day > 0.0 and counters[sketches.SEEN] > 0 and counters[sketches.BUFFERED] == 0:
                _keep_pace(pace)
                if pace[SPAN_MS] > 0.0:
                    share = per_day / (pace[EVENTS] / pace[SPAN_MS] * DAY_MS)
                    sketches.aim(1.0 - min(share, _SHARE_MAX), table, counters, facts, levels)

    return follow


@helper
def _keep_pace(pace: Float64) -> None:
    """Count a block of events and the event time that it took; what is older fades."""
    if pace[LAST_MS] >= 0.0:
        span_ms = pace[NOW_MS] - pace[LAST_MS]
        keep = math.exp(-span_ms / _PACE_MS)
        pace[EVENTS] = pace[EVENTS] * keep + sketches.BLOCK
        pace[SPAN_MS] = pace[SPAN_MS] * keep + span_ms
    pace[LAST_MS] = pace[NOW_MS]


_follow = _make_follow(digest_of(sketches))
