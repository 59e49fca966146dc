"""A number against its own past: level, residual and range, in nine floats a feature."""

from __future__ import annotations

from typing import Any  # keys and values of River's dicts

import numpy as np
from river import base

from worker.contracts.records import Float64
from worker.models import series_kernels as kernels
from worker.models.batch import Batch
from worker.models.canonical import state_hash
from worker.models.plain import State, reading
from worker.models.reasons import Measure
from worker.models.versioned import Counts


class Series(base.AnomalyDetector):
    """How unusual numbers are for the series that they belong to.

    Each feature has a level and a spread, exponentially weighted and drawn in against outliers, a
    fast level of the last three values, and a range; all fade. The distances from both levels are
    held against their own greatest so far, which fades too: 0.5 is as far as ever. What lies beyond
    the range adds up to 1.0. The score is that of the most unusual feature, in [0, 2).

    Parameters
    ----------
    window
        Values that count; older ones fade.
    warm_up
        Values before anything is scored.

    Examples
    --------
    >>> model = Series(warm_up=20)
    >>> for i in range(200):
    ...     model.learn_one({"load": 10.0 + i % 7})
    >>> model.score_one({"load": 40.0}) > 1.5 > 0.7 > model.score_one({"load": 12.0})
    True
    """

    def __init__(self, window: int = 4_000, warm_up: int = 100) -> None:
        if not 11 <= warm_up <= window <= 1_000_000_000:
            raise ValueError("11 <= warm_up <= window <= 1,000,000,000 must hold")
        self.window = window
        self.warm_up = warm_up
        self.names: list[Any] = []
        self.state = np.zeros((0, kernels.NUMBERS))

    def learn_one(self, x: dict[Any, Any]) -> None:
        """Learn the next values; the features are those of the first example."""
        if not self.names:
            self.names = list(x)
            self.state = np.zeros((len(x), kernels.NUMBERS))
        kernels.learn(self._row(x), self.state, float(self.window), float(self.warm_up))

    def score_one(self, x: dict[Any, Any]) -> float:
        """Return how unusual the values are; 0.0 during the warm-up."""
        if not self.names:
            return 0.0
        return float(kernels.score(self._row(x), self.state, float(self.warm_up)))

    def _row(self, x: dict[Any, Any]) -> Float64:
        return np.array([x[name] for name in self.names], np.float64)


class EntityScore:
    """The model of `scope: entity`: its score came with x, from the state of the entity.

    So it learns nothing from the log, and (version, x) gives the score back. Which features made
    it is not in x: `worker.models.series_table.OwnPast` knows.
    """

    heads: tuple[str, ...] = ()
    measure: Measure = "score"

    def __init__(self) -> None:
        self.counts = Counts()

    @property
    def learns_from_labels(self) -> bool:
        """Return False."""
        return False

    def score_learn(self, batch: Batch) -> Float64:
        """Return the only feature."""
        self.counts.failed_scores += int((~batch.scorable).sum())
        return np.where(batch.scorable, batch.X[:, 0], 0.0)

    def contributions(self, x: Float64, usual: Float64) -> Float64:
        """Return nothing for the only feature, which is the score itself; see `OwnPast`."""
        return np.zeros(len(x))

    def state_hash(self) -> str:
        """Return the same hash always."""
        return state_hash("entity_score")

    def to_state(self) -> State:
        """Return nothing but its kind."""
        return {"kind": "entity_score"}

    def restore(self, state: State) -> None:
        """Take nothing."""
        with reading("entity_score", state):
            return
