"""The fast way of a record: a struct that msgspec fills in C, a filter, and columns of numpy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Annotated, Any  # rows hold values of the declared types

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from worker.contracts.records import MISSING, Bool, Float64, Int64
from worker.decode_fields import ID_BYTES_MAX, Column
from worker.decode_strict import DEPTH_MAX
from worker.event_times import iso_column_to_ms, seconds_to_ms

Row = tuple[Any, ...]
Values = Int64 | Float64 | list[str]

# Marks what is no time in a column of times; no time of the years 1 to 9999 has this value. It
# differs from a missing time.
NO_TIME = MISSING + 1
# A character is at most four bytes of UTF-8, so a text of this length is no id that is too long.
_SHORT_ID_LENGTH = ID_BYTES_MAX // 4


def struct_of(columns: Sequence[Column]) -> type[msgspec.Struct]:
    """Return the struct of the declared fields in their order; bounds are checked in C."""
    return _struct(
        tuple((column.name, _wire_type(column), column.is_required) for column in columns)
    )


@lru_cache(maxsize=8)  # every shard of a worker asks for the same one
def _struct(declared: tuple[tuple[str, Any, bool], ...]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for i, (_, wire, is_required) in enumerate(declared):
        if is_required:
            fields.append((f"f{i}", wire))
        else:
            fields.append((f"f{i}", wire | None | UnsetType, UNSET))
    rename = {f"f{i}": name for i, (name, _, _) in enumerate(declared)}
    return msgspec.defstruct("Event", fields, rename=rename, kw_only=True, gc=False)


class PlainFilter:
    """Finds the records that msgspec accepts and that may still hold a field twice, or worse.

    The names of the present declared fields and their texts account for two quotation marks each.
    If a record has no more than these, it has no other text at all: no second field of a name, no
    unknown field, no escaped quote. Where it has more, and nothing is escaped, its texts are what
    lies between the quotes: as many declared names among them as fields are present proves it
    plain. Only the rest needs `worker.decode_strict`.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = frozenset(column.name.encode() for column in columns)
        required = [column for column in columns if column.is_required]
        self._required = len(required)
        self._quotes = 2 * len(required) + 2 * sum(c.json_type is str for c in required)
        self._optional = [
            (i, 4 if column.json_type is str else 2)
            for i, column in enumerate(columns)
            if not column.is_required
        ]

    def odd(self, values: Sequence[bytes], rows: Sequence[Row | None]) -> list[int]:
        """Return which records are not proved plain; None is the row of one that is refused."""
        # Each has at least these quotes: so if they are as many in all, no record has more.
        if not self._optional and all(rows) and _quotes(values) == self._quotes * len(rows):
            return []
        pairs = enumerate(zip(values, rows, strict=True))
        return [i for i, (value, row) in pairs if row is None or not self.is_plain(value, row)]

    def is_plain(self, value: bytes, row: Row) -> bool:
        """Return whether the record is proved to hold each declared field once, in valid UTF-8."""
        present, quotes = self._required, self._quotes
        for position, quotes_present in self._optional:
            item = row[position]
            if item is not UNSET:
                present += 1
                quotes += 2 if item is None else quotes_present
        return value.count(b'"') == quotes or self._names_once(value, present)

    def _names_once(self, value: bytes, present: int) -> bool:
        if b"\\" in value or value.count(b"[") + value.count(b"{") > DEPTH_MAX:
            return False
        texts = value.split(b'"')[1::2]
        named = sum(map(self._names.__contains__, texts))
        return named == present and (value.isascii() or _is_utf8(value))


def values_of(column: Column, items: Sequence[Any]) -> Values:
    """Return one field of all rows as its column, defaults filled in.

    What breaks a rule that C did not check stays visible in it: see `suspects_of`.
    """
    if column.is_required:
        return _convert(column, items)
    absent = [i for i, item in enumerate(items) if item is None or item is UNSET]
    filled = list(items)
    for i in absent:
        filled[i] = "" if column.json_type is str else 0
    result: Any = _convert(column, filled)
    for i in absent:
        result[i] = column.default
    return result  # type: ignore[no-any-return]


def suspects_of(column: Column, values: Values) -> Bool | None:
    """Return which rows break a rule of their column, or None where no rule is left to check."""
    if column.is_id and isinstance(values, list):
        return _odd_ids(column, values)
    if column.kind == "decimal":
        return np.asarray(np.abs(np.asarray(values)) > column.magnitude_max, np.bool_)
    if column.kind == "timestamp":
        times = np.asarray(values)
        return np.asarray(times < 0 if column.is_event_time else times == NO_TIME, np.bool_)
    return None


def _wire_type(column: Column) -> Any:
    lower, upper = column.lower, column.upper
    if column.kind == "integer":
        lowest, highest = column.integer_bounds
        lower = lowest if lower is None else max(lowest, int(lower))
        upper = highest if upper is None else min(highest, int(upper))
    if lower is None and upper is None:
        return column.json_type
    return Annotated[column.json_type, Meta(ge=lower, le=upper)]


def _convert(column: Column, items: Sequence[Any]) -> Values:
    if column.kind == "string":
        return list(items)
    if column.kind == "category":
        return np.fromiter(
            map(column.categories.get, items, repeat(len(column.categories))), np.int64, len(items)
        )
    if column.kind == "float":
        return np.fromiter(items, np.float64, len(items))
    if column.kind == "decimal":
        return _units(column, items)
    if column.kind == "timestamp":
        return _times(column, items)
    return np.fromiter(items, np.int64, len(items))


def _units(column: Column, items: Sequence[float]) -> Int64:
    """Return whole units; as `worker.decode_fields.units_of`, far too many are cut to 2 ** 62."""
    with np.errstate(over="ignore"):
        units = np.rint(np.fromiter(items, np.float64, len(items)) / column.resolution)
    return np.clip(units, -(2.0**62), 2.0**62).astype(np.int64)


def _times(column: Column, items: Sequence[Any]) -> Int64:
    if column.time_unit == "iso":
        times, valid = iso_column_to_ms(items)
        times[~valid] = NO_TIME
        return times
    if column.time_unit == "s":
        return seconds_to_ms(np.array(items, np.float64))
    numbers = np.fromiter(items, np.int64, len(items))
    return numbers // 1000 if column.time_unit == "us" else numbers


def _odd_ids(column: Column, ids: list[str]) -> Bool | None:
    if max(map(len, ids), default=0) <= _SHORT_ID_LENGTH and (column.may_be_empty or all(ids)):
        return None
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    long = lengths > _SHORT_ID_LENGTH
    empty = (lengths == 0) & (not column.may_be_empty)
    for i in np.flatnonzero(long).tolist():
        long[i] = len(ids[i].encode()) > ID_BYTES_MAX
    return np.asarray(long | empty, np.bool_)


def _quotes(values: Sequence[bytes]) -> int:
    return int(np.count_nonzero(np.frombuffer(b"".join(values), np.uint8) == ord('"')))


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
