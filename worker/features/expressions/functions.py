"""The table of all functions and operators."""

from __future__ import annotations

from worker.features.expressions.calendar import Day, Hour, IsNight, IsWeekend, Weekday
from worker.features.expressions.choices import Coalesce, If, IsMissing
from worker.features.expressions.function import Function
from worker.features.expressions.numbers import (
    Abs,
    Bucket,
    Clip,
    Log,
    Log1p,
    Max,
    Min,
    Round,
    Sqrt,
)
from worker.features.expressions.operators import OPERATORS

_CLASSES: tuple[type[Function], ...] = (
    Log, Log1p, Sqrt, Abs, Round, Min, Max, Clip, Bucket, Coalesce, IsMissing, If, Hour, Weekday,
    Day, IsNight, IsWeekend,
)  # fmt: skip
FUNCTIONS: dict[str, type[Function]] = {c.name: c for c in _CLASSES}
"""Every function by its name in an expression."""

__all__ = ["FUNCTIONS", "OPERATORS"]
