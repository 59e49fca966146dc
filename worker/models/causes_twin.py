"""`Causes` over whole batches."""

from __future__ import annotations

from typing import Any  # River's classes have no types

import numpy as np

from worker.contracts.records import Float64
from worker.models.batch import Batch
from worker.models.causes import Causes
from worker.models.compiled import ABSOLUTE_MAX
from worker.models.contributions import differences
from worker.models.plain import State
from worker.models.reasons import Measure
from worker.models.twin import CompiledTwin

WEIGHTS_MAX = 1 << 24
"""Largest table that gets a twin: 16 bytes a weight."""


class CausesTwin(CompiledTwin):
    """`Causes` over whole batches: the same machine code, called once. Its heads are raw scores.

    Parameters
    ----------
    model
        It is copied with what it has learned.
    names
        The features of every row, in order.
    """

    kind = "causes_twin"
    learned = ("_model",)
    measure: Measure = "log_odds"

    def __init__(self, model: Causes, names: tuple[str, ...]) -> None:
        super().__init__()
        self._model = model.copy()
        self._columns = [names.index(name) for name in model.reads]

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the names of the heads, whose scores follow the model's own."""
        return tuple(self._model.heads)

    def score_learn(self, batch: Batch) -> Float64:
        """Return (n, 1 + heads): the probability of any cause, then of each; learning between."""
        chosen = self.examples(batch)
        scores = self._model.run(
            np.ascontiguousarray(batch.X[:, self._columns]), batch.scorable,
            np.ascontiguousarray(batch.learn_x[chosen][:, self._columns]),
            batch.learn_y[chosen] == 1, batch.learn_weight[chosen], batch.learn_before[chosen],
        )  # fmt: skip
        return self.served(scores)

    def contributions(self, x: Float64, usual: Float64) -> Float64:
        """Return what each feature did to the log odds that any cause is at work."""
        did = np.zeros(len(x))
        some = x[self._columns], usual[self._columns]
        did[self._columns] = differences(self._model.log_odds, *some)
        return did

    def to_state(self) -> State:
        """Return what was learned."""
        return {"kind": self.kind, **self._model.to_state()}

    def take(self, state: State) -> None:
        """Take a state of this kind."""
        self._model.restore(state)

    def to_river(self) -> Causes:
        """Return an estimator that goes on exactly where this twin is; the twin stays."""
        return self._model.copy()


def causes_twin_of(model: Any, names: tuple[str, ...]) -> CausesTwin | None:
    """Return the twin of an estimator, or None where it is not one or too large."""
    if type(model) is not Causes or model.weights.size > WEIGHTS_MAX:
        return None
    numbers = np.concatenate([model.constants, model.intercepts])
    is_plain = bool((np.abs(numbers) <= ABSOLUTE_MAX).all()) and set(model.reads) <= set(names)
    return CausesTwin(model, names) if is_plain else None
