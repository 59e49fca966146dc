"""Time zones as tables of transitions, so that local time is one search and one addition."""

from __future__ import annotations

import datetime as dt
from functools import cache
from hashlib import sha256
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np

from worker.contracts.records import Int64

YEARS = (1970, 2100)
"""Years with their own transitions; before and after, the first and the last offset hold."""

_STEP = dt.timedelta(days=1)  # no zone has changed its offset and changed it back within a day


class Zone(NamedTuple):
    """A time zone: ``offsets_ms[i]`` holds from ``starts_ms[i - 1]`` on."""

    name: str
    starts_ms: Int64
    offsets_ms: Int64

    def local(self, time_ms: Int64) -> Int64:
        """Return local times as if they were UTC, in ms."""
        if len(self.starts_ms) == 0:
            return time_ms + self.offsets_ms[0] if self.offsets_ms[0] else time_ms
        return time_ms + self.offsets_ms[np.searchsorted(self.starts_ms, time_ms, side="right")]

    @property
    def digest(self) -> str:
        """Return what changes with any transition: the rules of a zone are not for ever."""
        return sha256(self.starts_ms.tobytes() + self.offsets_ms.tobytes()).hexdigest()[:16]


UTC = Zone("UTC", np.empty(0, np.int64), np.zeros(1, np.int64))


@cache
def zone_of(name: str) -> Zone:
    """Return a zone of the IANA database.

    Raises
    ------
    LookupError
        There is none of that name.

    Examples
    --------
    >>> zone_of("Europe/Paris").local(np.array([1_700_000_000_000])) - 1_700_000_000_000
    array([3600000])
    """
    if name == "UTC":
        return UTC
    try:
        info = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise LookupError(name) from None
    starts, offsets = [], []
    at, end = dt.datetime(YEARS[0], 1, 1, tzinfo=dt.UTC), dt.datetime(YEARS[1], 1, 1, tzinfo=dt.UTC)
    offsets.append(_offset_ms(info, at))
    while at < end:
        after = at + _STEP
        if _offset_ms(info, after) != offsets[-1]:
            start = _transition(info, at, after)
            starts.append(int(start.timestamp()) * 1000)
            offsets.append(_offset_ms(info, after))
        at = after
    return Zone(name, np.array(starts, np.int64), np.array(offsets, np.int64))


def zone_names() -> list[str]:
    """Return the names of all zones, sorted."""
    return sorted(available_timezones())


def _offset_ms(info: ZoneInfo, at: dt.datetime) -> int:
    offset = at.astimezone(info).utcoffset()
    assert offset is not None, info
    return int(offset.total_seconds() * 1000)


def _transition(info: ZoneInfo, low: dt.datetime, high: dt.datetime) -> dt.datetime:
    """Return the first second of the new offset, by halving."""
    before = _offset_ms(info, low)
    while high - low > dt.timedelta(seconds=1):
        middle = low + dt.timedelta(seconds=int((high - low).total_seconds()) // 2)
        low, high = (middle, high) if _offset_ms(info, middle) == before else (low, middle)
    return high
