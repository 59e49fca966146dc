"""What the row features of one shard have learned from its earlier events: quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.contracts.records import Bool, Events, Float64
from worker.features.expressions import Expression
from worker.features.feature import Feature
from worker.features.quantiles import Quantiles


class Learned:
    """A fold of the shard's events, in their order; a duplicate teaches nothing."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._numbers = numbers_of(features)
        self._quantiles = {name: Quantiles() for name in self._numbers}

    def update(self, events: Events, duplicate: Bool) -> dict[str, Float64]:
        """Return the derived columns by name, each event by what was before it; then learn it."""
        derived: dict[str, Float64] = {}
        for name, (number, parts) in self._numbers.items():
            values = number.evaluate(events)
            buckets = self._quantiles[name].update(values, duplicate, *parts)
            derived |= {
                f"quantile_bucket({name}, {part})": row
                for part, row in zip(parts, np.atleast_2d(buckets), strict=True)
            }
        return derived

    def to_state(self) -> dict[str, Any]:
        """Return the state in values that msgpack holds."""
        return {name: quantiles.to_tuple() for name, quantiles in self._quantiles.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state made by `to_state`; a number that it lacks begins anew."""
        for name in self._quantiles.keys() & state.keys():
            self._quantiles[name] = Quantiles.from_tuple(tuple(state[name]))


def numbers_of(features: Sequence[Feature]) -> dict[str, tuple[Expression, tuple[int, ...]]]:
    """Return each number whose quantiles are learned, with the parts that are asked of it."""
    found: dict[str, tuple[Expression, set[int]]] = {}
    for feature in features:
        if feature.expression is not None:
            for number, parts in feature.expression.learned.values():
                found.setdefault(number.canonical, (number, set()))[1].add(parts)
    return {name: (number, tuple(sorted(parts))) for name, (number, parts) in sorted(found.items())}
