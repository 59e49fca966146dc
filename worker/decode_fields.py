"""The declared fields of an event, compiled: what the fast and the strict decoder agree on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from worker.contracts.records import MISSING
from worker.contracts.settings import FieldSettings, Settings
from worker.event_times import TIME_MS_MAX, TIME_MS_MIN, iso_to_ms

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# Sums of squares of this many units stay exact in the features' integer arithmetic.
UNITS_MAX = 2**40
ID_BYTES_MAX = 256

_AGGREGATED = re.compile(r"^\w+\((\w+)\)$")
_UNIT_MS = {"s": 0.001, "ms": 1, "us": 1000}


@dataclass(frozen=True, slots=True)
class Column:
    """One declared field.

    ``json_type`` is the type on the wire: a number of ``time_unit``, or a text, for a timestamp.
    ``lower`` and ``upper`` are in wire units and inclusive; integers for integers. ``default`` is
    in column units (units of the resolution, Unix ms, index of a category), what stands for a
    missing value where the field is optional, and None where it is required. ``magnitude_max``
    bounds an integer's size, or a decimal's in units.
    """

    name: str
    kind: str
    json_type: type[str | int | float]
    is_required: bool
    default: str | int | float | None = None
    lower: float | int | None = None
    upper: float | int | None = None
    magnitude_max: int = INT64_MAX
    resolution: float = 1.0
    time_unit: str = ""
    is_event_time: bool = False
    is_id: bool = False
    categories: dict[str, int] = field(default_factory=dict)

    @property
    def integer_bounds(self) -> tuple[int, int]:
        """Return the smallest and the largest integer that can be stored and aggregated."""
        whole = self.magnitude_max == INT64_MAX and self.default != MISSING
        lowest = INT64_MIN if whole else -self.magnitude_max
        return lowest, self.magnitude_max

    @property
    def may_be_empty(self) -> bool:
        """Return whether an empty id is allowed: it means no entity."""
        return self.default == ""


def compile_columns(settings: Settings) -> tuple[Column, ...]:
    """Return the declared fields in their order. The settings were checked before."""
    aggregated = aggregated_fields(settings)
    ids = {settings.events.id, *(key for e in settings.entities.values() for key in e.keys)}
    return tuple(
        _optional(_column(name, declared, settings, name in aggregated, name in ids), declared)
        for name, declared in settings.events.fields.items()
    )


def _optional(column: Column, declared: FieldSettings) -> Column:
    """Return a column that holds what stands for a missing value, if the field is optional."""
    if not declared.optional:
        return column
    missing: str | float = MISSING
    if column.kind in ("string", "float"):
        missing = "" if column.kind == "string" else math.nan
    return replace(column, is_required=False, default=missing)


def aggregated_fields(settings: Settings) -> frozenset[str]:
    """Return the fields that an entity aggregates, as in ``mean(amount)``: bounded in size."""
    names = set()
    for entity in settings.entities:
        section = settings.features.get(entity)
        for key in section if isinstance(section, dict) else ():
            match = _AGGREGATED.match(str(key).replace(" ", ""))
            if match:
                names.add(match[1])
    return frozenset(names)


def units_of(value: float, resolution: float) -> int:
    """Return a decimal as a whole number of units, the nearest; ties go to the even one.

    >>> units_of(1.15, 0.01)
    115
    """
    return round(value / resolution)


def _column(
    name: str, declared: FieldSettings, settings: Settings, is_aggregated: bool, is_id: bool
) -> Column:
    is_required = declared.default is None
    if declared.type == "timestamp":
        is_event_time = name == settings.events.time.field
        unit = settings.events.time.unit if is_event_time else declared.unit
        return _timestamp(name, declared, unit, is_event_time)
    if declared.type == "integer":
        bound = UNITS_MAX if is_aggregated else INT64_MAX
        lower = None if declared.min is None else math.ceil(declared.min)
        upper = None if declared.max is None else math.floor(declared.max)
        default = None if declared.default is None else int(declared.default)
        return Column(
            name, "integer", int, is_required, default, lower, upper, bound, is_id=is_id
        )  # fmt: skip
    if declared.type in ("float", "decimal"):
        return _number(name, declared)
    if declared.type == "boolean":
        return Column(name, "boolean", bool, is_required, _as_int(declared.default))
    if declared.type == "category":
        index = {value: i for i, value in enumerate(declared.values or ())}
        unknown = len(index)
        code = None if declared.default is None else index.get(str(declared.default), unknown)
        return Column(name, "category", str, is_required, code, categories=index)
    return Column(name, "string", str, is_required, declared.default, is_id=is_id)


def _number(name: str, declared: FieldSettings) -> Column:
    default = None if declared.default is None else float(declared.default)
    if declared.type == "float":
        return Column(
            name, "float", float, default is None, default, declared.min, declared.max
        )  # fmt: skip
    resolution = declared.resolution or 1.0
    units = None if default is None else units_of(default, resolution)
    return Column(
        name, "decimal", float, default is None, units, declared.min, declared.max,
        UNITS_MAX, resolution,
    )  # fmt: skip


def _timestamp(name: str, declared: FieldSettings, unit: str, is_event_time: bool) -> Column:
    json_type: type[str | int | float] = {"iso": str, "s": float}.get(unit, int)
    lower: Any = None
    upper: Any = None
    if unit != "iso":
        lower = 0 if is_event_time else json_type(TIME_MS_MIN * _UNIT_MS[unit])
        upper = json_type(TIME_MS_MAX * _UNIT_MS[unit])
    return Column(
        name, "timestamp", json_type, declared.default is None,
        time_default(declared.default, unit), lower, upper,
        time_unit=unit, is_event_time=is_event_time,
    )  # fmt: skip


def time_default(default: str | float | None, unit: str) -> int | None:
    """Return a timestamp's default as Unix ms, or None where it is none or no time of its unit."""
    if default is None:
        return None
    if unit == "iso":
        return iso_to_ms(default) if isinstance(default, str) else None
    if isinstance(default, str | bool) or not (unit == "s" or isinstance(default, int)):
        return None
    return time_of(default, unit)


def time_of(value: float, unit: str) -> int:
    """Return Unix ms of a number since 1970; see `worker.event_times.seconds_to_ms`."""
    if unit == "s":
        return round(value * 1e6) // 1000
    return int(value) // 1000 if unit == "us" else int(value)


def _as_int(value: object) -> int | None:
    return None if value is None else int(bool(value))
