"""Label records to labels: the truth about events, with when it became known."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal  # Any: values of any JSON type

import msgspec

from worker.contracts.records import Label, Records, Rejected
from worker.errors import RecordError

_EVENT_ID_BYTES_MAX = 256
_TIME_MS_MAX = 253_402_300_799_999  # the end of the year 9999


class _LabelStruct(msgspec.Struct, gc=False):
    """The wire form of `worker.contracts.messages.LabelMessage`; a test holds the two together."""

    event_id: str | int
    label: Literal[0, 1]
    time: str | int | float | None = None
    weight: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    source: Annotated[str, msgspec.Meta(max_length=64)] = ""


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
        except (msgspec.DecodeError, ValueError, RecursionError, OverflowError):
            rejected.append(_rejection(records, i))  # slow, and exact about the fault
    return labels, index, rejected


def _label(value: bytes | None, timestamp_ms: int) -> Label:
    if value is None:
        raise ValueError("tombstone")
    message = _DECODER.decode(value)
    event_id, time_ms = str(message.event_id), timestamp_ms
    # A character is at most four bytes.
    if not 0 < len(event_id) <= _EVENT_ID_BYTES_MAX // 4 and not (
        0 < len(event_id.encode()) <= _EVENT_ID_BYTES_MAX
    ):
        raise ValueError("event_id: expected 1 to 256 bytes")
    if message.time is not None:
        time_ms = _time_ms(message.time)
        if not 0 <= time_ms <= _TIME_MS_MAX:
            raise ValueError("time: expected 1970 to 9999")
    return Label(event_id, message.label, time_ms, message.weight, message.source)


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
        fields = json.loads(value)
    except (ValueError, RecursionError):
        return RecordError("$", "a JSON object", "other bytes")
    if not isinstance(fields, dict):
        return RecordError("$", "a JSON object", _KINDS[type(fields)])
    for name, (expected, is_valid, is_required) in _FIELDS.items():
        if name not in fields:
            if is_required:
                return RecordError(f"$.{name}", expected, "nothing")
        elif not is_valid(fields[name]):
            return RecordError(f"$.{name}", expected, _KINDS[type(fields[name])])
    return RecordError("$", "a JSON object in UTF-8", "other bytes")


def _is_id(value: Any) -> bool:
    if type(value) is int:
        return True
    try:
        return isinstance(value, str) and 0 < len(value.encode()) <= _EVENT_ID_BYTES_MAX
    except UnicodeEncodeError:
        return False


def _is_time(value: Any) -> bool:
    if value is None:
        return True
    try:
        return type(value) in (int, float, str) and 0 <= _time_ms(value) <= _TIME_MS_MAX
    except (ValueError, OverflowError):
        return False


_KINDS = {
    str: "another text", int: "another number", float: "another number", bool: "a boolean",
    list: "an array", dict: "an object", type(None): "null",
}  # fmt: skip
_FIELDS: dict[str, tuple[str, Callable[[Any], bool], bool]] = {
    "event_id": ("a text of 1 to 256 bytes, or an integer", _is_id, True),
    "label": ("0 or 1", lambda v: type(v) is int and v in (0, 1), True),
    "time": ("ISO 8601 or Unix ms, from 1970 to 9999", _is_time, False),
    "weight": (
        "a number above 0 and at most 1e6",
        lambda v: type(v) in (int, float) and 0 < v <= 1e6, False,
    ),
    "source": (
        "a text of at most 64 characters", lambda v: isinstance(v, str) and len(v) <= 64, False
    ),
}  # fmt: skip
