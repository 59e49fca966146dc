"""What an entity takes in Redis: an estimate from the layout of `worker.features.blob`."""

from __future__ import annotations

from math import ceil, exp

from worker.contracts.settings import Settings
from worker.features.codes import HASHED
from worker.features.entity import EntitySpec, Recorded
from worker.features.spec import FeatureSpec

FULL_EVENTS = 20_000
VALUE_MAX = 100_000
_KEY_BYTES = 108  # of a key of 55 bytes, with what Valkey needs for key and value (libc: 88 to 108)
_HEAD_BYTES = 32  # header, checksum, now, newest in tiles, events, the first event's time
_HIGH = 1 << 20  # from here on squares take two numbers


def bytes_estimate(settings: Settings, spec: FeatureSpec, entity: str) -> int:
    """Return the bytes in Redis, key included, of an entity of the busiest kind: no other is larger
    by much.

    Of those with a full ring to those with `FULL_EVENTS` in the longest window, evenly spread;
    values are spread over the range that their fields declare, of `VALUE_MAX` units where they
    declare none. Where numbers are larger by a factor of 128 each of them takes a byte more.
    """
    kept = next(e for e in spec.parts if e.name == entity)
    if not kept.kept:
        return 0
    columns = [(column, _largest(settings, column)) for column in kept.recorded]
    fixed = _KEY_BYTES + _HEAD_BYTES + 8 * len(kept.registers) + len(kept.tile_sets)
    fixed += kept.ring * (sum(_value(*c) for c in columns) + 8 * kept.primary)
    reach_ms = max((window.reach_ms for window in kept.windows), default=spec.forget_ms)
    counts = [FULL_EVENTS >> shift for shift in range(10) if FULL_EVENTS >> shift >= kept.ring]
    return ceil(fixed + max(_moving(kept, columns, reach_ms / n) for n in counts or [kept.ring]))


def _moving(kept: EntitySpec, columns: list[tuple[Recorded, float]], gap_ms: float) -> float:
    """Return the bytes of the times in the ring and of all tiles, with an event every so often."""
    size = float(kept.ring * _bytes(gap_ms))
    for tile_set in kept.tile_sets:
        mean = tile_set.tile_ms / gap_ms
        filled = 1 - exp(-mean)
        events = mean / filled
        record = sum(_record(column, top, events) for column, top in columns if column.tiled)
        size += tile_set.tiles * filled * (_bytes(2 * events) + record)
    return size


def _bytes(number: float) -> int:
    """Return the length of a varint."""
    return max(1, -(-int(number).bit_length() // 7))


def _largest(settings: Settings, column: Recorded) -> float:
    """Return the largest absolute value of a column, in its units."""
    source = column.source
    if source.is_bit:
        return 1
    if source.kind == "degrees":
        return 180_000_000
    declared = settings.events.fields.get(source.field.removeprefix("$"))
    if declared is None:  # a score, in millionths
        return 1_000_000
    if declared.type in ("boolean", "category"):
        return len(declared.values or (0,))
    if declared.max is None:
        return VALUE_MAX
    return max(abs(declared.max), abs(declared.min or 0)) / (declared.resolution or 1)


def _value(column: Recorded, top: float) -> int:
    if column.form == HASHED:
        return 8
    return _bytes(2 * top + column.optional)


def _record(column: Recorded, top: float, events: float) -> float:
    """Return the bytes of a column in a tile of so many events."""
    if column.form == HASHED:
        total = 1
    else:
        total = _bytes(events * top * (2 if column.source.is_bit else 1))
    size: float = total + column.optional * _bytes(events)
    if column.squares and top < _HIGH:
        size += _bytes(2 * events * top * top / 3)
    elif column.squares:
        size += 10 + _bytes(4 * events * top * top / 3 / (1 << 40))
    if column.extremes:
        size += _bytes(2 * top / (events + 1)) + _bytes(top * (events - 1) / (events + 1))
    if column.bits:
        different = min(events, top + 1) if column.form != HASHED else events
        size += 1 + (different if different < 32 else 32)
    return size
