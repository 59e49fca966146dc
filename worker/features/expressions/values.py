"""How the four kinds of value are held in arrays, and what missing is in each.

number   float64; missing is NaN, and what is not finite is missing
boolean  int8: `FALSE`, `UNKNOWN` (missing), `TRUE`; so Kleene's and, or, not are min, max, 2 - x
text     objects of str; missing is the empty text
time     int64, Unix ms; missing is `MISSING`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import MISSING, Events, Float64, Int64

FALSE, UNKNOWN, TRUE = 0, 1, 2
KINDS = ("number", "boolean", "text", "time")

Values = Any  # an array of one of the kinds, or one value of it that stands for all rows
Truth = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Rows:
    """What an expression is evaluated over: events, and columns derived from them before."""

    events: Events
    derived: Mapping[str, Float64]


def finite(numbers: Values) -> Values:
    """Return numbers with infinities made missing. v - v is 0 for a finite one, else NaN."""
    return numbers + (numbers - numbers)


def truth(condition: Values, missing: Values) -> Values:
    """Return truth values of a condition, unknown where ``missing``."""
    return np.where(missing, np.int8(UNKNOWN), np.asarray(condition, np.int8) * np.int8(2))


def is_missing(values: Values) -> Values:
    """Return which values of any kind are missing."""
    dtype = np.asarray(values).dtype
    if dtype == np.float64:
        return np.isnan(values)
    if dtype == np.int8:
        return values == UNKNOWN
    if dtype == np.int64:
        return values == MISSING
    return np.asarray(values == "", np.bool_)


def numbers_of(column: Int64 | Float64, multiply: float, divide: float) -> Float64:
    """Return a column of numbers in the field's own unit, rounded once."""
    if column.dtype == np.float64:
        return finite(column)  # type: ignore[no-any-return]
    numbers = column * multiply / divide
    missing = column == MISSING
    return np.where(missing, np.nan, numbers) if missing.any() else np.asarray(numbers)


def texts_of(column: list[str]) -> NDArray[np.object_]:
    """Return texts as an array of objects."""
    return np.array(column, np.object_)


def codes_of(values: Values) -> Int64:
    """Return the class numbers of booleans or of whole numbers; `MISSING` where missing."""
    values = np.asarray(values)
    numbers = values // 2 if values.dtype == np.int8 else np.nan_to_num(values)
    return np.where(is_missing(values), MISSING, numbers.astype(np.int64))


__all__ = [
    "FALSE", "KINDS", "MISSING", "TRUE", "UNKNOWN", "Rows", "Truth", "Values", "codes_of", "finite",
    "is_missing", "numbers_of", "texts_of", "truth",
]  # fmt: skip
