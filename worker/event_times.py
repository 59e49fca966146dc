"""Times in records to Unix milliseconds: ISO 8601 texts, and numbers since 1970."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Bool, Float64, Int64

# The years 1 to 9999, which is what ISO 8601 and Python's datetime can say.
TIME_MS_MIN = -62_135_596_800_000
TIME_MS_MAX = 253_402_300_799_999

_DAY_MS = 86_400_000
_EPOCH_ORDINAL = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001  # an ordinal has no time zone
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,12}))?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
# What the numpy path reads: a full time of day; the rest is left to the regular expression.
_TAIL = re.compile(r"(?:\.([0-9]{1,9}))?(Z?)")
_BODY_LENGTH = 19
_SEPARATORS = ((4, "-"), (7, "-"), (13, ":"), (16, ":"))
_DIGITS = np.array([0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18])
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


def iso_to_ms(text: str) -> int | None:
    """Return Unix ms of an ISO 8601 time, or None where it is none.

    ``YYYY-MM-DD``, then ``T`` or a space and ``HH:MM[:SS[.fraction]]``, then ``Z`` or an offset. No
    offset means UTC; no time of day means midnight. What is finer than a millisecond is cut off.

    >>> iso_to_ms("2018-04-01T00:00:31.0129+02:00"), iso_to_ms("yesterday")
    (1522533631012, None)
    """
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001  # offset below
    except ValueError:
        return None
    days = moment.toordinal() - _EPOCH_ORDINAL
    seconds = hour * 3600 + minute * 60 + second
    millisecond = int((match[7] or "").ljust(3, "0")[:3])
    offset_ms = _offset_ms(match[8])
    if offset_ms is None:
        return None
    time_ms = days * _DAY_MS + seconds * 1000 + millisecond - offset_ms
    return time_ms if TIME_MS_MIN <= time_ms <= TIME_MS_MAX else None


def iso_column_to_ms(texts: Sequence[str]) -> tuple[Int64, Bool]:
    """Return Unix ms per text (0 where it is no time) and which texts are times.

    As `iso_to_ms`. Texts of one length and layout are read together, 0.1 us each.
    """
    time_ms = np.zeros(len(texts), np.int64)
    valid = np.zeros(len(texts), np.bool_)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        same = [texts[i] for i in rows.tolist()] if len(rows) < len(texts) else texts
        time_ms[rows], valid[rows] = _same_length(same, length)
    for i in np.flatnonzero(~valid).tolist():
        one = iso_to_ms(texts[i])
        if one is not None:
            time_ms[i], valid[i] = one, True
    return time_ms, valid


def seconds_to_ms(seconds: Float64) -> Int64:
    """Return Unix ms of seconds since 1970, rounded to a microsecond and then cut to ms.

    Without the rounding 1.001 s would be 1.000999... s, one millisecond too early.
    """
    return np.floor_divide(np.rint(seconds * 1e6), 1000.0).astype(np.int64)


def _offset_ms(zone: str | None) -> int | None:
    if zone is None or zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        return None
    sign = -1 if zone[0] == "-" else 1
    return sign * (hours * 60 + minutes) * 60_000


def _same_length(texts: Sequence[str], length: int) -> tuple[Int64, Bool]:
    """Read texts that look like the first of them; the others are reported as no time."""
    nothing = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    tail = _TAIL.fullmatch(texts[0][_BODY_LENGTH:]) if length >= _BODY_LENGTH else None
    joined = "".join(texts)
    if tail is None or not joined.isascii():
        return nothing
    chars = np.frombuffer(joined.encode(), np.uint8).reshape(len(texts), length)
    fraction = len(tail[1] or "")
    return _read(chars, fraction, bool(tail[2]))


def _read(chars: NDArray[np.uint8], fraction: int, has_zone: bool) -> tuple[Int64, Bool]:
    """Return ms and validity of rows of ASCII with one layout, of shape (n, length)."""
    positions = np.concatenate((_DIGITS, np.arange(20, 20 + fraction)))
    digits = chars[:, positions].astype(np.int64) - ord("0")
    valid = ((digits >= 0) & (digits <= 9)).all(axis=1)
    for position, separator in _SEPARATORS:
        valid &= chars[:, position] == ord(separator)
    valid &= (chars[:, 10] == ord("T")) | (chars[:, 10] == ord(" "))
    if fraction:
        valid &= chars[:, _BODY_LENGTH] == ord(".")
    if has_zone:
        valid &= chars[:, -1] == ord("Z")
    year = digits[:, :4] @ np.array([1000, 100, 10, 1])
    month, day, hour, minute, second = (
        digits[:, i] * 10 + digits[:, i + 1] for i in range(4, 14, 2)
    )
    valid &= (hour < 24) & (minute < 60) & (second < 60) & _is_date(year, month, day)
    millisecond = digits[:, 14:17] @ np.array([100, 10, 1])[: min(3, fraction)]
    seconds = hour * 3600 + minute * 60 + second
    time_ms = _days(year, month, day) * _DAY_MS + seconds * 1000 + millisecond
    return np.where(valid, time_ms, 0), valid


def _is_date(year: Int64, month: Int64, day: Int64) -> Bool:
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    days = _MONTH_DAYS[np.clip(month, 1, 12) - 1] + (leap & (month == 2))
    return np.asarray(
        (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= days), np.bool_
    )


def _days(year: Int64, month: Int64, day: Int64) -> Int64:
    """Return days since 1970 in the Gregorian calendar.

    Source: H. Hinnant, "chrono-compatible low-level date algorithms", days_from_civil.
    """
    y = year - (month <= 2)
    era = y // 400
    year_of_era = y - era * 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return np.asarray(era * 146_097 + day_of_era - 719_468, np.int64)
