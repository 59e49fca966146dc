"""What models are worth as labels arrive: every score that was served, judged by its truth.

A fold of the training log, like the models: each labelled example is judged by how its event was
served (`worker.contracts.records.served_type`), whoever learned from it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from worker.contracts.metrics_settings import MetricsSettings
from worker.contracts.records import Bool, Float64, Int64, Served
from worker.models.days import Judged
from worker.models.plain import State
from worker.models.prequential import Figures, Prequential

ALERTS = "(alerts)"
"""The name of the scores that decided, whichever model's, with what was published; no model can
have it.
"""
ALL = ""
"""The segment of all events."""

PROBABILITY, RANK = "probability", "rank"
"""What scores say: the chance of a fraud, or their rank among the model's own (`tail`). Any other
scale is a model's own, and has its name.
"""

_ROWS_MAX = 5_000  # labelled examples that wait to be counted: many at once cost less


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one score over one segment: of everything, and of lately."""

    name: str
    segment: str
    total: Figures
    recent: Figures

    def to_json(self) -> dict[str, Mapping[str, float | None]]:
        """Return both as plain values."""
        return {"total": asdict(self.total), "recent": asdict(self.recent)}


class Measures:
    """The figures of a set of models.

    Parameters
    ----------
    models
        Names of the models: the first score columns.
    features
        Names of the columns of X.
    """

    def __init__(
        self, models: Sequence[str], features: Sequence[str], settings: MetricsSettings
    ) -> None:
        self._names = (*models, ALERTS)
        self._bounds = [
            (features.index(one.feature), _or(one.at_least, -np.inf), _or(one.below, np.inf))
            for one in settings.segments.values()
        ]
        self._segments = (ALL, *settings.segments)
        self._figures = [
            [Prequential(settings.top, settings.days) for _ in self._segments] for _ in self._names
        ]
        self._waiting: list[tuple[Int64, Int64, Served, Bool]] = []
        self._rows = 0

    def add(self, X: Float64, y: Int64, time_ms: Int64, served: Served) -> None:
        """Take examples that were just learned; those without a label, ``y`` -1, do not count."""
        known = np.flatnonzero(y >= 0)
        if not len(known):
            return
        inside = np.ones((len(known), len(self._segments)), np.bool_)
        for s, (feature, at_least, below) in enumerate(self._bounds):
            inside[:, 1 + s] = (X[known, feature] >= at_least) & (X[known, feature] < below)
        self._waiting.append((y[known], time_ms[known], served[known], inside))
        self._rows += len(known)
        if self._rows >= _ROWS_MAX:
            self._count()

    def all(self, scales: Sequence[str], champion: int) -> Iterator[Measured]:
        """Return the figures of each score over each segment, all events first.

        Without those that mean nothing: see `worker.models.prequential.Figures.meant`.

        Parameters
        ----------
        scales
            What each model's score says, see `PROBABILITY`.
        champion
            The model that decides now: thresholds are of its scores.
        """
        self._count()
        deciding = scales[champion]
        for name, scale, row in zip(self._names, (*scales, deciding), self._figures, strict=True):
            kept = {
                "is_probability": scale == PROBABILITY,
                "is_share": scale in (PROBABILITY, RANK),
                "is_judged": scale == deciding,
            }
            for segment, one in zip(self._segments, row, strict=True):
                yield Measured(name, segment, one.total().meant(**kept), one.recent().meant(**kept))

    def to_state(self) -> State:
        """Return everything as plain values."""
        self._count()
        return {
            "segments": list(self._segments),
            "figures": [[one.to_state() for one in row] for row in self._figures],
        }

    def restore(self, state: State) -> None:
        """Take what `to_state` gave; where other segments were measured all begin anew."""
        if state["segments"] != list(self._segments):
            return
        for row, parts in zip(self._figures, state["figures"], strict=True):
            for one, part in zip(row, parts, strict=True):
                one.restore(part)

    def _count(self) -> None:
        if not self._rows:
            return
        columns = zip(*self._waiting, strict=True)
        y, time_ms, served, inside = (np.concatenate(parts) for parts in columns)
        self._waiting, self._rows = [], 0
        entity = served["entity"].astype(np.int64)
        for i, row in enumerate(self._figures):
            is_model = i < len(self._names) - 1
            score = served["scores"][:, i] if is_model else served["score"]
            reached = score >= served["threshold"] if is_model else served["alert"]
            told = Judged(y, score, reached, time_ms, entity)
            for s, one in enumerate(row):
                one.add(told.of(inside[:, s] & ~np.isnan(score)))


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
