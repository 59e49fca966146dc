"""Columns of X that need nothing but the event itself, and what was derived for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worker.contracts.records import Events, Float64
from worker.features.expressions import Expression
from worker.features.feature import Feature


class RowFeatures:
    """The features of the row, grouped so that each expression is evaluated once."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._fields: list[tuple[int, str, float, float]] = []
        self._numbers: dict[Expression, list[int]] = {}
        self._classes: dict[tuple[int, Expression | str], int] = {}
        for column, feature in enumerate(features):
            if feature.entity is not None or feature.series is not None:
                continue
            if feature.category is not None:
                what = feature.expression or feature.field or ""
                first = (column - feature.category, what)
                self._classes[first] = self._classes.get(first, 0) + 1
            elif feature.expression is not None:
                self._numbers.setdefault(feature.expression, []).append(column)
            else:
                assert feature.field is not None, feature
                scale = feature.multiply, feature.divide
                self._fields.append((column, feature.field, *scale))

    def write(self, events: Events, derived: Mapping[str, Float64], X: Float64) -> None:
        """Write these columns of X, which are zero before."""
        for column, field, multiply, divide in self._fields:
            values = events.columns[field]
            assert isinstance(values, np.ndarray), field
            X[:, column] = values * multiply / divide
        for expression, columns in self._numbers.items():
            values = expression.column(events, derived)
            for column in columns:
                X[:, column] = values
        for (first, what), count in self._classes.items():
            codes = events.columns[what] if isinstance(what, str) else what.codes(events, derived)
            assert isinstance(codes, np.ndarray), what
            rows = np.flatnonzero((codes >= 0) & (codes < count))
            X[rows, first + codes[rows]] = 1.0
