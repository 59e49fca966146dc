"""Packing: the bodies of blobs, written and read by kernels; their layout is told in `blob`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worker.contracts.records import Int64
from worker.features import accumulators, checksum, codes, compiling, fetching, plan, state
from worker.features.accumulators import bits_set, clear
from worker.features.checksum import HEADER_LENGTH, PREFIX_LENGTH, Bytes, checksum_of, word_at
from worker.features.codes import (
    FORM,
    HASHED,
    MISSING,
    PLACE_BITS,
    PLACE_COUNT,
    PLACE_EXTREMES,
    PLACE_SQUARES,
    PLACE_SUM,
    SIGNED,
)
from worker.features.compiling import bare_kernel, digest_of, helper
from worker.features.fetching import AHEAD_TILES, fetch, fetch_tiles
from worker.features.plan import TILED_COLUMNS, TILES_ROW, WITH_IDS, Plan
from worker.features.state import NOW, SIZE, TILE_ROW, TILED_MAX, Rows

VARINT_MAX = 10


@helper
def _put(buffer: Bytes, at: int, value: np.uint64) -> int:
    """Write a varint; return the place after it."""
    # Numba lets a signed place count from the end: that is a branch, and hinders wide stores.
    rest, place = np.uint64(value), np.uint64(at)
    while rest >= np.uint64(128):
        buffer[place] = np.uint8((rest & np.uint64(127)) | np.uint64(128))
        rest >>= np.uint64(7)
        place += np.uint64(1)
    buffer[place] = np.uint8(rest)
    return int(place) + 1


@helper
def _put_signed(buffer: Bytes, at: int, value: int) -> int:
    return _put(buffer, at, np.uint64((value << 1) ^ (value >> 63)))


@helper
def _get(data: Bytes, at: int, end: int) -> tuple[np.uint64, int]:
    """Return a varint and the place after it; beyond ``end`` where there is none."""
    value = np.uint64(0)
    for i in range(VARINT_MAX):
        if at >= end:
            return value, end + 1
        byte = np.uint64(data[np.uint64(at)])
        at += 1
        value |= (byte & np.uint64(127)) << np.uint64(7 * i)
        if byte < np.uint64(128):
            return value, at
    return value, end + 1


@helper
def _signed(value: np.uint64) -> np.int64:
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))


@helper
def _put_value(buffer: Bytes, at: int, value: int, form: int) -> int:
    """Write a recorded value: what is missing as 0 where it may be, hashes as they are."""
    if form == SIGNED:
        return _put_signed(buffer, at, value)
    if form == HASHED:
        return _put_word(buffer, at, value)
    if value == MISSING:
        return _put(buffer, at, np.uint64(0))
    return _put(buffer, at, np.uint64((value << 1) ^ (value >> 63)) + np.uint64(1))


@helper
def _get_value(data: Bytes, at: int, end: int, form: int) -> tuple[np.int64, int]:
    if form == HASHED:
        return _get_word(data, at, end)
    value, at = _get(data, at, end)
    if form == SIGNED:
        return _signed(value), at
    return (np.int64(MISSING) if value == 0 else _signed(value - np.uint64(1))), at


@helper
def _put_word(buffer: Bytes, at: int, value: int | np.int64) -> int:
    rest, place = np.uint64(value), np.uint64(at)
    for b in range(8):
        buffer[place + np.uint64(b)] = np.uint8((rest >> np.uint64(8 * b)) & np.uint64(255))
    return at + 8


@helper
def _get_word(data: Bytes, at: int, end: int) -> tuple[np.int64, int]:
    if at + 8 > end:
        return np.int64(0), end + 1
    return word_at(data, at), at + 8


@helper
def _pack(plan: Plan, rows: Rows, slots: Int64, prefix: Bytes, buffer: Bytes, ends: Int64) -> None:
    out, at = buffer, 0
    meta, registers = rows.meta, rows.registers.view(np.int64)
    for i in range(len(slots)):
        if i + AHEAD_TILES < len(slots):
            fetch(rows, slots[i + AHEAD_TILES])
        if i + 1 < len(slots):
            fetch_tiles(plan, rows, slots[i + 1], meta[slots[i + 1], NOW])
        slot = slots[i]
        now, tiled_max = meta[slot, NOW], meta[slot, TILED_MAX]
        begin = at
        for b in range(PREFIX_LENGTH):
            out[begin + b] = prefix[b]
        at = _put_signed(out, begin + HEADER_LENGTH, now)
        at = _put(out, at, np.uint64(now - tiled_max + 1 if tiled_max >= 0 else 0))
        at = _pack_ring(plan, rows, slot, meta[slot, SIZE], out, at)
        for r in range(registers.shape[1]):
            at = _put_word(out, at, registers[slot, r])
        if tiled_max >= 0:
            at = _pack_tiles(plan, rows, meta[slot, TILE_ROW], now, tiled_max, out, at)
        _put_word(out, begin + PREFIX_LENGTH, checksum_of(out, begin + HEADER_LENGTH, at))
        ends[i] = at


@helper
def _pack_ring(plan: Plan, rows: Rows, slot: int, size: int, buffer: Bytes, at: int) -> int:
    ring, recorded = rows.ring, plan.recorded
    at = _put(buffer, at, np.uint64(size))
    before = np.int64(0)
    for i in range(size):
        t = ring[slot, 0, i]
        at = _put(buffer, at, np.uint64(t - before))
        before = t
        for f in range(len(recorded)):
            at = _put_value(buffer, at, ring[slot, 1 + f, i], recorded[f, FORM])
        if plan.limits[WITH_IDS]:
            at = _put_word(buffer, at, ring[slot, 1 + len(recorded), i])
    return at


@helper
def _first_number(sets: Int64, s: int, now: int) -> int:
    """Return the oldest tile of a set that a window may still reach."""
    oldest: int = now // sets[s, 0] - sets[s, 1] + 1
    return max(oldest, 0)


@helper
def _pack_tiles(
    plan: Plan, rows: Rows, row: int, now: int, newest: int, buffer: Bytes, at: int
) -> int:
    sets, tiles = plan.sets, rows.tiles
    for s in range(len(sets)):
        oldest = _first_number(sets, s, now)
        if newest // sets[s, 0] < oldest:
            at = _put(buffer, at, np.uint64(0))
            continue
        length, first = sets[s, 1], row * plan.limits[TILES_ROW] + sets[s, 2]
        before, place = oldest - 1, oldest % length
        count = 0
        for i in range(first, first + length):
            count += tiles[i, 1] > 0 and tiles[i, 0] >= oldest
        at = _put(buffer, at, np.uint64(count))
        for n in range(oldest, oldest + length):
            i = first + place
            place = place + 1 if place + 1 < length else 0
            if count > 0 and tiles[i, 1] > 0 and tiles[i, 0] == n:
                at = _put_pair(buffer, at, tiles[i, 1], n - before - 1)
                at = _pack_record(plan, tiles, i, buffer, at)
                before = n
    return at


@helper
def _put_pair(buffer: Bytes, at: int, value: int, seldom: int) -> int:
    """Write a number, and before it one of less than 2^62 that is nearly always 0: a bit then."""
    if seldom == 0 and value >= 0:
        return _put(buffer, at, np.uint64(value) << np.uint64(1))
    zigzag = np.uint64((seldom << 1) ^ (seldom >> 63))
    at = _put(buffer, at, zigzag << np.uint64(1) | np.uint64(1))
    return _put(buffer, at, np.uint64(value))


@helper
def _get_pair(data: Bytes, at: int, end: int) -> tuple[np.int64, np.int64, int]:
    """Return what `_put_pair` wrote, and the place after it."""
    first, at = _get(data, at, end)
    half = first >> np.uint64(1)
    if first & np.uint64(1) == 0:
        return np.int64(half), np.int64(0), at
    value, at = _get(data, at, end)
    return np.int64(value), _signed(half), at


@helper
def _pack_record(plan: Plan, tiles: Int64, i: int, buffer: Bytes, at: int) -> int:
    recorded = plan.recorded
    for f in range(plan.limits[TILED_COLUMNS]):
        at = _put_signed(buffer, at, tiles[i, recorded[f, PLACE_SUM]])
        squares, extremes = recorded[f, PLACE_SQUARES], recorded[f, PLACE_EXTREMES]
        count, bits = recorded[f, PLACE_COUNT], recorded[f, PLACE_BITS]
        known = tiles[i, count]
        if count > 1:
            at = _put(buffer, at, np.uint64(known))
        if squares:
            at = _put_pair(buffer, at, tiles[i, squares], tiles[i, squares + 1])
        if extremes and known > 0:
            smallest = tiles[i, extremes]
            at = _put_signed(buffer, at, smallest)
            at = _put(buffer, at, np.uint64(tiles[i, extremes + 1] - smallest))
        if bits:
            at = _pack_bits(tiles, i, bits, buffer, at)
    return at


@helper
def _pack_bits(tiles: Int64, i: int, place: int, buffer: Bytes, at: int) -> int:
    """Write how many bits are set, and the number of each, a byte; from 32 on all words."""
    count = bits_set(tiles, i, 1, place)
    at = _put(buffer, at, np.uint64(count))
    for w in range(4):
        word = np.uint64(tiles[i, place + w])
        if count >= 32:
            at = _put_word(buffer, at, np.int64(word))
            continue
        for b in range(64):
            if word >> np.uint64(b) & np.uint64(1):
                buffer[at] = np.uint8(64 * w + b)
                at += 1
    return at


@helper
def _unpack(plan: Plan, rows: Rows, slots: Int64, data: Bytes, ends: Int64) -> bool:
    bytes_ = data
    meta, registers = rows.meta, rows.registers.view(np.int64)
    begin = 0
    for i in range(len(slots)):
        if i + AHEAD_TILES < len(slots):
            fetch(rows, slots[i + AHEAD_TILES])
        slot = slots[i]
        end = ends[i]
        value, at = _get(bytes_, begin + HEADER_LENGTH, end)
        now = int(_signed(value))
        tiled, at = _get(bytes_, at, end)
        size, at = _get(bytes_, at, end)
        if at > end or size > np.uint64(rows.ring.shape[2]) or (tiled and len(plan.sets) == 0):
            return False
        meta[slot, NOW], meta[slot, SIZE] = now, int(size)
        at = _unpack_ring(plan, rows, slot, int(size), bytes_, at, end)
        for r in range(registers.shape[1]):
            registers[slot, r], at = _get_word(bytes_, at, end)
        if tiled:
            meta[slot, TILED_MAX] = now + 1 - np.int64(tiled)
            rows.free_count[0] -= 1
            row = rows.free[rows.free_count[0]]
            meta[slot, TILE_ROW] = row
            at = _unpack_tiles(plan, rows, row, now, bytes_, at, end)
        if at != end:
            return False
        begin = ends[i]
    return True


@helper
def _unpack_ring(
    plan: Plan, rows: Rows, slot: int, size: int, data: Bytes, at: int, end: int
) -> int:
    ring, recorded = rows.ring, plan.recorded
    t = np.int64(0)
    for i in range(size):
        value, at = _get(data, at, end)
        t += np.int64(value)
        ring[slot, 0, i] = t
        for f in range(len(recorded)):
            ring[slot, 1 + f, i], at = _get_value(data, at, end, recorded[f, FORM])
        if plan.limits[WITH_IDS]:
            ring[slot, 1 + len(recorded), i], at = _get_word(data, at, end)
    return at


@helper
def _unpack_tiles(
    plan: Plan, rows: Rows, row: int, now: int, data: Bytes, at: int, end: int
) -> int:
    sets, tiles = plan.sets, rows.tiles
    for s in range(len(sets)):
        number = _first_number(sets, s, now) - 1
        count, at = _get(data, at, end)
        if count > np.uint64(sets[s, 1]):
            return end + 1
        for _ in range(np.int64(count)):
            events, empty, at = _get_pair(data, at, end)
            number += 1 + int(empty)
            # Numba has no bounds checks: what is read must not choose a place out of the row.
            if number < 0:
                return end + 1
            i = row * plan.limits[TILES_ROW] + sets[s, 2] + number % sets[s, 1]
            clear(plan.recorded, plan.limits[TILED_COLUMNS], tiles, i)
            tiles[i, 0], tiles[i, 1] = number, events
            at = _unpack_record(plan, tiles, i, data, at, end)
    return at


@helper
def _unpack_record(plan: Plan, tiles: Int64, i: int, data: Bytes, at: int, end: int) -> int:
    recorded = plan.recorded
    for f in range(plan.limits[TILED_COLUMNS]):
        value, at = _get(data, at, end)
        tiles[i, recorded[f, PLACE_SUM]] = _signed(value)
        squares, extremes = recorded[f, PLACE_SQUARES], recorded[f, PLACE_EXTREMES]
        count, bits = recorded[f, PLACE_COUNT], recorded[f, PLACE_BITS]
        if count > 1:
            value, at = _get(data, at, end)
            tiles[i, count] = np.int64(value)
        if squares:
            tiles[i, squares], tiles[i, squares + 1], at = _get_pair(data, at, end)
        if extremes and tiles[i, count] > 0:
            value, at = _get(data, at, end)
            tiles[i, extremes] = _signed(value)
            value, at = _get(data, at, end)
            tiles[i, extremes + 1] = tiles[i, extremes] + np.int64(value)
        if bits:
            at = _unpack_bits(tiles, i, bits, data, at, end)
    return at


@helper
def _unpack_bits(tiles: Int64, i: int, place: int, data: Bytes, at: int, end: int) -> int:
    count, at = _get(data, at, end)
    if count >= np.uint64(32):
        for w in range(4):
            tiles[i, place + w], at = _get_word(data, at, end)
        return at
    if at + np.int64(count) > end:
        return end + 1
    for _ in range(np.int64(count)):
        bit = np.int64(data[at])
        tiles[i, place + (bit >> 6)] |= np.int64(1) << (bit & 63)
        at += 1
    return at


SOURCES = (accumulators, checksum, codes, compiling, fetching, plan, state)
"""The modules whose helpers and constants are in these kernels, other than this one."""


def _make_pack(sources: str) -> Callable[[Plan, Rows, Int64, Bytes, Bytes, Int64], None]:
    @bare_kernel
    def pack(
        plan: Plan, rows: Rows, slots: Int64, prefix: Bytes, buffer: Bytes, ends: Int64
    ) -> None:
        """Write header and body of slots one after the other; ``ends`` says where each ends."""
        sources  # noqa: B018  # see worker.features.compiling
        _pack(plan, rows, slots, prefix, buffer, ends)

    return pack


def _make_unpack(sources: str) -> Callable[[Plan, Rows, Int64, Bytes, Int64], bool]:
    @bare_kernel
    def unpack(plan: Plan, rows: Rows, slots: Int64, data: Bytes, ends: Int64) -> bool:
        """Fill slots from checked, whole blobs; return whether all were read to the end."""
        sources  # noqa: B018  # see worker.features.compiling
        return _unpack(plan, rows, slots, data, ends)

    return unpack


pack = _make_pack(digest_of(*SOURCES))
unpack = _make_unpack(digest_of(*SOURCES))
