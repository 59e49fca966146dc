"""The compiled twin of `LearnedBins | LogisticRegression(AdaGrad)`."""

from __future__ import annotations

import copy
from typing import Any  # River's classes have no types

import numpy as np
from river import compose, linear_model, optim
from river.utils import VectorDict

from worker.contracts.records import Float64, Int64
from worker.models import binned_kernels as kernels
from worker.models.batch import Batch
from worker.models.bin_table import BinTable, fits
from worker.models.bins import LearnedBins, bin_name, cross_name, edges_max
from worker.models.contributions import differences
from worker.models.linear_twin import constants_of, is_plain
from worker.models.plain import State, fit
from worker.models.reasons import Measure
from worker.models.twin import CompiledTwin

WEIGHTS_MAX = 1 << 24
"""Largest table that gets a twin: 24 bytes a weight."""


class BinnedTwin(CompiledTwin):
    """`LearnedBins | LogisticRegression(AdaGrad)` over flat arrays, bit-identical to River 0.26.

    Made by `twins.twin_of`. Cost for 90 features: about 4 µs to score, 5 µs to learn.

    Parameters
    ----------
    pipeline
        The River pipeline; it is copied with what it has learned.
    names
        The features of every row, in order.
    """

    kind = "binned_twin"
    learned = ("_table", "_weights", "_squares", "_ranks", "_intercept", "_counters")
    measure: Measure = "log_odds"

    def __init__(self, pipeline: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self._template = copy.deepcopy(pipeline)
        self._names = names
        bins, model = self._template.steps.values()
        columns = {name: i for i, name in enumerate(names)}
        pairs = [[columns[a], columns[b]] for a, b in bins.crosses]
        self._crosses = np.array(pairs, np.int64).reshape(-1, 2)
        self._table = BinTable(bins, names)
        self._width = self._table.width
        self._constants = constants_of(model)
        size = len(names) * self._width + len(pairs) * self._width**2
        self._weights, self._squares = np.zeros((2, size))
        self._ranks = np.zeros(size, np.int64)
        self._intercept = np.array([model.intercept], dtype=np.float64)
        self._counters = np.array([model.optimizer.n_iterations, 0], np.int64)
        self._read_weights(model)

    def score_learn(self, batch: Batch) -> Float64:
        """Return the probability of class 1 of each event, learning in between."""
        chosen = self.examples(batch)
        scores = np.empty(len(batch.X))
        self._table.in_parts(
            batch, chosen, lambda some, part, before: self._run(batch, some, part, before, scores)
        )
        return self.served(scores)

    def contributions(self, x: Float64, usual: Float64) -> Float64:
        """Return what the weights of each feature's bin are above its usual bin's, in log odds; a
        cross is shared by its two features.
        """
        return differences(self._log_odds, x, usual)

    def to_state(self) -> State:
        """Return what was learned: edges, the weights that were touched, in order; the warm-up."""
        places = self._places()
        return {
            "kind": self.kind,
            **self._table.to_state(),
            "places": places,
            "weights": self._weights[places],
            "squares": self._squares[places],
            "intercept": self._intercept.copy(),
            "steps": int(self._counters[kernels.STEPS]),
            "constants": self._constants.copy(),
        }

    def take(self, state: State) -> None:
        """Take a state of this kind."""
        assert np.array_equal(state["constants"], self._constants)
        self._table.restore(state)
        fit(state["intercept"], self._intercept)
        places = state["places"]
        assert not len(places) or (places.min() >= 0 and places.max() < len(self._ranks))
        for array in (self._weights, self._squares, self._ranks):
            array[:] = 0
        self._weights[places], self._squares[places] = state["weights"], state["squares"]
        self._ranks[places] = np.arange(1, len(places) + 1)
        self._counters[:] = [state["steps"], len(places)]

    def to_river(self) -> Any:
        """Return a River pipeline that goes on exactly where this twin is; the twin stays."""
        pipeline = copy.deepcopy(self._template)
        bins, model = pipeline.steps.values()
        self._table.fill(bins)
        places = self._places()
        names = self._weight_names()
        touched = [names[p] for p in places.tolist()]
        model.intercept = float(self._intercept[0])
        model._weights = VectorDict(dict(zip(touched, self._weights[places].tolist(), strict=True)))
        model.optimizer.n_iterations = int(self._counters[kernels.STEPS])
        model.optimizer.g2.clear()
        model.optimizer.g2.update(zip(touched, self._squares[places].tolist(), strict=True))
        return pipeline

    @property
    def _bins(self) -> LearnedBins:
        bins = self._template[0]
        assert isinstance(bins, LearnedBins)
        return bins

    def _run(
        self, batch: Batch, chosen: Int64, part: slice, before: Int64, scores: Float64
    ) -> None:
        kernels.score_learn(
            np.ascontiguousarray(batch.X[part]), batch.scorable[part],
            np.ascontiguousarray(batch.learn_x[chosen]), batch.learn_y[chosen] == 1,
            batch.learn_weight[chosen], before, self._table.edges, self._crosses,
            self._table.has_edges, self._weights, self._squares, self._ranks, self._intercept,
            self._counters, self._constants,
            np.empty(len(self._names) + len(self._crosses), np.int64), scores[part],
        )  # fmt: skip

    def _log_odds(self, X: Float64) -> Float64:
        if not self._table.has_edges:
            return np.full(len(X), self._intercept[0])
        places = np.empty((len(X), len(self._names) + len(self._crosses)), np.int64)
        kernels.place_rows(X, self._table.edges, self._crosses, places)
        return self._weights[places].sum(axis=1) + self._intercept[0]  # type: ignore[no-any-return]

    def _places(self) -> Int64:
        """Return the weights that were touched, in the order in which they were."""
        touched = np.flatnonzero(self._ranks)
        return touched[np.argsort(self._ranks[touched])]

    def _weight_names(self) -> list[str]:
        """Return the name of every weight, by place."""
        bins = range(self._width)
        names = [bin_name(name, k) for name in self._names for k in bins]
        for a, b in self._bins.crosses:
            names += [cross_name(a, j, b, k) for j in bins for k in bins]
        return names

    def _read_weights(self, model: Any) -> None:
        if not model.weights:
            return
        places = {name: p for p, name in enumerate(self._weight_names())}
        for rank, (name, weight) in enumerate(model.weights.items(), 1):
            p = places[name]
            self._weights[p], self._squares[p] = weight, model.optimizer.g2[name]
            self._ranks[p] = rank
        self._counters[kernels.TOUCHED] = len(model.weights)


def binned_twin_of(pipeline: Any, names: tuple[str, ...]) -> BinnedTwin | None:
    """Return the twin of a pipeline, or None where it does something that the twin does not."""
    if type(pipeline) is not compose.Pipeline or len(pipeline) != 2:
        return None
    bins, model = pipeline.steps.values()
    if type(bins) is not LearnedBins or type(model) is not linear_model.LogisticRegression:
        return None
    if type(model.optimizer) is not optim.AdaGrad or model.l2 != 0 or not is_plain(model):
        return None
    width = edges_max(bins.bins) + 1
    size = len(names) * width + len(bins.crosses) * width**2
    is_known = all(name in names for pair in bins.crosses for name in pair)
    return BinnedTwin(pipeline, names) if is_known and size <= WEIGHTS_MAX and (
        _has_state_of(bins, model, names)) else None  # fmt: skip


def _has_state_of(bins: LearnedBins, model: Any, names: tuple[str, ...]) -> bool:
    """Return whether what was learned is about exactly these features, or nothing was."""
    return (
        fits(bins, names)
        and set(model.optimizer.g2) == set(model.weights)
        and (bool(bins.edges) or not model.weights)
    )
