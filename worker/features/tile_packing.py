"""Packing tiles: every column of a set as wide as its largest number; told in `blob`.

Of a tile of n events a varint would keep what follows from the rest of it: sums are near n times
the middle of the extremes, squares are those around the mean, extremes near those of all tiles.
What is left over of 75 tiles of two fields takes 1,640 bytes and not 2,330. All of it is modulo
2^64, so every state comes back, however far from the middle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Int64
from worker.features.accumulators import bits_set, clear
from worker.features.checksum import Bytes, word_at
from worker.features.codes import (
    PLACE_BITS,
    PLACE_COUNT,
    PLACE_EXTREMES,
    PLACE_SQUARES,
    PLACE_SUM,
)
from worker.features.compiling import bit_length, helper
from worker.features.plan import TILED_COLUMNS, TILES_ROW, Plan
from worker.features.state import Rows
from worker.features.varints import get, get_word, put, put_signed, put_word, signed, zigzag

AFTER = 8
"""Bytes after the end of data that are read with its last number."""

_WIDTH_BITS = 7
_BEYOND_INT64, _INT64_MIN = 2.0**63, np.int64(-(2**63))

Numbers = NDArray[np.uint64]
"""Scratch: for each tile of a set its numbers, as many as a record has at most."""


@helper
def pack_tiles(
    plan: Plan,
    rows: Rows,
    row: int,
    now: int,
    newest: int,
    numbers: Numbers,
    buffer: Bytes,
    at: int,
) -> int:
    """Write the tiles of a row that a window may still reach; return the place after them."""
    sets, tiles = plan.sets, rows.tiles
    at = _pack_bases(plan, rows, row, now, newest, buffer, at)
    for s in range(len(sets)):
        oldest, length = _first_number(sets, s, now), sets[s, 1]
        if newest // sets[s, 0] < oldest:
            at = put(buffer, at, np.uint64(0))
            continue
        first, place = row * plan.limits[TILES_ROW] + sets[s, 2], oldest % length
        before, count = oldest - 1, 0
        for n in range(oldest, oldest + length):
            i = first + place
            place = place + 1 if place + 1 < length else 0
            if tiles[i, 1] > 0 and tiles[i, 0] == n:
                numbers[count, 0] = np.uint64(n - before - 1)
                _to_numbers(plan, rows, i, numbers, count)
                before = n
                count += 1
        at = put(buffer, at, np.uint64(count))
        if count > 0:
            at = _pack_numbers(numbers, count, _width_of(plan), buffer, at)
        at = _pack_all_bits(plan, tiles, first, length, oldest, numbers, count, buffer, at)
    return at


@helper
def unpack_tiles(
    plan: Plan, rows: Rows, row: int, now: int, numbers: Numbers, data: Bytes, at: int, end: int
) -> int:
    """Fill a row of empty tiles; return the place after them, beyond ``end`` where they are not
    all there.
    """
    sets, tiles = plan.sets, rows.tiles
    at = _unpack_bases(plan, rows, data, at, end)
    for s in range(len(sets)):
        number = _first_number(sets, s, now) - 1
        first, length = row * plan.limits[TILES_ROW] + sets[s, 2], sets[s, 1]
        many, at = get(data, at, end)
        if many > np.uint64(length):
            return end + 1
        count = int(many)
        if count > 0:
            at = _unpack_numbers(numbers, count, _width_of(plan), data, at, end)
        if at > end:
            return at
        for k in range(count):
            number += 1 + int(numbers[k, 0])
            # Numba has no bounds checks: what is read must not choose a place out of the row.
            if number < 0:
                return end + 1
            i = first + number % length
            clear(plan.recorded, plan.limits[TILED_COLUMNS], tiles, i)
            tiles[i, 0] = number
            _from_numbers(plan, rows, i, numbers, k)
            for f in range(plan.limits[TILED_COLUMNS]):
                if plan.recorded[f, PLACE_BITS]:
                    at = _unpack_bits(tiles, i, plan.recorded[f, PLACE_BITS], data, at, end)
    return at


@helper
def _first_number(sets: Int64, s: int, now: int) -> int:
    """Return the oldest tile of a set that a window may still reach."""
    oldest: int = now // sets[s, 0] - sets[s, 1] + 1
    return max(oldest, 0)


@helper
def _pack_bases(
    plan: Plan, rows: Rows, row: int, now: int, newest: int, buffer: Bytes, at: int
) -> int:
    """Write the extremes of each column over all tiles that are packed; they stay in scratch."""
    recorded, sets, tiles, scratch = plan.recorded, plan.sets, rows.tiles, rows.scratch
    clear(recorded, plan.limits[TILED_COLUMNS], scratch, 0)
    for s in range(len(sets)):
        oldest, first = _first_number(sets, s, now), row * plan.limits[TILES_ROW] + sets[s, 2]
        if newest // sets[s, 0] < oldest:
            continue  # memory that was not asked for
        for i in range(first, first + sets[s, 1]):
            if tiles[i, 1] > 0 and tiles[i, 0] >= oldest:
                for f in range(plan.limits[TILED_COLUMNS]):
                    e = recorded[f, PLACE_EXTREMES]
                    if e:
                        scratch[0, e] = min(scratch[0, e], tiles[i, e])
                        scratch[0, e + 1] = max(scratch[0, e + 1], tiles[i, e + 1])
    for f in range(plan.limits[TILED_COLUMNS]):
        e = recorded[f, PLACE_EXTREMES]
        if e:
            at = put_signed(buffer, at, scratch[0, e])
            at = put_signed(buffer, at, scratch[0, e + 1])
    return at


@helper
def _unpack_bases(plan: Plan, rows: Rows, data: Bytes, at: int, end: int) -> int:
    for f in range(plan.limits[TILED_COLUMNS]):
        e = plan.recorded[f, PLACE_EXTREMES]
        if e:
            smallest, at = get(data, at, end)
            largest, at = get(data, at, end)
            rows.scratch[0, e], rows.scratch[0, e + 1] = signed(smallest), signed(largest)
    return at


@helper
def _width_of(plan: Plan) -> int:
    """Return how many numbers a tile has."""
    recorded, width = plan.recorded, 2
    for f in range(plan.limits[TILED_COLUMNS]):
        width += 1 + (recorded[f, PLACE_COUNT] > 1)
        width += 2 * (recorded[f, PLACE_EXTREMES] > 0) + 2 * (recorded[f, PLACE_SQUARES] > 0)
    return width


@helper
def _to_numbers(plan: Plan, rows: Rows, i: int, numbers: Numbers, k: int) -> None:
    """Put what a record keeps into a row of numbers, from the second on."""
    recorded, tiles, base = plan.recorded, rows.tiles, rows.scratch
    numbers[k, 1] = np.uint64(tiles[i, 1])
    c = 2
    for f in range(plan.limits[TILED_COLUMNS]):
        squares, extremes = recorded[f, PLACE_SQUARES], recorded[f, PLACE_EXTREMES]
        known, total = tiles[i, recorded[f, PLACE_COUNT]], tiles[i, recorded[f, PLACE_SUM]]
        middle = np.int64(0)
        if recorded[f, PLACE_COUNT] > 1:
            numbers[k, c] = np.uint64(known)
            c += 1
        if extremes:
            numbers[k, c], numbers[k, c + 1] = np.uint64(0), np.uint64(0)
            if known > 0:
                smallest, largest = tiles[i, extremes], tiles[i, extremes + 1]
                numbers[k, c] = np.uint64(smallest - base[0, extremes])
                numbers[k, c + 1] = np.uint64(base[0, extremes + 1] - largest)
                middle = (smallest + largest) >> 1
            c += 2
        numbers[k, c] = zigzag(total - known * middle)
        c += 1
        if squares:
            numbers[k, c] = np.uint64(tiles[i, squares] - _around(total, known))
            numbers[k, c + 1] = zigzag(tiles[i, squares + 1])
            c += 2


@helper
def _from_numbers(plan: Plan, rows: Rows, i: int, numbers: Numbers, k: int) -> None:
    """Fill a cleared record from a row of numbers."""
    recorded, tiles, base = plan.recorded, rows.tiles, rows.scratch
    tiles[i, 1] = np.int64(numbers[k, 1])
    c = 2
    for f in range(plan.limits[TILED_COLUMNS]):
        squares, extremes = recorded[f, PLACE_SQUARES], recorded[f, PLACE_EXTREMES]
        middle = np.int64(0)
        if recorded[f, PLACE_COUNT] > 1:
            tiles[i, recorded[f, PLACE_COUNT]] = np.int64(numbers[k, c])
            c += 1
        known = tiles[i, recorded[f, PLACE_COUNT]]
        if extremes:
            if known > 0:
                smallest = base[0, extremes] + np.int64(numbers[k, c])
                largest = base[0, extremes + 1] - np.int64(numbers[k, c + 1])
                tiles[i, extremes], tiles[i, extremes + 1] = smallest, largest
                middle = (smallest + largest) >> 1
            c += 2
        total = signed(numbers[k, c]) + known * middle
        tiles[i, recorded[f, PLACE_SUM]] = total
        c += 1
        if squares:
            tiles[i, squares] = np.int64(numbers[k, c]) + _around(total, known)
            tiles[i, squares + 1] = signed(numbers[k, c + 1])
            c += 2


@helper
def _around(total: int, known: int) -> np.int64:
    """Return what the squares of ``known`` values lose when they are counted from a whole number m
    near their mean: Σ v² − Σ (v − m)² = 2 m Σ v − n m². To divide floats takes half of the time.
    """
    if known <= 0:
        return np.int64(0)
    quotient = total / known
    # Near the edge it rounds to 2^63, which no int64 is: what a cast makes of that is the
    # processor's to choose. It is what x86 makes of it, so all that is stored stays as it is.
    mean = np.int64(quotient) if quotient < _BEYOND_INT64 else _INT64_MIN
    return np.int64(mean * (2 * total - known * mean))


@helper
def _pack_numbers(numbers: Numbers, count: int, columns: int, buffer: Bytes, at: int) -> int:
    """Write columns one after the other, each after its width in bits; return the next byte."""
    rest, filled = np.uint64(0), 0  # bits that are no whole word yet, and how many
    for c in range(columns):
        all_ = np.uint64(0)
        for k in range(count):
            all_ |= numbers[k, c]
        width = bit_length(all_)
        at, rest, filled = _put_bits(buffer, at, rest, filled, np.uint64(width), _WIDTH_BITS)
        if width > 0:
            for k in range(count):
                at, rest, filled = _put_bits(buffer, at, rest, filled, numbers[k, c], width)
    put_word(buffer, at, np.int64(rest))
    return at + (filled + 7) // 8


@helper
def _unpack_numbers(
    numbers: Numbers, count: int, columns: int, data: Bytes, at: int, end: int
) -> int:
    bit, end_bit = at << 3, end << 3
    for c in range(columns):
        if bit + _WIDTH_BITS > end_bit:
            return end + 1
        width = int(_get_bits(data, bit, _WIDTH_BITS))
        bit += _WIDTH_BITS
        if width > 64 or bit + width * count > end_bit:
            return end + 1
        for k in range(count):
            numbers[k, c] = _get_bits(data, bit, width)
            bit += width
    return (bit + 7) >> 3


@helper
def _put_bits(
    buffer: Bytes, at: int, rest: np.uint64, filled: int, value: np.uint64, width: int
) -> tuple[int, np.uint64, int]:
    """Put 1 to 64 bits after those that are there, and write a word when it is full."""
    word = rest | value << np.uint64(filled)
    filled += width
    if filled < 64:
        return at, word, filled
    put_word(buffer, at, np.int64(word))
    filled -= 64
    left = value >> np.uint64(width - filled) if filled > 0 else np.uint64(0)
    return at + 8, left, filled


@helper
def _get_bits(data: Bytes, bit: int, width: int) -> np.uint64:
    """Return so many bits, at most 64; up to `AFTER` bytes behind them are read."""
    at, shift = bit >> 3, np.uint64(bit & 7)
    value = np.uint64(word_at(data, at)) >> shift
    if width + (bit & 7) > 64:
        value |= np.uint64(data[np.uint64(at + 8)]) << (np.uint64(64) - shift)
    if width < 64:
        value &= (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    return np.uint64(value)


@helper
def _pack_all_bits(
    plan: Plan,
    tiles: Int64,
    first: int,
    length: int,
    oldest: int,
    numbers: Numbers,
    count: int,
    buffer: Bytes,
    at: int,
) -> int:
    """Write the bits of each of the tiles whose numbers were written."""
    n = oldest - 1
    for k in range(count):
        n += 1 + int(numbers[k, 0])
        for f in range(plan.limits[TILED_COLUMNS]):
            if plan.recorded[f, PLACE_BITS]:
                i = first + n % length
                at = _pack_bits(tiles, i, plan.recorded[f, PLACE_BITS], buffer, at)
    return at


@helper
def _pack_bits(tiles: Int64, i: int, place: int, buffer: Bytes, at: int) -> int:
    """Write how many bits are set, and the number of each, a byte; from 32 on all words."""
    count = bits_set(tiles, i, 1, place)
    at = put(buffer, at, np.uint64(count))
    for w in range(4):
        word = np.uint64(tiles[i, place + w])
        if count >= 32:
            at = put_word(buffer, at, np.int64(word))
            continue
        for b in range(64):
            if word >> np.uint64(b) & np.uint64(1):
                buffer[at] = np.uint8(64 * w + b)
                at += 1
    return at


@helper
def _unpack_bits(tiles: Int64, i: int, place: int, data: Bytes, at: int, end: int) -> int:
    count, at = get(data, at, end)
    if count >= np.uint64(32):
        for w in range(4):
            tiles[i, place + w], at = get_word(data, at, end)
        return at
    if at + np.int64(count) > end:
        return end + 1
    for _ in range(np.int64(count)):
        bit = np.int64(data[at])
        tiles[i, place + (bit >> 6)] |= np.int64(1) << (bit & 63)
        at += 1
    return at
