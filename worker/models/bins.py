"""Bins that are learned: a number becomes the name of the range it lies in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any  # River's transformers give dicts of whatever they like

import numpy as np
from river import base

TAILS = 3
"""How often the first and the last bin are halved: rare values are what a model is asked about."""


class LearnedBins(base.Transformer):
    """Each feature as the name of its bin, with value 1.0: a linear model then learns any curve.

    The edges are quantiles of the first ``warm_up`` examples, with finer ones in both tails, and
    stay. Until then the result is empty, so that a linear model learns its intercept. A bin
    contains its lower edge.

    Parameters
    ----------
    bins
        Bins of a feature, before the tails are halved three times more.
    warm_up
        Examples that are kept until the edges are made: 8 bytes a feature and example.
    crosses
        Pairs of features whose bins give one more name each.

    Examples
    --------
    >>> bins = LearnedBins(bins=4, warm_up=8)
    >>> for amount in range(8):
    ...     bins.learn_one({"amount": float(amount)})
    >>> bins.transform_one({"amount": 4.0})
    {'amount=3': 1.0}
    """

    def __init__(
        self, bins: int = 32, warm_up: int = 1000, crosses: Sequence[Sequence[str]] = ()
    ) -> None:
        if not (2 <= bins <= 256 and 8 <= warm_up <= 1_000_000):
            raise ValueError("bins lie in 2 to 256, warm_up in 8 to 1,000,000")
        if any(len(pair) != 2 or pair[0] == pair[1] for pair in crosses):
            raise ValueError("each of crosses is a pair of two different features")
        self.bins = bins
        self.warm_up = warm_up
        self.crosses = [list(pair) for pair in crosses]
        self.edges: dict[str, list[float]] = {}
        self.kept: list[list[float]] = []  # rows of the warm-up, in the order of the first one

    @property
    def reads(self) -> list[str]:
        """Return the features that must be there, each once."""
        return list(dict.fromkeys(name for pair in self.crosses for name in pair))

    def learn_one(self, x: dict[Any, Any]) -> None:
        """Keep the example; make the edges of the last that is kept."""
        if self.edges:
            return
        self.kept.append([float(v) for v in x.values()])
        if len(self.kept) == self.warm_up:
            for name, column in zip(x, np.array(self.kept).T, strict=True):
                self.edges[name] = edges_of(column, self.bins)
            self.kept = []

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
        """Return the names of the bins, features first; nothing during the warm-up."""
        if not self.edges:
            return {}
        place = {name: bisect_right(edges, x[name]) for name, edges in self.edges.items()}
        found = {bin_name(name, k): 1.0 for name, k in place.items()}
        for a, b in self.crosses:
            found[cross_name(a, place[a], b, place[b])] = 1.0
        return found


def bin_name(name: str, k: int) -> str:
    """Return the name of bin k of a feature."""
    return f"{name}={k}"


def cross_name(a: str, j: int, b: str, k: int) -> str:
    """Return the name of bin j of one feature together with bin k of another."""
    return f"{a}={j}&{b}={k}"


def edges_of(values: np.ndarray, bins: int) -> list[float]:
    """Return increasing edges: quantiles of the values, and finer ones in both tails.

    An edge is a value that was there and is not the least; ties make fewer edges.

    >>> edges_of(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), 4)
    [2.0, 4.0, 5.0]
    """
    ordered = np.sort(values) + 0.0
    n = len(ordered)
    ranks = {k * n // bins for k in range(1, bins)}
    for halved in range(1, TAILS + 1):
        share = n // (bins << halved)
        ranks |= {share, n - share}
    found: list[float] = []
    last = float(ordered[0])
    for rank in sorted(ranks):
        if rank < n and ordered[rank] > last:
            last = float(ordered[rank])
            found.append(last)
    return found


def edges_max(bins: int) -> int:
    """Return how many edges a feature has at most."""
    return bins - 1 + 2 * TAILS
