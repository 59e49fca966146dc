"""The compiled twin of `worker.models.causes.Causes`."""

from __future__ import annotations

import copy
from typing import Any  # River's classes have no types

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.models import causes_kernels as kernels
from worker.models.batch import Batch
from worker.models.bin_table import BinTable, fits
from worker.models.bins import bin_name, edges_max
from worker.models.causes import Causes
from worker.models.compiled import ABSOLUTE_MAX
from worker.models.plain import State, fit
from worker.models.twin import CompiledTwin

WEIGHTS_MAX = 1 << 24
"""Largest table that gets a twin: 16 bytes a weight."""

_NO_CROSSES = np.empty((0, 2), np.int64)


class CausesTwin(CompiledTwin):
    """`Causes` over flat arrays, bit-identical to it. Its heads are raw scores of their own.

    Made by `twins.twin_of`. Cost for two heads of 15 features: about 1 µs to score and to learn.

    Parameters
    ----------
    model
        The estimator; it is copied with what it has learned.
    names
        The features of every row, in order.
    """

    kind = "causes_twin"
    learned = ("_table", "_weights", "_squares", "_intercepts")

    def __init__(self, model: Causes, names: tuple[str, ...]) -> None:
        super().__init__()
        self._template = copy.deepcopy(model)
        self._names = names
        self._table = BinTable(model.bins, names)
        columns = [[names.index(f) for f in features] for features in model.heads.values()]
        self._members = np.array([i for row in columns for i in row], np.int64)
        self._starts = np.cumsum([0, *map(len, columns)], dtype=np.int64)
        self._intercepts = np.array(list(model.intercepts.values()), np.float64)
        self._constants = np.array(
            [model.lr, model.intercept_lr, model.weight_positive], np.float64
        )
        shape = (2, len(columns), len(names) * self._table.width)
        self._weights, self._squares = np.zeros(shape)
        places = {name: p for p, name in enumerate(self._weight_names())}
        for h, name in enumerate(model.heads):
            for key, weight in model.weights[name].items():
                self._weights[h, places[key]] = weight
                self._squares[h, places[key]] = model.squares[name][key]

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the names of the heads, whose scores follow the model's own."""
        return tuple(self._template.heads)

    def score_learn(self, batch: Batch) -> Float64:
        """Return (n, 1 + heads): the probability of any cause, then of each; learning between."""
        chosen = self.examples(batch)
        scores = np.empty((len(batch.X), 1 + len(self.heads)))
        self._table.in_parts(
            batch, chosen, lambda some, part, before: self._run(batch, some, part, before, scores)
        )
        return self.served(scores)

    def to_state(self) -> State:
        """Return what was learned: edges, the warm-up, weights and squares of every head."""
        return {
            "kind": self.kind,
            **self._table.to_state(),
            "weights": self._weights.copy(),
            "squares": self._squares.copy(),
            "intercepts": self._intercepts.copy(),
            "constants": self._constants.copy(),
        }

    def take(self, state: State) -> None:
        """Take a state of this kind."""
        assert np.array_equal(state["constants"], self._constants)
        self._table.restore(state)
        fit(state["weights"], self._weights)
        fit(state["squares"], self._squares)
        fit(state["intercepts"], self._intercepts)

    def to_river(self) -> Any:
        """Return an estimator that goes on exactly where this twin is; the twin stays."""
        model = copy.deepcopy(self._template)
        self._table.fill(model.bins)
        names = self._weight_names()
        for h, name in enumerate(self.heads):
            touched = np.flatnonzero(self._squares[h]).tolist()
            model.weights[name] = {names[p]: float(self._weights[h, p]) for p in touched}
            model.squares[name] = {names[p]: float(self._squares[h, p]) for p in touched}
            model.intercepts[name] = float(self._intercepts[h])
        return model

    def _run(
        self, batch: Batch, chosen: Int64, part: slice, before: Int64, scores: Float64
    ) -> None:
        kernels.score_learn(
            np.ascontiguousarray(batch.X[part]), batch.scorable[part],
            np.ascontiguousarray(batch.learn_x[chosen]), batch.learn_y[chosen] == 1,
            batch.learn_weight[chosen], before, self._table.edges, _NO_CROSSES,
            self._table.has_edges, self._weights, self._squares, self._intercepts, self._members,
            self._starts, self._constants, np.empty(len(self._names), np.int64),
            np.empty(len(self.heads)), scores[part],
        )  # fmt: skip

    def _weight_names(self) -> list[str]:
        """Return the name of every weight of a head, by place."""
        return [bin_name(name, k) for name in self._names for k in range(self._table.width)]


def causes_twin_of(model: Any, names: tuple[str, ...]) -> CausesTwin | None:
    """Return the twin of an estimator, or None where it is not one or has learned otherwise."""
    if type(model) is not Causes or not fits(model.bins, names):
        return None
    numbers = [model.lr, model.intercept_lr, model.weight_positive, *model.intercepts.values()]
    if any(type(v) not in (int, float) or abs(v) > ABSOLUTE_MAX for v in numbers):
        return None
    size = len(model.heads) * len(names) * (edges_max(model.bins.bins) + 1)
    is_known = all(f in names for features in model.heads.values() for f in features)
    return CausesTwin(model, names) if is_known and size <= WEIGHTS_MAX else None
