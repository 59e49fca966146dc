"""The definition of a valid record, one at a time in plain Python; slow, and exact about faults.

`worker.decode` reads most records by a faster way that accepts a subset of these with the same
values, and asks this module about the rest: so every code and message comes from here.
"""

from __future__ import annotations

import json
import re
from typing import Any  # values of any JSON type

import numpy as np
from msgspec import UNSET

from worker.contracts.rejections import RejectCode
from worker.contracts.settings import Settings
from worker.decode_fields import ID_BYTES_MAX, Column, compile_columns, units_of
from worker.errors import RecordError
from worker.event_times import iso_to_ms

DEPTH_MAX = 100

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SHORT_INTEGER_DIGITS = 30
_NAMES = {str: "str", int: "int", float: "float", bool: "bool", list: "array", type(None): "null"}


class RefusedError(RecordError):
    """Why one record is no event: a stable code, and words without any value of the record."""

    def __init__(
        self, code: RejectCode, where: str = "$", expected: str = "", got: str = ""
    ) -> None:
        self.code = code
        super().__init__(where, expected, got)


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object as they came, so that a second one of a name is seen."""


class _HugeInteger(float):
    """An integer with more digits than any that is accepted; its nearest float."""


class _NotFinite(float):
    """``NaN``, ``Infinity`` or ``-Infinity``: no JSON, but common enough to be named."""


class StrictDecoder:
    """Decodes single records by the book."""

    def __init__(self, settings: Settings) -> None:
        self._columns = compile_columns(settings)
        self._names = frozenset(column.name for column in self._columns)
        self._key = [column.name for column in self._columns].index(settings.events.key)
        self._bytes_max = settings.events.record_bytes_max
        self._has_keys = settings.stream.kind == "kafka"

    def decode(self, value: bytes | None, key: bytes | None, timestamp_ms: int) -> tuple[Any, ...]:
        """Return the declared fields in their order, as on the wire; `UNSET` where one is absent.

        Raises
        ------
        RefusedError
            The record is no event.
        """
        members = self._object(value)
        row = tuple(_field(column, members.get(column.name, UNSET)) for column in self._columns)
        self._check_key(row[self._key], key, timestamp_ms)
        return row

    def needs_key(self, timestamp_ms: int) -> bool:
        """Return whether a record of this stream must have a key: one that came through Kafka.

        What is handed to a worker in this process has neither key nor timestamp.
        """
        return self._has_keys and timestamp_ms >= 0

    def _object(self, value: bytes | None) -> dict[str, Any]:
        if value is None:
            raise RefusedError(RejectCode.TOMBSTONE, expected="an object", got="no value")
        if len(value) > self._bytes_max:
            expected = f"at most {self._bytes_max} bytes"
            raise RefusedError(RejectCode.RECORD_TOO_LARGE, "$", expected, str(len(value)))
        members, not_finite = _parse(value)
        if not isinstance(members, _Members):
            raise RefusedError(RejectCode.NOT_OBJECT, "$", "an object", _name(members))
        self._check_members(members, not_finite)
        return {name: item for name, item in members if name in self._names}

    def _check_members(self, members: _Members, not_finite: int) -> None:
        declared = [(name, item) for name, item in members if name in self._names]
        if not_finite > sum(isinstance(item, _NotFinite) for _, item in declared):
            raise RefusedError(RejectCode.NOT_JSON, "$", "JSON", "NaN or Infinity in another field")
        seen: set[str] = set()
        for name, _ in declared:
            if name in seen:
                raise RefusedError(RejectCode.DUPLICATE_KEY, f"$.{name}", "one value", "two")
            seen.add(name)

    def _check_key(self, entity: str | int, key: bytes | None, timestamp_ms: int) -> None:
        where = f"$.{self._columns[self._key].name}"
        if key is None:
            if self.needs_key(timestamp_ms):
                raise RefusedError(RejectCode.KEY_MISSING, where, "the record's key", "none")
        elif key != str(entity).encode():
            raise RefusedError(RejectCode.KEY_MISMATCH, where, "the record's key", "another one")


def is_too_deep(value: bytes) -> bool:
    """Return whether arrays and objects nest deeper than `DEPTH_MAX`, whatever the bytes are.

    Checked before parsing, so that the limit does not depend on Python's stack.
    """
    if value.count(b"[") + value.count(b"{") <= DEPTH_MAX:
        return False
    structure = np.frombuffer(_STRING.sub(b"", value), np.uint8)
    opening = (structure == ord("[")) | (structure == ord("{"))
    closing = (structure == ord("]")) | (structure == ord("}"))
    return bool((np.cumsum(opening.astype(np.int64) - closing) > DEPTH_MAX).any())


def _parse(value: bytes) -> tuple[Any, int]:
    """Return the JSON value and how many NaN and Infinity it holds."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise RefusedError(RejectCode.NOT_UTF8, "$", "UTF-8", "other bytes") from None
    if is_too_deep(value):
        raise RefusedError(RejectCode.TOO_DEEP, "$", f"at most {DEPTH_MAX} levels", "more")
    not_finite: list[_NotFinite] = []

    def constant(name: str) -> _NotFinite:
        not_finite.append(_NotFinite(name.lower()))
        return not_finite[-1]

    try:
        parsed = json.loads(
            text, object_pairs_hook=_Members, parse_int=_integer, parse_constant=constant
        )
    except ValueError:
        got = "a byte order mark" if text[:1] == "\ufeff" else "text that is none"
        raise RefusedError(RejectCode.NOT_JSON, "$", "JSON", got) from None
    return parsed, len(not_finite)


