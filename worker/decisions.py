"""When a score is an alert: a fixed threshold, or a rate held by a running quantile; and its
severity.

All of it is a fold of the scores in log order: no clock, and the same whatever the batch sizes.
"""

from __future__ import annotations

import math

import numpy as np

from worker.contracts.records import Bool, Float64
from worker.contracts.settings import DecisionSettings

_SCORES_MIN, _SCORES_MAX = 2_000, 100_000
_REFRESHES = 20


class Decider:
    """Decisions of one shard.

    With ``alert_rate`` r the threshold is the (1 - r) quantile of the last M scores, M = 50 / r
    within [2,000, 100,000], taken anew after every M / 20 scores. Until 5 / r scores have been seen
    (1,000 for 0.5 %) nothing is an alert: the threshold is infinite.
    """

    def __init__(self, settings: DecisionSettings) -> None:
        self._settings = settings
        self._rate = settings.alert_rate
        self._size = 0 if self._rate is None else _window(self._rate)
        self._every = max(1, self._size // _REFRESHES)
        self._first = 0 if self._rate is None else min(self._size, math.ceil(5 / self._rate))
        self._scores = np.zeros(self._size)
        self._count = 0
        self._threshold = math.inf if settings.threshold is None else settings.threshold

    def decide(self, scores: Float64) -> tuple[Bool, Float64]:
        """Return per score whether it is an alert, and the threshold that was in force for it.

        A fixed threshold includes its own value; a running quantile does not, so that a constant
        score never alerts.
        """
        if self._rate is None:
            thresholds = np.full(len(scores), self._threshold)
            return scores >= thresholds, thresholds
        thresholds = np.empty(len(scores))
        start = 0
        while start < len(scores):
            stop = min(len(scores), start + self._until_refresh())
            thresholds[start:stop] = self._threshold
            self._remember(scores[start:stop])
            start = stop
        return scores > thresholds, thresholds

    def severity(self, score: float) -> str:
        """Return the highest declared severity that the score reaches; ``medium`` where none is
        declared.
        """
        reached = [
            (bound, level) for level, bound in self._settings.severity.items() if score >= bound
        ]
        if not self._settings.severity:
            return "medium"
        return max(reached)[1] if reached else "low"

    def _until_refresh(self) -> int:
        if self._count < self._first:
            return self._first - self._count
        return self._every - (self._count - self._first) % self._every

    def _remember(self, scores: Float64) -> None:
        positions = (self._count + np.arange(len(scores))) % self._size
        self._scores[positions] = scores
        self._count += len(scores)
        if self._count >= self._first and (self._count - self._first) % self._every == 0:
            seen = self._scores[: min(self._count, self._size)]
            self._threshold = float(np.quantile(seen, 1 - (self._rate or 0), method="higher"))

    def to_bytes(self) -> bytes:
        """Return the state: nothing for a fixed threshold, else count, threshold and the scores
        held.
        """
        if self._rate is None:
            return b""
        head = np.array([self._rate, self._count, self._threshold])
        return head.tobytes() + self._scores[: min(self._count, self._size)].tobytes()

    def restore(self, state: bytes) -> None:
        """Take a state made by `to_bytes`; of another rate only its scores count."""
        if self._rate is None or not state:
            return
        values = np.frombuffer(state, np.float64)
        rate, count, scores = values[0], int(values[1]), values[3:]
        if rate != self._rate:  # the configuration has changed: take the scores up anew, in order
            oldest = count % len(scores) if len(scores) else 0
            self.decide(np.roll(scores, -oldest if count > len(scores) else 0))
            return
        self._count, self._threshold = count, float(values[2])
        self._scores[: len(scores)] = scores


def _window(rate: float) -> int:
    return int(min(_SCORES_MAX, max(_SCORES_MIN, math.ceil(50 / rate))))
