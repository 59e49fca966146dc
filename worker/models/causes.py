"""Several causes of one event: a head per entity that can be to blame, joined by noisy-or."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any  # keys and values of River's dicts

import numpy as np
from river import base

from worker.contracts.records import Bool, Float64, Int64
from worker.models import causes_kernels as kernels
from worker.models.grown_bins import GrownBins
from worker.models.plain import State, fit

_NO_CROSSES = np.empty((0, 2), np.int64)


class Causes(base.Classifier):
    """An event is bad if any cause is at work: P = 1 - (1 - p_card) (1 - p_terminal) ...

    Each head is a logistic regression over the bins of its own features. A bad event teaches a head
    by its share of the blame, the probability p / P that this cause was at work; a good event
    teaches all heads that they were not. That is the gradient of the joint likelihood. Weights move
    by AdaGrad. When the bins' edges are made anew, a bin goes on with the weight of the one in
    which it begins, and bins that one was split into share its sum of squares.

    Parameters
    ----------
    heads
        Features of each head, by the name of the head.
    bins, warm_up
        As of `GrownBins`, which all heads share.
    lr, intercept_lr, intercept_init
        AdaGrad's rate of the weights; constant rate and start of each head's intercept.
    weight_positive
        Weight of a positive example.
    """

    def __init__(
        self,
        heads: Mapping[str, Sequence[str]],
        bins: int = 32,
        warm_up: int = 1000,
        lr: float = 0.2,
        intercept_lr: float = 0.01,
        intercept_init: float = -4.0,
        weight_positive: float = 1.0,
    ) -> None:
        if not heads or not all(heads.values()):
            raise ValueError("heads are a mapping of names to features, at least one each")
        self.heads = {name: list(features) for name, features in heads.items()}
        self.bins, self.warm_up = bins, warm_up
        self.lr, self.intercept_lr, self.intercept_init = lr, intercept_lr, intercept_init
        self.weight_positive = weight_positive
        self.constants = np.array([lr, intercept_lr, weight_positive], np.float64)
        place = {name: i for i, name in enumerate(self.reads)}
        self.members = np.array([place[f] for row in self.heads.values() for f in row], np.int64)
        self.starts = np.cumsum([0, *map(len, self.heads.values())], dtype=np.int64)
        self.table = GrownBins(bins, warm_up, len(place))
        shape = (2, len(heads), len(place) * self.table.width)
        self.weights, self.squares = np.zeros(shape)
        self.intercepts = np.full(len(heads), float(intercept_init))

    @property
    def reads(self) -> list[str]:
        """Return the features that must be there, each once."""
        return list(dict.fromkeys(f for features in self.heads.values() for f in features))

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        """Teach each head by its share of the blame."""
        row, before = self._row(x), np.zeros(1, np.int64)
        self.run(
            row[:0],
            np.ones(0, np.bool_),
            row,
            np.array([bool(y)]),
            np.array([w], np.float64),
            before,
        )

    def predict_heads_one(self, x: dict[Any, Any]) -> dict[str, float]:
        """Return the probability that each cause is at work."""
        return dict(zip(self.heads, self._scores(x)[1:], strict=True))

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[bool | str | int, float]:
        """Return the probability that any cause is at work."""
        whole = self._scores(x)[0]
        return {False: 1.0 - whole, True: whole}

    def run(
        self, X: Float64, scorable: Bool, learn_X: Float64, positive: Bool, weight: Float64,
        before: Int64,
    ) -> Float64:  # fmt: skip
        """Return (n, 1 + heads) probabilities, of any cause and of each, learning in between.

        X and ``learn_X`` have the columns of `reads`. The example with which the edges are made
        anew is learned in the new bins.
        """
        scores = np.empty((len(X), 1 + len(self.heads)))
        done = start = sampled = 0
        while True:
            last = sampled + self.table.until_fit - 1
            is_due = last < len(before)
            stop, until = (last, int(before[last])) if is_due else (len(before), len(X))
            some, part = slice(done, stop), slice(start, until)
            kernels.score_learn(
                X[part], scorable[part], learn_X[some], positive[some], weight[some],
                before[some] - start, self.table.edges, _NO_CROSSES, self.table.has_edges,
                self.weights, self.squares, self.intercepts, self.members, self.starts,
                self.constants, np.empty(X.shape[1], np.int64), np.empty(len(self.heads)),
                scores[part],
            )  # fmt: skip
            rows = slice(sampled, stop + is_due)
            origin = self.table.learn(learn_X[rows], positive[rows])
            if origin is None:
                return scores
            self._move(origin)
            done, start, sampled = stop, until, rows.stop

    def log_odds(self, X: Float64) -> Float64:
        """Return the log odds (n,) that any cause is at work; X has the columns of `reads`."""
        p = self._served(X)[:, 0]
        return np.log(p) - np.log1p(-p)

    def copy(self) -> Causes:
        """Return one that learns on its own."""
        other = copy.copy(self)
        for name in ("table", "weights", "squares", "intercepts"):
            setattr(other, name, getattr(self, name).copy())
        return other

    def to_state(self) -> State:
        """Return what was learned: edges and samples, weights and squares of every head."""
        arrays = {name: getattr(self, name).copy() for name in _ARRAYS}
        return {"table": self.table.to_state(), **arrays}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave, in one that was built from the same settings."""
        assert np.array_equal(state["constants"], self.constants)
        self.table.restore(state["table"])
        for name in _ARRAYS:
            fit(state[name], getattr(self, name))

    def _move(self, origin: Int64) -> None:
        """Give new bins what the old ones had learned; ``origin`` as `GrownBins.learn` gave it."""
        width = self.table.width
        for i, row in enumerate(origin):
            old, there = i * width + row[row >= 0], slice(i * width, (i + 1) * width)
            parts = np.bincount(old)[old]
            for h in range(len(self.heads)):
                weights, squares = self.weights[h, old], self.squares[h, old] / parts
                self.weights[h, there] = self.squares[h, there] = 0.0
                self.weights[h, there][: len(old)] = weights
                self.squares[h, there][: len(old)] = squares

    def _scores(self, x: dict[Any, Any]) -> list[float]:
        return self._served(self._row(x))[0].tolist()  # type: ignore[no-any-return]  # numpy's Any

    def _served(self, X: Float64) -> Float64:
        nothing = np.empty(0)
        none = (nothing.astype(np.bool_), nothing, nothing.astype(np.int64))
        return self.run(X, np.ones(len(X), np.bool_), X[:0], *none)

    def _row(self, x: dict[Any, Any]) -> Float64:
        return np.array([[x[name] for name in self.reads]], np.float64)


_ARRAYS = ("constants", "weights", "squares", "intercepts")
