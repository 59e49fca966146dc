"""What an entity takes in Redis: an estimate from the layout of `worker.features.blob`."""

from __future__ import annotations

from math import ceil, exp, log, sqrt
from typing import NamedTuple

from worker.contracts.settings import Settings
from worker.features.codes import HASHED
from worker.features.entity import EntitySpec, Recorded
from worker.features.spec import FeatureSpec

FULL_EVENTS = 20_000
VALUE_MAX = 100_000
_KEY_BYTES = 108  # of a key of 55 bytes, with what Valkey needs for key and value (libc: 88 to 108)
_HEAD_BYTES = 32  # header, checksum, now, newest in tiles, events, the first event's time
_RING_LEAST = 0.75  # of the time that a ring covers on the average, some rings cover no more
_CHANCE = 1.01  # how wide the widest number of some tiles is differs
_HIGH = 1 << 20  # from here on squares take two numbers

Range = tuple[float, float]


def bytes_estimate(settings: Settings, spec: FeatureSpec, entity: str) -> int:
    """Return the bytes in Redis, key included, of an entity of the busiest kind: no other is larger
    by much.

    Of those with a full ring to those with `FULL_EVENTS` in the longest window, evenly spread;
    values are spread over the range that their fields declare, to `VALUE_MAX` units where they
    declare none. Where they are larger by a factor of 128 each value in the ring takes a byte more,
    each tile 7 bits for a sum and for an extreme, 14 for squares.
    """
    kept = next(e for e in spec.parts if e.name == entity)
    if not kept.kept:
        return 0
    columns = [(column, _range(settings, column)) for column in kept.recorded]
    fixed = _KEY_BYTES + _HEAD_BYTES + 8 * len(kept.registers) + len(kept.tile_sets)
    fixed += sum(2 * _bytes(2 * _top(range_)) for column, range_ in columns if column.extremes)
    fixed += kept.ring * (sum(_value(c, _top(r)) for c, r in columns) + 8 * kept.primary)
    reach_ms = max((window.reach_ms for window in kept.windows), default=spec.forget_ms)
    counts = [FULL_EVENTS >> shift for shift in range(10) if FULL_EVENTS >> shift >= kept.ring]
    return ceil(fixed + max(_moving(kept, columns, reach_ms / n) for n in counts or [kept.ring]))


def without_range(settings: Settings, spec: FeatureSpec, entity: str) -> list[str]:
    """Return the fields kept of an entity that declare no `max`: they count to `VALUE_MAX`."""
    kept = next(e for e in spec.parts if e.name == entity)
    fields = {
        column.source.field.removeprefix("$")
        for column in kept.recorded
        if not column.source.is_bit and column.form != HASHED
    }
    declared = settings.events.fields
    numbers = ("integer", "decimal")
    return [n for n in declared if n in fields and declared[n].type in numbers
            and declared[n].max is None]  # fmt: skip


def _moving(kept: EntitySpec, columns: list[tuple[Recorded, Range]], gap_ms: float) -> float:
    """Return the bytes of the times in the ring and of all tiles, with an event every so often."""
    size = float(kept.ring * _bytes(gap_ms))
    for tile_set in kept.tile_sets:
        mean = tile_set.tile_ms / gap_ms
        in_ring = int(_RING_LEAST * kept.ring * gap_ms / tile_set.tile_ms)
        tiles = (tile_set.tiles - in_ring) * (1 - exp(-mean))
        if tiles <= 0:
            continue
        tiles = max(tiles, 1.0)
        events = Events(mean / (1 - exp(-mean)), tiles)
        empty = exp(-mean) / (1 - exp(-mean))
        widths = [_bits(empty * (1 + log(tiles))), _bits(events.most)]
        flags = 0.0
        for column, range_ in columns:
            if column.tiled:
                widths += _widths(column, range_, events)
                flags += _flags(column, range_, events.mean)
        size += _CHANCE * (len(widths) * 7 / 8 + tiles * (sum(widths) / 8 + flags) + 1)
    return size


class Events(NamedTuple):
    """How many events are in a tile, of so many tiles: numbers are as wide as the largest."""

    mean: float
    tiles: float

    @property
    def beyond(self) -> float:
        """Return how many deviations the outermost of the tiles is from their mean."""
        return sqrt(2 * log(self.tiles + 1))

    @property
    def most(self) -> float:
        return self.mean + self.beyond * sqrt(self.mean)


def _widths(column: Recorded, range_: Range, events: Events) -> list[int]:
    """Return the bits of what a tile keeps of a column, whose values are even in their range."""
    lowest, highest = range_
    span, top, most = highest - lowest, _top(range_), events.most
    found = [_bits(most)] if column.optional else []
    if column.form == HASHED:
        return [*found, 0]
    if column.extremes:
        outermost = _bits(min(span * (0.6 + log(events.tiles)) / (events.mean + 1), span))
        found += [outermost, outermost, _bits(2 * events.beyond * span * sqrt(events.mean / 12))]
    else:
        found += [_bits(2 * most * max(abs(lowest + highest) / 2, span / 2))]
    if column.squares:
        around = most * span * span / 12
        high = 2 * most * top * top / 3 / (1 << 40) if top >= _HIGH else 0
        found += [min(_bits(around), 64), _bits(high)]
    return found


def _flags(column: Recorded, range_: Range, events: float) -> float:
    """Return the bytes of a tile's bits of a column."""
    if not column.bits:
        return 0.0
    different = min(events, range_[1] + 1) if column.form != HASHED else events
    return 1 + (different if different < 32 else 32)


def _bits(number: float) -> int:
    return int(number).bit_length()


def _bytes(number: float) -> int:
    """Return the length of a varint."""
    return max(1, -(-int(number).bit_length() // 7))


def _range(settings: Settings, column: Recorded) -> Range:
    """Return the smallest and the largest value of a column, in its units."""
    source = column.source
    if source.is_bit:
        return 0, 1
    if source.kind == "degrees":
        return -180_000_000, 180_000_000
    declared = settings.events.fields.get(source.field.removeprefix("$"))
    if declared is None:  # a score, in millionths
        return 0, 1_000_000
    if declared.type in ("boolean", "category"):
        return 0, len(declared.values or (0,))
    if declared.max is None:
        return 0, VALUE_MAX
    unit = declared.resolution or 1
    return (declared.min or 0) / unit, declared.max / unit


def _top(range_: Range) -> float:
    return max(map(abs, range_))


def _value(column: Recorded, top: float) -> int:
    if column.form == HASHED:
        return 8
    return _bytes(2 * top + column.optional)
