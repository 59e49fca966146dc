"""Label records to labels: the truth about events, with when it became known."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple  # Any: values of any JSON type

import msgspec

from worker.contracts.records import Label, Records, Rejected
from worker.errors import RecordError

_EVENT_ID_BYTES_MAX = 256
_SOURCE_LETTERS_MAX = 64
_WEIGHT_MAX = 1e6
_TIME_MS_MAX = 253_402_300_799_999  # the end of the year 9999


class _LabelStruct(msgspec.Struct, gc=False):
    """The wire form of `worker.contracts.messages.LabelMessage`; a test holds the two together."""

    event_id: str | int
    label: Literal[0, 1]
    time: str | int | float | None = None
    weight: Annotated[float, msgspec.Meta(gt=0, le=_WEIGHT_MAX)] = 1.0
    source: Annotated[str, msgspec.Meta(max_length=_SOURCE_LETTERS_MAX)] = ""


_DECODER = msgspec.json.Decoder(_LabelStruct)


def decode_labels(records: Records) -> tuple[list[Label], list[int], list[Rejected]]:
    """Return the labels, the index of each one's record, and the records that are none.

    A label without a time of its own became known at its record's timestamp.
    """
    labels: list[Label] = []
    index: list[int] = []
    rejected: list[Rejected] = []
    for i, (value, time_ms) in enumerate(zip(records.values, records.timestamps_ms, strict=True)):
        try:
            labels.append(_label(value, time_ms))
            index.append(i)
        except (msgspec.DecodeError, RecordError, ValueError, RecursionError, OverflowError):
            rejected.append(_rejection(records, i))  # slow, and exact about the fault
    return labels, index, rejected


def _label(value: bytes | None, timestamp_ms: int) -> Label:
    """Return the label; any error says only that it is none, `_fault_of` says why."""
    if value is None:
        raise ValueError("tombstone")
    message = _DECODER.decode(value)
    if value.count(b'"event_id"') != 1 or value.count(b'"label"') != 1 or b"\\" in value:
        json.loads(value, object_pairs_hook=_once)  # of two of a name C takes the last
    event_id, time_ms = str(message.event_id), timestamp_ms
    # A character is at most four bytes.
    if not 0 < len(event_id) <= _EVENT_ID_BYTES_MAX // 4 and not _is_id(event_id):
        raise ValueError("event_id")
    if message.time is not None:
        time_ms = _time_ms(message.time)
        if not 0 <= time_ms <= _TIME_MS_MAX:
            raise ValueError("time")
    return Label(event_id, message.label, time_ms, message.weight, message.source)


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; `RecordError` where it has a declared member twice."""
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found and name in _FIELDS:
            raise RecordError(f"$.{name}", "one of this name", "two")
        found[name] = value
    return found


def _time_ms(time: str | float) -> int:
    """Return Unix ms of an ISO 8601 text (without an offset: UTC) or of a number that is ms
    already.
    """
    if not isinstance(time, str):
        return int(time)
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _rejection(records: Records, i: int) -> Rejected:
    value, offset = records.values[i], records.offsets[i]
    code = "tombstone" if value is None else "bad_label"
    place = f"{records.topic}/{records.partition}@{offset}"
    return Rejected(i, offset, code, f"{place} {_fault_of(value)}")


def _fault_of(value: bytes | None) -> RecordError:
    """Return why a record is no label: the first field that is wrong, without its value."""
    if value is None:
        return RecordError("$", "a label", "no value")
    try:
        fields = json.loads(value, parse_int=_int, object_pairs_hook=_once)
    except RecordError as error:
        return error
    except (ValueError, RecursionError):
        return RecordError("$", "a JSON object", "other bytes")
    if not isinstance(fields, dict):
        return RecordError("$", "a JSON object", _KINDS[type(fields)])
    for name, field in _FIELDS.items():
        got = field.refusal(fields[name]) if name in fields else field.absent
        if got:
            return RecordError(f"$.{name}", field.expected, got)
    return RecordError("$", "a JSON object in UTF-8", "other bytes")


def _int(digits: str) -> int | float:
    """Return an integer, or a float where Python refuses to read so many digits."""
    return int(digits) if len(digits) < 1_000 else float(digits)


class _Field(NamedTuple):
    """What a member of a label has to be."""

    expected: str
    types: tuple[type, ...]
    is_valid: Callable[[Any], bool]
    absent: str = ""

    def refusal(self, value: Any) -> str:
        """Return what it is instead, nothing where it is as it should be."""
        if type(value) not in self.types:
            return _KINDS[type(value)]
        return "" if self.is_valid(value) else "another one"


def _is_id(value: Any) -> bool:
    try:
        return type(value) is int or 0 < len(value.encode()) <= _EVENT_ID_BYTES_MAX
    except UnicodeEncodeError:
        return False


def _is_time(value: Any) -> bool:
    try:
        return value is None or 0 <= _time_ms(value) <= _TIME_MS_MAX
    except (ValueError, OverflowError):
        return False


_KINDS = {
    str: "a text", int: "a number", float: "a number", bool: "a boolean", list: "an array",
    dict: "an object", type(None): "null",
}  # fmt: skip
_NUMBERS = (int, float)
_FIELDS = {
    "event_id": _Field("a text of 1 to 256 bytes, or an integer", (str, int), _is_id, "nothing"),
    "label": _Field("0 or 1", (int,), lambda v: v in (0, 1), "nothing"),
    "time": _Field(
        "ISO 8601 or Unix ms, from 1970 to 9999", (str, *_NUMBERS, type(None)), _is_time
    ),
    "weight": _Field("a number above 0 and at most 1e6", _NUMBERS, lambda v: 0 < v <= _WEIGHT_MAX),
    "source": _Field(
        "a text of at most 64 characters", (str,), lambda v: len(v) <= _SOURCE_LETTERS_MAX
    ),
}
