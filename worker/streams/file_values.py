"""What stands in the cells of a file, as the values of a JSON object; and times as Unix ms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worker.contracts.clock import NO_TIME_MS
from worker.contracts.records import Int64
from worker.contracts.settings import FieldSettings

Unit = Literal["iso", "s", "ms", "us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TIME_MS_END = 253_402_300_800_000  # the year 10000
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_ZONE = re.compile(r"[Z+-]")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# JSON has no infinity: decoding refuses this number as too large, as it should.
_TOO_LARGE = {math.inf: msgspec.Raw(b"1e999"), -math.inf: msgspec.Raw(b"-1e999")}


def times_ms(values: Sequence[object], unit: Unit, *, or_iso: bool = False) -> Int64:
    """Return Unix ms per value, `NO_TIME_MS` for what is no time since 1970.

    Parameters
    ----------
    unit
        What a number counts; ``iso`` takes texts only (without an offset: UTC).
    or_iso
        Also take texts where ``unit`` is one of numbers.

    Examples
    --------
    >>> times_ms(["2018-04-01T00:00:31Z", "soon"], "iso").tolist()
    [1522540831000, -1]
    >>> times_ms([1522540831.0129, None, "31"], "s").tolist()
    [1522540831012, -1, -1]
    """
    if unit == "iso" and (times := _alike_ms(values)) is not None:
        return times
    of_text = _iso_ms if unit == "iso" or or_iso else _no_time
    of_number = _no_time if unit == "iso" else _NUMBERS_MS[unit]
    return np.array(
        [of_text(value) if isinstance(value, str) else of_number(value) for value in values],
        np.int64,
    )


def cells(field: FieldSettings, unit: Unit, texts: Sequence[str]) -> list[Any]:
    """Return the cells of one CSV column as JSON values; None for an empty one.

    What does not parse as the declared type stays a text, so that decoding refuses it.

    >>> cells(FieldSettings(type="integer"), "iso", ["15", "+2", "", "1,5"])
    [15, 2, None, '1,5']
    """
    convert = _converter(field, unit)
    return [convert(text) if text else None for text in texts]


def column_values(column: Any, unit: Unit) -> list[Any]:  # Any: pyarrow ships no types
    """Return an Arrow array as JSON values by its own type; None for null and NaN.

    Times become ISO 8601 in UTC, or a number where the schema declares ``unit`` as one.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_timestamp(kind):
        return _timestamps(column, unit)
    if pa.types.is_date(kind):
        return list(column.cast(pa.date32()).cast(pa.string()).to_pylist())
    if pa.types.is_floating(kind):
        return _floats(column)
    if pa.types.is_decimal(kind):
        return [None if v is None else msgspec.Raw(str(v).encode()) for v in column.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [
            None if v is None else v.decode(errors="surrogateescape") for v in column.to_pylist()
        ]
    if pa.types.is_integer(kind) and not column.null_count:
        return list(column.to_numpy(zero_copy_only=False).tolist())
    return list(column.to_pylist())


def column_times_ms(column: Any, unit: Unit) -> Int64:  # Any: pyarrow ships no types
    """Return Unix ms of an Arrow array of times, of numbers of a unit or of ISO texts."""
    if not pa.types.is_timestamp(column.type):
        return times_ms(column_values(column, unit), unit)
    instants = _naive(column)
    factor, divisor = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}[
        column.type.unit
    ]
    counts = pc.fill_null(instants.cast(pa.int64()), -1).to_numpy()
    valid = (counts >= 0) & (counts < _TIME_MS_END // factor * divisor)
    return np.where(valid, np.where(valid, counts, 0) * factor // divisor, NO_TIME_MS)


def _naive(column: Any) -> Any:
    """Return the same instants without a zone: Arrow counts all of them in UTC."""
    return column.cast(pa.timestamp(column.type.unit))


def _timestamps(column: Any, unit: Unit) -> list[Any]:
    instants = _naive(column)
    if unit == "iso":
        texts = pc.replace_substring(
            instants.cast(pa.string()), pattern=" ", replacement="T", max_replacements=1
        )
        return list(pc.binary_join_element_wise(texts, pa.scalar("Z"), "").to_pylist())
    counts = instants.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_pylist()
    if unit == "s":
        return [None if count is None else count / 1e6 for count in counts]
    divisor = 1 if unit == "us" else 1000
    return [None if count is None else count // divisor for count in counts]


def _floats(column: Any) -> list[Any]:
    numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    values: list[Any] = numbers.tolist()
    for i in np.flatnonzero(~np.isfinite(numbers)).tolist():
        values[i] = _TOO_LARGE.get(values[i])
    return values


def _alike_ms(texts: Sequence[object]) -> Int64 | None:
    """Return Unix ms of texts that all have a zone or all have none, 0.15 us each; else None."""
    first = texts[0] if texts else None
    zone = "UTC" if isinstance(first, str) and _ZONE.search(first, 10) else None
    try:
        instants = pa.array(texts, pa.string()).cast(pa.timestamp("us", zone))
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return None
    times: Int64 = pc.fill_null(instants.cast(pa.int64()), -1).to_numpy() // 1000
    return np.where((times >= 0) & (times < _TIME_MS_END), times, NO_TIME_MS)


def _no_time(value: object) -> int:
    return NO_TIME_MS


def _iso_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(NO_TIME_MS, (moment - _EPOCH) // _MILLISECOND)
    except (ValueError, OverflowError):
        return NO_TIME_MS


def _number_ms(value: object, factor: float = 1, divisor: int = 1) -> int:
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        return NO_TIME_MS
    # Rounded to a microsecond: 1.001 s would be 1 ms too early otherwise.
    time_ms = int(round(value * factor) if factor != 1 else value) // divisor
    return time_ms if time_ms < _TIME_MS_END else NO_TIME_MS


_NUMBERS_MS: dict[str, Callable[[object], int]] = {
    "s": lambda value: _number_ms(value, 1e6, 1000),
    "ms": _number_ms,
    "us": lambda value: _number_ms(value, 1, 1000),
}


def _converter(field: FieldSettings, unit: Unit) -> Callable[[str], Any]:
    if field.type == "boolean":
        return lambda text: _BOOLEANS.get(text.lower(), text)
    if field.type == "integer" or (field.type == "timestamp" and unit in ("ms", "us")):
        return _integer
    if field.type in ("float", "decimal") or (field.type == "timestamp" and unit == "s"):
        return _number
    return str


def _integer(text: str) -> Any:
    # The length bounds what Python would spend on a text of digits only.
    return int(text) if len(text) < 1_000 and _INTEGER.fullmatch(text) else text


def _number(text: str) -> Any:
    """Return the digits as they are where JSON allows it: no rounding on the way."""
    if _JSON_NUMBER.fullmatch(text):
        return msgspec.Raw(text.encode())
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) and "_" not in text else text
