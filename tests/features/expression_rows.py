"""Rows of values for tests of expressions, and the slow way to evaluate a call over one row."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from worker.contracts.records import Events
from worker.contracts.settings import FieldSettings
from worker.features.expressions import Schema
from worker.features.expressions.function import Function
from worker.features.expressions.values import MISSING
from worker.features.expressions.zones import UTC, zone_of

CHANNELS = ("web", "pos", "ä", "x")
_TYPES: dict[str, dict[str, Any]] = {
    "f": {"type": "float"},
    "g": {"type": "float"},
    "amount": {"type": "decimal", "resolution": 0.01},
    "items": {"type": "integer"},
    "present": {"type": "boolean"},
    "checked": {"type": "boolean"},
    "merchant": {"type": "string"},
    "buyer": {"type": "string"},
    "channel": {"type": "category", "values": CHANNELS},
    "opened": {"type": "timestamp"},
    "closed": {"type": "timestamp"},
}
SCHEMA = Schema({name: FieldSettings(**words) for name, words in _TYPES.items()}, "at")

_FLOATS = st.sampled_from((0.0, -0.0, 1.0, -1.0, 0.5, 20.0, 1e308, -1e308, 5e-324, 1e-9, 3.7))
_NUMBERS = _FLOATS | st.floats(allow_nan=False, allow_infinity=False)
_TIMES = st.sampled_from((0, 1, -1, 1_700_000_000_123, 1_711_846_800_000)) | st.integers(
    -(2**40), 2**42
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "f": _NUMBERS,
    "g": _NUMBERS,
    "amount": st.sampled_from((0, 50, -100, 2000, 2**40)) | st.integers(-(2**40), 2**40),
    "items": st.sampled_from((0, 1, -1, 20, 2**62)) | st.integers(-(2**63) + 1, 2**63 - 1),
    "present": st.booleans(),
    "checked": st.booleans(),
    "merchant": st.sampled_from(("web", "a", "ä")),
    "buyer": st.sampled_from(("web", "a", "ä")),
    "channel": st.sampled_from((*CHANNELS, "another")),
    "opened": _TIMES,
    "closed": _TIMES,
    "time": st.integers(0, 2**42),
}


def rows() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return rows of any values; all but the time may be missing."""
    return st.lists(
        st.fixed_dictionaries(
            {"time": _VALUES["time"]},
            optional={name: values for name, values in _VALUES.items() if name != "time"},
        ),
        min_size=1,
        max_size=8,
    )


def events_of_values(found: list[dict[str, Any]]) -> Events:
    """Return rows as columns; what a row lacks is missing."""
    n = len(found)
    return Events(
        index=np.arange(n),
        offsets=np.arange(n),
        time_ms=np.array([row.get("time", 0) for row in found], np.int64),
        ids=[str(i) for i in range(n)],
        id_hash=np.arange(n, dtype=np.uint64),
        entity_ids={},
        columns={name: _column(name, [row.get(name) for row in found]) for name in _TYPES},
    )


def _column(name: str, values: list[Any]) -> Any:
    kind = _TYPES[name]["type"]
    if kind == "string":
        return ["" if value is None else value for value in values]
    if kind == "float":
        return np.array([math.nan if value is None else value for value in values])
    if kind == "category":
        number = {value: i for i, value in enumerate((*CHANNELS, "another"))}
        values = [None if value is None else number[value] for value in values]
    return np.array([MISSING if value is None else int(value) for value in values], np.int64)


def expected_value(function: type[Function], operands: list[str], row: dict[str, Any]) -> Any:
    """Return the value of one call for one row, by the function's definition."""
    arguments = [_operand(operand, row) for operand in operands]
    if function.takes_zone:
        arguments = [arguments[0], zone_of(arguments[1]) if arguments[1:] else UTC]
    if not function.sees_missing and any(argument is None for argument in arguments):
        return None
    try:
        result = function.of(*arguments)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return None if isinstance(result, float) and not math.isfinite(result) else result


def _operand(text: str, row: dict[str, Any]) -> Any:
    if not text.startswith("$"):
        return ast.literal_eval(text)
    value = row.get(text[1:])
    kind = _TYPES.get(text[1:], {}).get("type")
    if value is None:
        return None
    if kind == "decimal":
        return value / 100
    return float(value) if kind in ("integer", "float") else value
