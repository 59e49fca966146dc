"""How far an event lies from where events usually lie, all features together."""

from __future__ import annotations

import copy
from typing import Any  # keys and values of River's dicts

import numpy as np
from river import base

from worker.contracts.records import Bool, Float64, Int64
from worker.models import distance_kernels as kernels
from worker.models.batch import Batch
from worker.models.plain import State, fit
from worker.models.twin import CompiledTwin

FEATURES_MAX = 1_000


class RobustDistance(base.AnomalyDetector):
    """Mahalanobis distance from a mean and a covariance that forget and that outliers barely move.

    Median and spread of each feature in the first ``warm_up`` examples are its scale. From then on
    mean and covariance are exponentially weighted; an example whose squared distance is more than
    three standard deviations above the expected one is learned as if it lay there, on its ray. The
    score is the root of the squared distance per feature: about 1.0 is usual.

    Parameters
    ----------
    window
        Examples that count; an older one fades.
    warm_up
        Examples that are kept for the scale; until then the score is 0.0.

    Examples
    --------
    >>> model = RobustDistance(warm_up=20)
    >>> for i in range(200):
    ...     model.learn_one({"a": float(i % 7), "b": float(i % 7 + i % 2)})
    >>> model.score_one({"a": 6.0, "b": 1.0}) > 2.0 > model.score_one({"a": 6.0, "b": 6.0})
    True

    *Source*: Maronna 1976, doi 10.1214/aos/1176343347 (covariance with weights that fall with the
    distance), here in its online form.
    """

    def __init__(self, window: int = 10_000, warm_up: int = 100) -> None:
        if not 10 <= warm_up <= window <= 1_000_000_000:
            raise ValueError("10 <= warm_up <= window <= 1,000,000,000 must hold")
        self.window = window
        self.warm_up = warm_up
        self.names: list[Any] = []
        self.arrays: dict[str, Any] = {}

    def learn_one(self, x: dict[Any, Any]) -> None:
        """Learn an example; the features are those of the first one."""
        if not self.names:
            self.begin(list(x))
        self._run(np.empty((0, len(self.names))), self._row(x))

    def score_one(self, x: dict[Any, Any]) -> float:
        """Return the distance of x; 0.0 during the warm-up."""
        if not self.names:
            return 0.0
        row = self._row(x)
        return float(self._run(row, row[:0])[0])

    def begin(self, names: list[Any]) -> None:
        """Take the names of the features, before anything is learned."""
        f = len(names)
        self.names = names
        self.arrays = {
            "kept": np.zeros((self.warm_up, f)),
            "places": np.zeros((5, f)),
            "covariance": np.zeros((f, f)),
            "factor": np.zeros((f, f)),
            "counters": np.zeros(2, np.int64),
        }

    def run(self, X: Float64, scorable: Bool, learn_X: Float64, before: Int64) -> Float64:
        """Return the distances of a batch, NaN where not scorable, learning in between."""
        scores = np.empty(len(X))
        a = self.arrays
        kernels.score_learn(
            X, scorable, learn_X, before, self.window, a["kept"], a["places"], a["covariance"],
            a["factor"], a["counters"], scores,
        )  # fmt: skip
        a["places"][kernels.Z :] = 0.0  # scratch is no part of the state
        return scores

    def copy(self) -> RobustDistance:
        """Return one that learns on its own."""
        return copy.deepcopy(self)

    def _run(self, X: Float64, learn_X: Float64) -> Float64:
        return self.run(X, np.ones(len(X), np.bool_), learn_X, np.zeros(len(learn_X), np.int64))

    def _row(self, x: dict[Any, Any]) -> Float64:
        return np.array([[x[name] for name in self.names]], np.float64)


class DistanceTwin(CompiledTwin):
    """`RobustDistance` over whole batches: the same machine code, called once.

    Parameters
    ----------
    model
        It is copied with what it has learned.
    names
        The features of every row, in order.
    """

    kind = "distance_twin"
    learned = ("_model",)
    learns_from_labels = False

    def __init__(self, model: RobustDistance, names: tuple[str, ...]) -> None:
        super().__init__()
        self._model = copy.deepcopy(model)
        if not self._model.names:
            self._model.begin(list(names))

    def score_learn(self, batch: Batch) -> Float64:
        """Return the distance of each event, learning in between."""
        chosen = self.examples(batch)
        X, learn_x = np.ascontiguousarray(batch.X), np.ascontiguousarray(batch.learn_x[chosen])
        scores = self._model.run(X, batch.scorable, learn_x, batch.learn_before[chosen])
        return self.served(scores)

    def to_state(self) -> State:
        """Return what was learned; the warm-up's examples while it lasts."""
        copies = {name: array.copy() for name, array in self._model.arrays.items()}
        if copies["counters"][kernels.IS_STARTED]:
            copies["kept"] = copies["kept"][:0]
        return {"kind": self.kind, **copies}

    def take(self, state: State) -> None:
        """Take a state of this kind."""
        arrays = self._model.arrays
        count, is_started = state["counters"].tolist()
        assert count >= 0 and (is_started or count < len(arrays["kept"]))
        kept = np.zeros_like(arrays["kept"]) if is_started else state["kept"]
        for name, value in {**state, "kept": kept}.items():
            if name != "kind":
                fit(value, arrays[name])

    def to_river(self) -> RobustDistance:
        """Return an estimator that goes on exactly where this twin is; the twin stays."""
        return copy.deepcopy(self._model)


def distance_twin_of(model: Any, names: tuple[str, ...]) -> DistanceTwin | None:
    """Return the twin of an estimator, or None where it is not one or has other features."""
    if type(model) is not RobustDistance or len(names) > FEATURES_MAX:
        return None
    return DistanceTwin(model, names) if model.names in ([], list(names)) else None
