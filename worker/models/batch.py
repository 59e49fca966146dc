"""One batch for one set of features: rows to score, examples to learn, what no model may see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Bool, Float64, Int64
from worker.models.compiled import ABSOLUTE_MAX, usable_rows

Row = dict[str, float]


@dataclass(frozen=True)
class Batch:
    """Events to score and examples to learn, over the columns of ``names``.

    Example ``j`` is learned before event ``learn_before[j]`` is scored; ``learn_before`` does not
    decrease and lies in 0..n, where n means after the last event. River's dicts are built once and
    shared by every model on the same features, so a model must not change them.
    """

    names: tuple[str, ...]
    X: Float64  # (n, f)
    learn_x: Float64  # (m, f)
    learn_y: NDArray[np.int8]  # (m,) 1 or 0, or -1 for an observed event without a label
    learn_weight: Float64  # (m,)
    learn_before: Int64  # (m,)

    def __post_init__(self) -> None:
        """Assert the shapes; a wrong one is a mistake of the caller."""
        m, n = len(self.learn_x), len(self.X)
        assert self.X.shape == (n, len(self.names)), (self.X.shape, len(self.names))
        assert self.learn_x.shape == (m, len(self.names)), self.learn_x.shape
        assert len(self.learn_y) == len(self.learn_weight) == len(self.learn_before) == m
        assert ((self.learn_y >= -1) & (self.learn_y <= 1)).all(), (
            "labels are 0 or 1, or -1 for none"
        )
        if m:
            assert self.learn_before[0] >= 0 and self.learn_before[-1] <= n, self.learn_before
            assert (np.diff(self.learn_before) >= 0).all(), "learn_before must not decrease"

    @cached_property
    def scorable(self) -> Bool:
        """Return which events may be scored: all their numbers finite and not absurd."""
        return usable_rows(self.X)

    @cached_property
    def learnable(self) -> Bool:
        """Return which examples may be learned: features and weight finite and not absurd."""
        weight = self.learn_weight
        return usable_rows(self.learn_x) & (weight >= 0.0) & (weight <= ABSOLUTE_MAX)

    def examples(self, labelled: bool) -> tuple[Int64, int]:
        """Return the indices of the examples to learn, and how many were skipped as unusable."""
        measured = self.learn_weight == 0.0  # a label that nobody learns from
        wanted = (self.learn_y >= 0) & ~measured if labelled else self.learn_y < 0
        chosen = np.flatnonzero(wanted & self.learnable)
        return chosen, int(wanted.sum()) - len(chosen)

    @cached_property
    def rows(self) -> list[Row]:
        """Return each event as River's dict, in the order of ``names``."""
        return rows_of(self.names, self.X)

    @cached_property
    def learn_rows(self) -> list[Row]:
        """Return each example as River's dict; the same dicts as ``rows`` where the matrix is."""
        return self.rows if self.learn_x is self.X else rows_of(self.names, self.learn_x)


def rows_of(names: tuple[str, ...], X: Float64) -> list[Row]:
    """Return the rows of ``X`` as dicts of Python floats, keys in the order of ``names``.

    >>> rows_of(("a", "b"), np.array([[1.0, 2.0]]))
    [{'a': 1.0, 'b': 2.0}]
    """
    return [dict(zip(names, row, strict=True)) for row in X.tolist()]
