"""The compiled twin of River's `StandardScaler | LogisticRegression`."""

from __future__ import annotations

import copy
from typing import Any  # River's classes have no types

import numpy as np
from river import compose, linear_model, optim, preprocessing
from river.utils import VectorDict

from worker.contracts.records import Float64
from worker.models import linear_kernels as kernels
from worker.models.batch import Batch
from worker.models.compiled import ABSOLUTE_MAX
from worker.models.plain import State, fit
from worker.models.reasons import Measure
from worker.models.twin import CompiledTwin

_OPTIMIZERS = {
    optim.SGD: kernels.SGD,
    optim.AdaGrad: kernels.ADAGRAD,
    optim.Adam: kernels.ADAM,
}


class LinearTwin(CompiledTwin):
    """`StandardScaler | LogisticRegression` over flat arrays, bit-identical to River 0.26.

    Made by `twins.twin_of`. Cost for 90 features: about 0.2 µs to score, 1 to 3 µs to learn.

    Parameters
    ----------
    pipeline
        The River pipeline; it is copied with what it has learned.
    names
        The features of every row, in order.
    """

    kind = "linear_twin"
    learned = ("_features", "_intercept", "_counters")
    measure: Measure = "log_odds"

    def __init__(self, pipeline: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self._template = copy.deepcopy(pipeline)
        self._names = names
        scaler, model = self._template.steps.values()
        self._optimizer = _OPTIMIZERS[type(model.optimizer)]
        self._with_std = bool(scaler.with_std)
        self._constants = constants_of(model)
        self._features = _features(scaler, model, names)
        self._intercept = np.array([model.intercept], dtype=np.float64)
        self._counters = np.array(
            [model.optimizer.n_iterations, bool(scaler.means or scaler.vars)], np.int64
        )

    def score_learn(self, batch: Batch) -> Float64:
        """Return the probability of class 1 of each event, learning in between, in one kernel."""
        chosen = self.examples(batch)
        scores = np.empty(len(batch.X))
        kernels.score_learn(
            np.ascontiguousarray(batch.X), batch.scorable,
            np.ascontiguousarray(batch.learn_x[chosen]), batch.learn_y[chosen] == 1,
            batch.learn_weight[chosen], batch.learn_before[chosen],
            self._features, self._intercept, self._counters, self._constants,
            self._optimizer, self._with_std, np.empty(len(self._names)), scores,
        )  # fmt: skip
        return self.served(scores)

    def contributions(self, x: Float64, usual: Float64) -> Float64:
        """Return weight times scaled distance from the usual value of each feature, in log odds.

        A feature that never varied adds nothing.
        """
        spread, weight = self._features[kernels.SPREAD], self._features[kernels.WEIGHT]
        if not self._with_std:
            return weight * (x - usual)  # type: ignore[no-any-return]  # numpy's Any
        known = spread != 0.0
        return np.where(known, weight * (x - usual) / np.where(known, spread, 1.0), 0.0)

    def to_state(self) -> State:
        """Return what was learned: the table of features, the intercept, and how many steps."""
        return {
            "kind": self.kind,
            "features": self._features + 0.0,  # -0.0 and 0.0 are one: scoring may tell which
            "intercept": self._intercept.copy(),
            "steps": int(self._counters[kernels.STEPS]),
            "constants": self._constants.copy(),
        }

    def take(self, state: State) -> None:
        """Take a state of this kind."""
        assert np.array_equal(state["constants"], self._constants)
        fit(state["features"], self._features)
        fit(state["intercept"], self._intercept)
        self._counters[:] = [state["steps"], state["features"][kernels.COUNT].any()]

    def to_river(self) -> Any:
        """Return a River pipeline that goes on exactly where this twin is; the twin stays."""
        pipeline = copy.deepcopy(self._template)
        scaler, model = pipeline.steps.values()
        self._fill_scaler(scaler)
        self._fill_model(model)
        return pipeline

    def _column(self, row: int) -> dict[str, float]:
        return dict(zip(self._names, self._features[row].tolist(), strict=True))

    def _fill_scaler(self, scaler: Any) -> None:
        counts = {k: int(n) for k, n in self._column(kernels.COUNT).items() if n}
        is_seen = bool(self._counters[kernels.SCALER_SEEN])
        scaler.counts.clear()  # a Counter adds what it is updated with
        scaler.counts.update(counts)
        # Scoring alone makes River look at variances, or at means where there are none.
        if counts or (is_seen and not self._with_std):
            scaler.means.update(self._column(kernels.MEAN))
        if self._with_std and is_seen:
            scaler.vars.update(self._column(kernels.VARIANCE))

    def _fill_model(self, model: Any) -> None:
        steps = int(self._counters[kernels.STEPS])
        if not steps:
            return
        model.intercept = float(self._intercept[0])
        model._weights = VectorDict(self._column(kernels.WEIGHT))
        model.optimizer.n_iterations = steps
        if self._optimizer == kernels.ADAGRAD:
            model.optimizer.g2.update(self._column(kernels.MOMENT_2))
        elif self._optimizer == kernels.ADAM:
            model.optimizer.m = VectorDict(self._column(kernels.MOMENT_1))
            model.optimizer.v = VectorDict(self._column(kernels.MOMENT_2))


def linear_twin_of(pipeline: Any, names: tuple[str, ...]) -> LinearTwin | None:
    """Return the twin of a pipeline, or None where it does something that the twin does not."""
    if type(pipeline) is not compose.Pipeline or len(pipeline) != 2:
        return None
    scaler, model = pipeline.steps.values()
    if type(scaler) is not preprocessing.StandardScaler or scaler.window_size is not None:
        return None
    if type(model) is not linear_model.LogisticRegression or not is_plain(model):
        return None
    return LinearTwin(pipeline, names) if _has_state_of(scaler, model, set(names)) else None


def is_plain(model: Any) -> bool:
    """Return whether every part of a logistic regression is one that the kernels know."""
    optimizer = model.optimizer
    return (
        type(optimizer) in _OPTIMIZERS
        and type(optimizer.lr) is optim.schedulers.Constant
        and type(model.intercept_lr) is optim.schedulers.Constant
        and type(model.loss) is optim.losses.Log
        and type(model.initializer) is optim.initializers.Zeros
        and _is_number(model.l1)
        and model.l1 == 0
        and all(_is_number(v) for v in [model.intercept, *_constant_values(model)])
        and model.clip_gradient >= 0
        and _divides_safely(optimizer)
    )


def _divides_safely(optimizer: Any) -> bool:
    """Return whether no step can divide by zero, where Python raises and the kernels do not."""
    betas = (getattr(optimizer, "beta_1", 0.0), getattr(optimizer, "beta_2", 0.0))
    return getattr(optimizer, "eps", 1.0) > 0.0 and all(0.0 <= beta < 1.0 for beta in betas)


def _is_number(value: Any) -> bool:
    """Return whether a parameter is one with which no power overflows, where Python would raise."""
    return type(value) in (int, float) and abs(value) <= ABSOLUTE_MAX


def _has_state_of(scaler: Any, model: Any, names: set[str]) -> bool:
    """Return whether what was learned is about exactly these features, or nothing was."""
    weights = set(model.weights)
    scaled = set(scaler.counts)
    moments = getattr(model.optimizer, "g2", None) or getattr(model.optimizer, "v", None) or names
    return (
        set(scaler.means) <= names
        and scaled in (set(), names)
        and weights == (names if model.optimizer.n_iterations else set())
        and set(moments) == names
        and (scaled == names or not weights)
        and not isinstance(moments, np.ndarray)
    )


def _constant_values(model: Any) -> list[Any]:
    optimizer, loss = model.optimizer, model.loss
    return [
        optimizer.lr.learning_rate, model.intercept_lr.learning_rate, model.l2, model.clip_gradient,
        loss.weight_pos, loss.weight_neg,
        getattr(optimizer, "beta_1", 0.0), getattr(optimizer, "beta_2", 0.0),
        getattr(optimizer, "eps", 0.0),
    ]  # fmt: skip


def constants_of(model: Any) -> Float64:
    return np.array([*_constant_values(model), 0.5, 2.0], dtype=np.float64)


def _features(scaler: Any, model: Any, names: tuple[str, ...]) -> Float64:
    """Return the kernels' table of features, filled with what the pipeline has learned."""
    first = getattr(model.optimizer, "m", None) or {}
    second = getattr(model.optimizer, "g2", None) or getattr(model.optimizer, "v", None) or {}
    columns = [scaler.counts, scaler.means, scaler.vars, {}, model.weights, first, second]
    table = [[float(dict(column).get(name, 0.0)) for name in names] for column in columns]
    table[kernels.SPREAD] = [v**0.5 for v in table[kernels.VARIANCE]]
    return np.array(table, dtype=np.float64)
