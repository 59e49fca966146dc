"""Records of every kind that a worker must refuse, for trying out dead letters.

Each kind is named by the code with which the worker rejects it; ``duplicate`` is the one that is no
dead letter but a second copy. Every bad record is extra: the good events stay complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from producers.items import Item

# From the bytes of a good event to those of a bad one.
_VALUES: dict[str, Callable[[bytes], bytes | None]] = {
    "not_utf8": lambda good: good.replace(b'"country":"', b'"country":"\xff\xfe'),
    "not_json": lambda good: good[: len(good) // 2],
    "not_object": lambda good: b"[" + good + b"]",
    "duplicate_key": lambda good: good[:-1] + b',"amount":1.00}',
    "missing_field": lambda good: re.sub(rb'"amount":[^,]+,', b"", good),
    "wrong_type": lambda good: _with(good, b"amount", b'"12.00"'),
    "out_of_range": lambda good: _with(good, b"amount", b"-5.00"),
    "not_finite": lambda good: _with(good, b"amount", b"NaN"),
    "integer_too_large": lambda good: _with(good, b"amount", b"9" * 30),
    "bad_time": lambda good: _with(good, b"time", b'"yesterday"'),
    "time_before_1970": lambda good: _with(good, b"time", b'"1969-12-31T23:59:59.999Z"'),
    "time_ahead": lambda good: _with(good, b"time", b'"2099-01-01T00:00:00.000Z"'),
    "id_too_long": lambda good: _with(good, b"transaction_id", b'"' + b"x" * 257 + b'"'),
    "empty_id": lambda good: _with(good, b"transaction_id", b'""'),
    "record_too_large": lambda good: good[:-1] + b',"note":"' + b"x" * 70_000 + b'"}',
    "duplicate": lambda good: good,
    # The rest needs a topic: a file has neither tombstones nor keys.
    "tombstone": lambda good: None,
    "key_mismatch": lambda good: good,
    "key_missing": lambda good: good,
}
KINDS = tuple(_VALUES)
FILE_KINDS = tuple(
    kind for kind in KINDS if kind not in ("tombstone", "key_mismatch", "key_missing")
)


class BadRecords:
    """Plants ``share`` bad records per event, the ``kinds`` in turn.

    Raises
    ------
    ValueError
        A kind is not one of `KINDS`, or ``share`` is not within [0, 1].
    """

    def __init__(self, share: float, kinds: tuple[str, ...] = ()) -> None:
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not 0 <= share <= 1:
            raise ValueError(
                f"expected a share within [0, 1] and kinds of {KINDS}, got {share}, {unknown}"
            )
        self._share, self._kinds = share, kinds or FILE_KINDS
        self._debt, self._count = 0.0, 0

    def after(self, event: Item) -> Iterator[Item]:
        """Yield the bad records that follow this event, at its time: mostly none."""
        self._debt += self._share
        while self._debt >= 1:
            self._debt -= 1
            kind = self._kinds[self._count % len(self._kinds)]
            self._count += 1
            yield _spoil(kind, event, self._count)


def _spoil(kind: str, event: Item, count: int) -> Item:
    """Return a bad record of a kind, made from a good event under an id of its own."""
    assert event.value is not None
    good = (
        event.value
        if kind == "duplicate"
        else _with(event.value, b"transaction_id", b'"x%07d"' % count)
    )
    keys = {"key_mismatch": b"nobody", "key_missing": None}
    return event._replace(key=keys.get(kind, event.key), value=_VALUES[kind](good))


def _with(good: bytes, name: bytes, value: bytes) -> bytes:
    """Return the event with another value of one field."""
    return re.sub(rb'"%s":("[^"]*"|[^,}]+)' % name, b'"%s":%s' % (name, value), good, count=1)
