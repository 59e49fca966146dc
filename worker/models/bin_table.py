"""What the twins over learned bins share: edges as a table, and the warm-up before them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.models.batch import Batch
from worker.models.bins import LearnedBins, edges_max, edges_of
from worker.models.plain import State, fit

Run = Callable[[Int64, slice, Int64], None]
"""Score the events of a slice, learning the chosen examples in between."""


class BinTable:
    """The edges of `LearnedBins` for the features called ``names``, as the kernels read them."""

    def __init__(self, bins: LearnedBins, names: tuple[str, ...]) -> None:
        self.bins = bins.bins
        self.width = edges_max(bins.bins) + 1
        self.edges = np.full((len(names), self.width - 1), np.inf)
        self.has_edges = bool(bins.edges)
        self._names = names
        self._warm_up = bins.warm_up
        self._blocks = [np.array(bins.kept, np.float64).reshape(-1, len(names))]
        self._count = len(bins.kept)
        for i, name in enumerate(names):
            edges = bins.edges.get(name, [])
            self.edges[i, : len(edges)] = edges

    def in_parts(self, batch: Batch, chosen: Int64, run: Run) -> None:
        """Call ``run`` once, or twice where the warm-up ends in this batch.

        The example that ends it is learned in its bins, so it begins the second part.
        """
        before, count = batch.learn_before[chosen], len(batch.X)
        done, start = 0, 0
        if not self.has_edges:
            left = self._warm_up - self._count
            done = min(left - 1, len(chosen))
            start = int(before[done]) if left <= len(chosen) else count
            run(chosen[:done], slice(0, start), before[:done])
            self._keep(batch.learn_x[chosen[:left]])
        run(chosen[done:], slice(start, count), before[done:] - start)

    def copy(self) -> BinTable:
        """Return one that learns on its own; the examples that are kept never change."""
        other = copy.copy(self)
        other.edges, other._blocks = self.edges.copy(), list(self._blocks)
        return other

    def to_state(self) -> State:
        """Return edges and warm-up as plain values."""
        return {
            "has_edges": self.has_edges,
            "edges": self.edges.copy(),
            "kept": self._kept().copy(),
        }

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        assert state["kept"].shape[1] == len(self._names)
        fit(state["edges"], self.edges)
        self._blocks, self._count = [state["kept"]], len(state["kept"])
        self.has_edges = bool(state["has_edges"])

    def fill(self, bins: LearnedBins) -> None:
        """Give River's form what was learned here."""
        bins.kept = self._kept().tolist()
        bins.edges = {}
        if self.has_edges:
            rows = zip(self._names, self.edges, strict=True)
            bins.edges = {name: row[np.isfinite(row)].tolist() for name, row in rows}

    def _keep(self, rows: Float64) -> None:
        self._blocks.append(rows)  # joined when asked for: a warm-up is long, batches are many
        self._count += len(rows)
        if self._count == self._warm_up:
            for i, column in enumerate(self._kept().T):
                edges = edges_of(column, self.bins)
                self.edges[i, : len(edges)] = edges
            self._blocks, self._count = [self._blocks[0][:0]], 0
            self.has_edges = True

    def _kept(self) -> Float64:
        """Return the rows of the warm-up so far."""
        self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0]


def fits(bins: LearnedBins, names: tuple[str, ...]) -> bool:
    """Return whether bins have learned about exactly these features, or nothing."""
    widths = {len(row) for row in bins.kept}
    return list(bins.edges) in ([], list(names)) and widths <= {len(names)}
