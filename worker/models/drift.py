"""Drift: has the stream changed, in features, scores or errors? Monitors behind one interface.

Each monitor is fed the examples of the training log, in its order, and says in words what it found.
So all workers find the same at the same version. Features are compared by the population stability
index, PSI = Σ (p − q) ln(p / q) over ten bins with equal shares in the reference (0.1 is a small
shift, 0.25 a large one). Source: Siddiqi, "Credit Risk Scorecards" (2006), chapter 10. Scores and
errors go through a detector of River.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol  # River's detectors have no types

import numpy as np
from river import drift

from worker.contracts.records import Float64, Int64
from worker.models.plain import State
from worker.models.structure import from_plain, to_plain

DETECTORS: Mapping[str, Callable[..., Any]] = {
    "adwin": drift.ADWIN,
    "page_hinkley": drift.PageHinkley,
    "kswin": functools.partial(drift.KSWIN, seed=0),
}
"""Detectors by name, each with River's own parameters; no draw without a seed.

KSWIN makes a Kolmogorov-Smirnov test at every example, about 1 ms; the others cost some µs.
"""

PSI_BINS = 10
_SHARE_MIN = 1e-4
_NAMED_MAX = 5
_LATELY = 0.02  # weight of the newest error in the mean of the last ones


class Monitor(Protocol):
    """Watches one thing; its state is a fold of the examples it was fed."""

    def feed(self, X: Float64, scores: Float64, y: Int64) -> list[str]:
        """Take examples and return, in words, each drift that was found in them.

        Parameters
        ----------
        X
            (m, features).
        scores
            (m,): the watched model's served scores in [0, 1], NaN where unknown.
        y
            (m,): 1 or 0, or -1 without a label.
        """

    def to_state(self) -> State:
        """Return what it has seen as plain values."""

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""


class FeatureMonitor:
    """PSI of every feature in windows, against the first window since the last drift.

    Parameters
    ----------
    threshold
        PSI from which on a feature has drifted.
    window
        Examples to a window. The first one is the reference, then each that has drifted: a shift
        that stays is said once.

    Examples
    --------
    >>> monitor = FeatureMonitor(("amount",), threshold=0.25, window=100)
    >>> calm = np.arange(100.0).reshape(-1, 1)
    >>> none, none = np.full(100, np.nan), np.full(100, -1)
    >>> [monitor.feed(X, none, none) for X in (calm, calm, calm + 80, calm + 80)]
    [[], [], ['features drifted: amount (PSI 7.28)'], []]
    """

    def __init__(self, names: Sequence[str], threshold: float, window: int) -> None:
        self._names, self._threshold, self._window = tuple(names), threshold, window
        self._rows = np.empty((0, len(names)))
        self._edges: Float64 | None = None  # (features, PSI_BINS - 1)
        self._reference = np.zeros((len(names), PSI_BINS))

    def feed(self, X: Float64, scores: Float64, y: Int64) -> list[str]:
        """Return a sentence per window in which some feature has drifted."""
        found = []
        while len(X):
            room = self._window - len(self._rows)
            self._rows = np.concatenate([self._rows, X[:room]])
            X = X[room:]
            if len(self._rows) == self._window:
                found += self._close()
        return found

    def to_state(self) -> State:
        """Return the window in hand and the reference."""
        edges = np.empty((0, 0)) if self._edges is None else self._edges
        return {"rows": self._rows.copy(), "edges": edges, "reference": self._reference.copy()}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        self._rows, self._reference = state["rows"], state["reference"]
        self._edges = state["edges"] if state["edges"].size else None

    def _close(self) -> list[str]:
        rows, self._rows = self._rows, self._rows[:0]
        if self._edges is None:
            self._refer(rows)
            return []
        p, q = self._shares(rows), self._reference
        psi = ((p - q) * np.log(p / q)).sum(axis=1)
        order = np.argsort(-psi, kind="stable")
        worst = [i for i in order.tolist() if psi[i] >= self._threshold]
        if not worst:
            return []
        self._refer(rows)
        words = ", ".join(f"{self._names[i]} (PSI {psi[i]:.2f})" for i in worst[:_NAMED_MAX])
        more = f" and {len(worst) - _NAMED_MAX} more" if len(worst) > _NAMED_MAX else ""
        return [f"features drifted: {words}{more}"]

    def _refer(self, rows: Float64) -> None:
        """Compare what follows with these rows.

        A value that is several deciles has a bin of its own: it may be the largest, or nearly all.
        """
        quantiles = np.linspace(0, 1, PSI_BINS + 1)[1:-1]
        edges = np.ascontiguousarray(np.quantile(rows, quantiles, axis=0).T)
        first = np.zeros(edges.shape, np.bool_)  # of edges that are equal
        first[:, :-1] = edges[:, :-1] == edges[:, 1:]
        first[:, 1:] &= edges[:, 1:] != edges[:, :-1]
        self._edges = np.where(first, np.nextafter(edges, -np.inf), edges)
        self._reference = self._shares(rows)

    def _shares(self, rows: Float64) -> Float64:
        """Return each feature's share per bin, shape (features, bins), none of them zero."""
        assert self._edges is not None
        shares = np.empty((len(self._names), PSI_BINS))
        for f, edges in enumerate(self._edges):
            places = np.searchsorted(edges, rows[:, f], side="left")
            shares[f] = np.bincount(places, minlength=PSI_BINS) / len(rows)
        return np.maximum(shares, _SHARE_MIN)


class DetectorMonitor:
    """A detector of River on a model's served scores, or on how far they were from the truth.

    Parameters
    ----------
    on
        ``score``, or ``error``: |y − score| of the labelled examples. An error that falls is no
        drift: it is said only where the last errors are above those since the drift before.
    """

    def __init__(self, on: str, model: str, detector: str, params: Mapping[str, Any]) -> None:
        self._on, self._model = on, model
        self._detector = DETECTORS[detector](**params)
        self._lately, self._mean, self._count = 0.0, 0.0, 0

    def feed(self, X: Float64, scores: Float64, y: Int64) -> list[str]:
        """Return a sentence per example at which the detector says drift."""
        known = ~np.isnan(scores) & ((y >= 0) | (self._on == "score"))
        values = scores[known]
        if self._on == "error":
            values = np.abs(y[known] - values)
        found = []
        for value in values.tolist():
            self._count += 1
            self._mean += (value - self._mean) / self._count
            self._lately += (value - self._lately) * max(_LATELY, 1 / self._count)
            self._detector.update(value)
            if self._detector.drift_detected:
                if self._on == "score" or self._lately > self._mean:
                    found.append(f"the {self._on} of {self._model} drifted")
                self._mean, self._count = 0.0, 0
        return found

    def to_state(self) -> State:
        """Return the detector and the two means as plain values."""
        means = {"lately": self._lately, "mean": self._mean, "count": self._count}
        return {"detector": to_plain(self._detector), **means}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        self._detector = from_plain(state["detector"])
        self._lately, self._mean, self._count = state["lately"], state["mean"], state["count"]
