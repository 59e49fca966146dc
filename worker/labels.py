"""Label records to labels: the truth about events, with when it became known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from worker.contracts.records import Label, Records, Rejected

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
        except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
            rejected.append(_rejection(records, i, error))
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


def _rejection(records: Records, i: int, error: Exception) -> Rejected:
    offset = records.offsets[i]
    code = "tombstone" if records.values[i] is None else "bad_label"
    detail = str(error) if isinstance(error, msgspec.DecodeError) else "not a label"
    place = f"{records.topic}/{records.partition}@{offset}"
    return Rejected(i, offset, code, f"{place} {_without_values(detail)}")


def _without_values(text: str) -> str:
    """Drop what msgspec quotes of the input: an enum error names the value it found."""
    head, separator, tail = text.partition(" - at ")
    if head.startswith("Invalid enum value"):
        head = "expected 0 or 1"
    return head + separator + tail
