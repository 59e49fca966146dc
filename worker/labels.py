"""Label records to labels: the truth about events, with when it became known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple  # Any: values of any JSON type

import msgspec
import numpy as np
from msgspec.structs import astuple

from worker.contracts.records import Int64, Label, Labels, Records, Rejected
from worker.errors import RecordError

_EVENT_ID_BYTES_MAX = 256
_SHORT_ID_LENGTH = _EVENT_ID_BYTES_MAX // 4  # a character is at most four bytes of UTF-8
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
_REQUIRED = (b'"event_id"', b'"label"')
_OPTIONAL = (b'"time"', b'"weight"', b'"source"')
_FAULTS = (msgspec.DecodeError, RecordError, ValueError, RecursionError, OverflowError)


def decode_labels(records: Records) -> tuple[Labels, Int64, list[Rejected]]:
    """Return the labels, the index of each one's record, and the records that are none.

    A label without a time of its own became known at its record's timestamp.
    """
    plain = _plain_labels(records.values, records.timestamps_ms)
    if plain is not None:
        return plain, np.arange(len(plain)), []
    labels: list[Label] = []
    index: list[int] = []
    rejected: list[Rejected] = []
    for i, (value, time_ms) in enumerate(zip(records.values, records.timestamps_ms, strict=True)):
        try:
            labels.append(_label(value, time_ms))
            index.append(i)
        except _FAULTS:
            rejected.append(_rejection(records, i))  # slow, and exact about the fault
    return Labels.of(labels), np.array(index, np.int64), rejected


def _plain_labels(values: Sequence[bytes | None], timestamps_ms: Sequence[int]) -> Labels | None:
    """Return the labels as `_label` does, many at a time; None where one is not plain."""
    try:
        messages = list(map(_DECODER.decode, values))  # type: ignore[arg-type]
        if not messages or _may_repeat(values):  # type: ignore[arg-type]
            return None
        ids, ys, times, weights, sources = zip(*map(astuple, messages), strict=True)
        if times.count(None) < len(times):
            timestamps_ms = list(map(_known_ms, times, timestamps_ms))
        texts = list(map(str, ids))
    except (*_FAULTS, TypeError):
        return None
    lengths = set(map(len, texts))
    if min(lengths) == 0 or max(lengths) > _SHORT_ID_LENGTH:
        return None
    return Labels(
        texts, np.array(ys, np.int64), np.array(timestamps_ms, np.int64),
        np.array(weights, np.float64), list(sources),
    )  # fmt: skip


def _may_repeat(values: Sequence[bytes]) -> bool:
    """Return whether one of these labels may have a declared member twice."""
    together = b"\n".join(values)
    if b"\\" in together or any(together.count(name) != len(values) for name in _REQUIRED):
        return True
    some = [name for name in _OPTIONAL if name in together]
    return any(value.count(name) > 1 for name in some for value in values)


def _label(value: bytes | None, timestamp_ms: int) -> Label:
    """Return the label; any error says only that it is none, `_fault_of` says why."""
    if value is None:
        raise ValueError("tombstone")
    message = _DECODER.decode(value)
    if b"\\" in value or any(value.count(name) > 1 for name in (*_REQUIRED, *_OPTIONAL)):
        json.loads(
            value, parse_int=_int, object_pairs_hook=_once
        )  # of two of a name C takes the last
    event_id = str(message.event_id)
    if not 0 < len(event_id) <= _SHORT_ID_LENGTH and not _is_id(event_id):
        raise ValueError("event_id")
    time_ms = _known_ms(message.time, timestamp_ms)
    return Label(event_id, message.label, time_ms, message.weight, message.source)


def _known_ms(time: str | float | None, timestamp_ms: int) -> int:
    """Return when a label became known; ValueError where its own time is out of bounds."""
    if time is None:
        return timestamp_ms
    time_ms = _time_ms(time)
    if not 0 <= time_ms <= _TIME_MS_MAX:
        raise ValueError("time")
    return time_ms


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
