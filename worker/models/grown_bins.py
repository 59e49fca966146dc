"""Bins whose edges are made anew as examples come: finer where there are values, and positives."""

from __future__ import annotations

import copy

import numpy as np

from worker.contracts.records import Bool, Float64, Int64
from worker.models.bins import TAILS, edges_of
from worker.models.plain import State

SAMPLE_MAX = 2048
"""Rows that a sample holds: 8 bytes a feature and row."""


class Sample:
    """Every ``stride``-th of all rows that ever came; the stride doubles when there are too many.

    >>> sample = Sample(1, rows_max=4)
    >>> sample.add(np.arange(11.0).reshape(-1, 1))
    >>> sample.rows[:, 0].tolist()
    [0.0, 4.0, 8.0]
    """

    def __init__(self, features: int, rows_max: int = SAMPLE_MAX) -> None:
        self.rows = np.empty((0, features))
        self.rows_max = rows_max
        self.count, self.stride = 0, 1

    def add(self, rows: Float64) -> None:
        """Take rows in order; the same however they are cut."""
        place = -self.count % self.stride  # of the next row that is kept
        while place < len(rows):
            room = self.rows_max - len(self.rows)
            kept = rows[place :: self.stride][:room]
            self.rows = np.concatenate([self.rows, kept])
            place += len(kept) * self.stride
            if len(self.rows) == self.rows_max:
                self.rows, self.stride = self.rows[::2].copy(), 2 * self.stride
                place += -(self.count + place) % self.stride
        self.count += len(rows)

    def to_state(self) -> State:
        """Return what was kept as plain values."""
        return {"rows": self.rows.copy(), "count": self.count, "stride": self.stride}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        assert state["rows"].shape[1] == self.rows.shape[1]
        assert len(state["rows"]) < self.rows_max
        self.rows, self.count, self.stride = state["rows"], state["count"], state["stride"]


class GrownBins:
    """Edges of each feature, from samples of all examples and of the positive ones.

    Half of the bins are quantiles of all examples, with finer ones in both tails; half are
    quantiles of the positive ones, where a value that many of them share gets a bin of its own: a
    rare class lies where few examples are. They are made at ``warm_up`` examples, and anew
    at twice, four times, ... as many.

    Parameters
    ----------
    bins
        About so many a feature, 4 to 256.
    warm_up
        Examples before the first edges.
    features
        How many there are.
    """

    def __init__(self, bins: int, warm_up: int, features: int) -> None:
        if not (4 <= bins <= 256 and 8 <= warm_up <= 1_000_000):
            raise ValueError("bins lie in 4 to 256, warm_up in 8 to 1,000,000")
        self.half = bins // 2
        self.width = 3 * self.half + 2 * TAILS  # bins of a feature, at most
        self.edges = np.full((features, self.width - 1), np.inf)
        self.next_fit = warm_up
        self.samples = Sample(features), Sample(features)

    @property
    def has_edges(self) -> bool:
        """Return whether the warm-up is over."""
        return bool(np.isfinite(self.edges).any())

    @property
    def until_fit(self) -> int:
        """Return how many more examples make the edges anew, at least 1."""
        return self.next_fit - self.samples[0].count

    def learn(self, X: Float64, positive: Bool) -> Int64 | None:
        """Take at most `until_fit` examples.

        Returns
        -------
        None as long as the edges stay, else per feature and new bin (f, width) the old bin in which
        it begins; -1 for a bin that is not there.
        """
        assert len(X) <= self.until_fit, (len(X), self.until_fit)
        self.samples[0].add(X)
        self.samples[1].add(X[positive])
        if self.until_fit:
            return None
        self.next_fit *= 2
        return self._fit()

    def copy(self) -> GrownBins:
        """Return one that learns on its own; rows that are kept never change."""
        other = copy.copy(self)
        rows, positives = self.samples
        other.edges = self.edges.copy()
        other.samples = copy.copy(rows), copy.copy(positives)
        return other

    def to_state(self) -> State:
        """Return edges and samples as plain values."""
        return {
            "edges": self.edges.copy(),
            "next_fit": self.next_fit,
            "samples": [sample.to_state() for sample in self.samples],
        }

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        assert state["edges"].shape == self.edges.shape
        self.edges, self.next_fit = state["edges"].copy(), state["next_fit"]
        for sample, part in zip(self.samples, state["samples"], strict=True):
            sample.restore(part)

    def _fit(self) -> Int64:
        before, origin = self.edges, np.full((len(self.edges), self.width), -1)
        self.edges = np.full_like(before, np.inf)
        rows, positives = (sample.rows for sample in self.samples)
        for i in range(len(before)):
            found = set(edges_of(rows[:, i], self.half))
            if len(positives):
                found |= set(even_edges(positives[:, i], self.half))
            edges = sorted(found)
            self.edges[i, : len(edges)] = edges
            origin[i, : len(edges) + 1] = np.searchsorted(before[i], [-np.inf, *edges], "right")
        return origin


def even_edges(values: Float64, bins: int) -> list[float]:
    """Return increasing edges between bins of about equal counts, fewer than twice ``bins``.

    A value that alone makes up a bin gets one of its own, and the others share the rest.

    >>> even_edges(np.array([0.0] * 90 + [1.0, 2.0, 3.0, 4.0]), 3)
    [1.0, 3.0]
    """
    found, counts = np.unique(values + 0.0, return_counts=True)
    heavy = counts * bins >= len(values)
    share = counts[~heavy].sum() / max(bins - int(heavy.sum()), 1)
    edges: list[float] = []
    inside = 0.0
    for value, count, is_heavy in zip(found.tolist(), counts, heavy, strict=True):
        if inside and (is_heavy or inside >= share):
            edges.append(value)
            inside = 0.0
        inside += np.inf if is_heavy else count
    return edges
