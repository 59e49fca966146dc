"""An independent validation of one record of the corpus' schema: json and plain Python."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

_ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,12})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999
_DEFAULTS = {"note": "-", "seen": 0, "tip": 0}
_NAMES = (
    "id", "card", "terminal", "time", "amount", "items", "ticket", "ratio", "online", "channel",
    "note", "seen", "tip",
)  # fmt: skip


def oracle(value: bytes) -> tuple[set[str], dict[str, Any]]:
    """Return every fault of a record, and its columns, which count if there is none."""
    faults: set[str] = set()
    members = _members(value, faults)
    if members is None:
        return faults, {}
    names = [name for name, _ in members if name in _NAMES]
    if len(set(names)) < len(names):
        faults.add("duplicate_key")
    last = dict(members)
    return faults, {name: _column(name, last.get(name), faults) for name in _NAMES}


def _members(value: bytes, faults: set[str]) -> list[tuple[str, Any]] | None:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        faults.add("not_utf8")
        return None
    try:
        # Integers become Decimal, so that they differ from floats and have no limit.
        parsed = json.loads(text, parse_int=Decimal)
        tops: list[Any] = []
        json.loads(text, object_pairs_hook=tops.append, parse_int=Decimal)
    except (ValueError, RecursionError):
        # Deeper than Python's stack is deeper than 100 levels.
        faults |= {"not_json", "too_deep"}
        return None
    if re.search(r"NaN|Infinity", text):
        faults |= {"not_json", "not_finite"}
    if not isinstance(parsed, dict):
        faults.add("not_object")
        return None
    # Objects are completed from the inside out: the outermost is the last. `append` returns None,
    # so there an inner object is None, which the first parse makes good.
    return [(name, parsed[name] if i is None else i) for name, i in tops[-1]]


def _column(name: str, item: Any, faults: set[str]) -> Any:
    if item is None:
        if name not in _DEFAULTS:
            faults.add("missing_field")
        return _DEFAULTS.get(name)
    if name in ("id", "card", "note"):
        return _text(item, faults, is_id=name != "note")
    if name == "channel":
        return {"web": 0, "chip": 1}.get(_text(item, faults, is_id=False), 2)
    if name == "time":
        return _iso(item, faults)
    if name == "online":
        faults |= set() if isinstance(item, bool) else {"wrong_type"}
        return int(item is True)
    if name == "ratio":
        return _float(item, faults, -1, 1)
    if name in ("amount", "tip"):
        return _decimal(item, faults, *((0, 1e9) if name == "amount" else (-math.inf, math.inf)))
    return _integer(name, item, faults)


def _text(item: Any, faults: set[str], is_id: bool) -> str:
    if not isinstance(item, str):
        faults.add("wrong_type")
        return ""
    try:
        size = len(item.encode())
    except UnicodeEncodeError:
        faults.add("not_utf8")
        return ""
    if is_id and not 1 <= size <= 256:
        faults.add("id_too_long" if size else "empty_id")
    return item


def _iso(item: Any, faults: set[str]) -> int:
    text = _text(item, faults, is_id=False)
    try:
        moment = datetime.fromisoformat(text) if _ISO.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None:
        faults.add("bad_time")
        return 0
    offset = moment.utcoffset() or timedelta(0)
    time_ms = (moment.replace(tzinfo=UTC) - _EPOCH - offset) // timedelta(milliseconds=1)
    if time_ms < 0:
        faults |= {"time_before_1970", "bad_time"}
    if time_ms > _LAST_MS:
        faults.add("bad_time")
    return time_ms


def _integer(name: str, item: Any, faults: set[str]) -> int:
    if not isinstance(item, Decimal):
        faults.add("wrong_type")
        return 0
    number = int(item)
    if name == "seen":
        if not -62_135_596_800_000 <= number <= _LAST_MS:
            faults.add("bad_time")
        return number
    large = 2**40 + 1 if name == "items" else 2**63
    low = -(2**40) if name == "items" else -(2**63)
    if not low <= number < large:
        faults.add("integer_too_large")
    elif name == "items" and number < 1:
        faults.add("out_of_range")
    return number


def _float(item: Any, faults: set[str], low: float, high: float) -> float:
    if not isinstance(item, float | Decimal):
        faults.add("wrong_type")
        return 0.0
    number = float(item)
    if math.isinf(number) or math.isnan(number):
        faults.add("not_finite")
    elif not low <= number <= high:
        faults.add("out_of_range")
    return number


def _decimal(item: Any, faults: set[str], low: float, high: float) -> int:
    number = _float(item, faults, low, high)
    if not math.isfinite(number) or abs(number) > 1e200:
        faults.add("integer_too_large")
        return 0
    # The quotient is a float by definition; the rounding of it is done in exact decimals.
    units = int(Decimal(number / 0.01).to_integral_value(rounding="ROUND_HALF_EVEN"))
    if abs(units) > 2**40:
        faults.add("integer_too_large")
    return units