def _integer(text: str) -> int | _HugeInteger:
    """Read an integer; int() of thousands of digits would be slow, and refused by Python."""
    return int(text) if len(text) <= _SHORT_INTEGER_DIGITS else _HugeInteger(text)


def _name(value: object) -> str:
    if isinstance(value, _HugeInteger):
        return "int"
    if isinstance(value, _NotFinite):
        return "NaN or Infinity"
    return _NAMES.get(type(value), "object")


def _field(column: Column, value: Any) -> Any:
    """Return a field in the type of the wire."""
    if value is None or value is UNSET:
        if column.is_required:
            got = "null" if value is None else "none"
            raise _refusal(RejectCode.MISSING_FIELD, column, "a value", got)
        return value
    if column.json_type is str:
        return _text(column, value)
    if column.json_type is bool:
        if not isinstance(value, bool):
            raise _refusal(RejectCode.WRONG_TYPE, column, "bool", _name(value))
        return value
    if isinstance(value, _NotFinite):
        raise _refusal(RejectCode.NOT_FINITE, column, "a finite number", _name(value))
    return _int(column, value) if column.json_type is int else _float(column, value)


def _text(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise _refusal(RejectCode.WRONG_TYPE, column, "str", _name(value))
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _refusal(RejectCode.NOT_UTF8, column, "UTF-8", "a lone surrogate") from None
    if column.kind == "timestamp":
        _check_iso(column, value)
    if column.is_id and size > ID_BYTES_MAX:
        raise _refusal(RejectCode.ID_TOO_LONG, column, f"at most {ID_BYTES_MAX} bytes", str(size))
    if column.is_id and not size and not column.may_be_empty:
        raise _refusal(RejectCode.EMPTY_ID, column, "an id", "an empty text")
    return str(value)


def _check_iso(column: Column, value: str) -> None:
    time_ms = iso_to_ms(value)
    if time_ms is None:
        raise _refusal(RejectCode.BAD_TIME, column, "an ISO 8601 time", "another text")
    if column.is_event_time and time_ms < 0:
        raise _refusal(RejectCode.TIME_BEFORE_1970, column, "a time since 1970", "an earlier one")


def _int(column: Column, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | _HugeInteger):
        raise _refusal(RejectCode.WRONG_TYPE, column, "int", _name(value))
    if column.kind == "timestamp":
        _check_number_time(column, value)
        return int(value)
    lowest, highest = column.integer_bounds
    if isinstance(value, _HugeInteger) or not lowest <= value <= highest:
        raise _refusal(
            RejectCode.INTEGER_TOO_LARGE, column, f"at most {highest} in size", "a larger int"
        )
    _check_bounds(column, value)
    return int(value)


def _float(column: Column, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(RejectCode.WRONG_TYPE, column, "float", _name(value))
    number = float(value)
    if number in (float("inf"), float("-inf")):
        raise _refusal(
            RejectCode.NOT_FINITE, column, "a finite number", "one too large for a float"
        )
    if column.kind == "timestamp":
        _check_number_time(column, number)
        return number
    if column.kind == "decimal" and _is_too_many(column, number):
        expected = f"at most {column.magnitude_max} units of {column.resolution}"
        raise _refusal(RejectCode.INTEGER_TOO_LARGE, column, expected, "more")
    _check_bounds(column, number)
    return number


def _is_too_many(column: Column, number: float) -> bool:
    # A division that overflows is too many units as well; round() would raise.
    units = number / column.resolution
    return abs(units) > 2 * column.magnitude_max or (
        abs(units_of(number, column.resolution)) > column.magnitude_max
    )


def _check_number_time(column: Column, value: float) -> None:
    assert column.lower is not None and column.upper is not None
    if column.is_event_time and value < 0:
        raise _refusal(RejectCode.TIME_BEFORE_1970, column, "a time since 1970", "an earlier one")
    if not column.lower <= value <= column.upper:
        raise _refusal(RejectCode.BAD_TIME, column, "a time up to the year 9999", "another number")


def _check_bounds(column: Column, value: float) -> None:
    if column.lower is not None and value < column.lower:
        raise _refusal(RejectCode.OUT_OF_RANGE, column, f"at least {column.lower}", "less")
    if column.upper is not None and value > column.upper:
        raise _refusal(RejectCode.OUT_OF_RANGE, column, f"at most {column.upper}", "more")


def _refusal(code: RejectCode, column: Column, expected: str, got: str) -> RefusedError:
    return RefusedError(code, f"$.{column.name}", expected, got)
