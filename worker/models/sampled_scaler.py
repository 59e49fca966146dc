"""Features on a scale of their usual values, whatever order a stream begins in."""

from __future__ import annotations

import math
from typing import Any  # keys and values of River's dicts

from river import base

_MASK = (1 << 64) - 1
LOGIT_MAX = 30.0


class SampledScaler(base.Transformer):
    """Each feature between 0 and 1: the logistic of its distance from the median in robust spreads.

    Median and quartiles are those of a seeded sample of about the last ``horizon`` examples, taken
    anew when an eighth of them is new. So one extreme value does not squeeze all others into a
    corner, as a running range does, and neither does a stream that begins sorted.

    Parameters
    ----------
    size
        Examples in the sample: 8 bytes a feature and example.
    horizon
        How far back the sample reaches, in examples.
    seed
        Of the sample.

    Examples
    --------
    >>> scaler = SampledScaler()
    >>> for amount in range(101):
    ...     scaler.learn_one({"amount": float(amount)})
    >>> scaler.transform_one({"amount": 50.0})["amount"] < scaler.transform_one(
    ...     {"amount": 1e9})["amount"] == 1.0 / (1.0 + math.exp(-LOGIT_MAX))
    True
    """

    def __init__(self, size: int = 256, horizon: int = 10_000, seed: int = 0) -> None:
        self.size = size
        self.horizon = horizon
        self.seed = seed
        self.count = 0
        self.next = 1  # count at which the scale is taken anew
        self.kept: list[list[float]] = []
        self.scale: dict[Any, tuple[float, float]] = {}  # median and spread

    def learn_one(self, x: dict[Any, Any]) -> None:
        """Take an example into the sample, perhaps."""
        self.count += 1
        if len(self.kept) < self.size:
            self.kept.append(list(x.values()))
        else:
            place = _mixed(self.seed + self.count) % min(self.count, self.horizon)
            if place < self.size:
                self.kept[place] = list(x.values())
        if self.count >= self.next:
            step = max(50 if self.count >= 50 else 1, min(self.count, self.horizon) // 8)
            self.next = self.count + step
            columns = map(sorted, zip(*self.kept, strict=True))
            self.scale = {k: _scale(v) for k, v in zip(x, columns, strict=True)}

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
        """Return the features between 0 and 1; 0.5 before anything was learned."""
        return {k: _squashed(v, *self.scale.get(k, (v, 1.0))) for k, v in x.items()}


def _squashed(value: float, median: float, spread: float) -> float:
    z = (value - median) / spread / 1.5
    return 1.0 / (1.0 + math.exp(-min(max(z, -LOGIT_MAX), LOGIT_MAX)))


def _scale(ordered: list[float]) -> tuple[float, float]:
    """Return median and spread, as a standard deviation; of the tails where the middle has none."""
    n = len(ordered)

    def at(percent: int) -> float:
        return ordered[min(n - 1, percent * n // 100)]

    spreads = (
        (at(75) - at(25)) / 1.35,
        (at(95) - at(5)) / 3.3,
        (ordered[-1] - ordered[0]) / 6.0,
    )
    return at(50) + 0.0, next((s for s in spreads if s > 0.0), 1.0)


def _mixed(value: int) -> int:
    """Return 64 well mixed bits. Source: Steele, Lea, Flood, splitmix64, OOPSLA 2014."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
