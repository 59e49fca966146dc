"""Packing: the bodies of blobs, written and read by kernels; their layout is told in `blob`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Int64
from worker.features import compiling, state
from worker.features.compiling import borrowed, digest_of, helper, kernel
from worker.features.state import NOW, SIZE, TILE_ROW, TILED_MAX, Plan, Rows

HEADER_LENGTH = 20
CRC_LENGTH = 4
VARINT_MAX = 10

Bytes = NDArray[np.uint8]


@helper
def _put(buffer: Bytes, at: int, value: np.uint64) -> int:
    """Write a varint; return the place after it."""
    rest = np.uint64(value)
    while rest >= np.uint64(128):
        buffer[at] = np.uint8((rest & np.uint64(127)) | np.uint64(128))
        rest >>= np.uint64(7)
        at += 1
    buffer[at] = np.uint8(rest)
    return at + 1


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
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(127)) << np.uint64(7 * i)
        if byte < np.uint64(128):
            return value, at
    return value, end + 1


@helper
def _signed(value: np.uint64) -> np.int64:
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))


@helper
def _pack(plan: Plan, rows: Rows, slots: Int64, buffer: Bytes, ends: Int64) -> None:
    fields, sets, with_ids = borrowed(plan.fields), borrowed(plan.sets), plan.limits[3]
    meta, ring, tiles = borrowed(rows.meta), borrowed(rows.ring), borrowed(rows.tiles)
    out, at = borrowed(buffer), 0
    for i in range(len(slots)):
        slot = slots[i]
        now, tiled_max = meta[slot, NOW], meta[slot, TILED_MAX]
        at = _put_signed(out, at, now)
        at = _put(out, at, np.uint64(now - tiled_max + 1 if tiled_max >= 0 else 0))
        at = _pack_ring(ring, slot, meta[slot, SIZE], len(fields), with_ids, out, at)
        if tiled_max >= 0:
            at = _pack_tiles(fields, sets, tiles, meta[slot, TILE_ROW], now, out, at)
        ends[i] = at


@helper
def _pack_ring(
    ring: Int64, slot: int, size: int, fields: int, with_ids: int, buffer: Bytes, at: int
) -> int:
    at = _put(buffer, at, np.uint64(size))
    before = np.int64(0)
    for i in range(size):
        t = ring[slot, 0, i]
        at = _put(buffer, at, np.uint64(t - before))
        before = t
        for f in range(fields):
            at = _put_signed(buffer, at, ring[slot, 1 + f, i])
        if with_ids:
            rest = np.uint64(ring[slot, 1 + fields, i])
            for b in range(8):
                buffer[at + b] = np.uint8((rest >> np.uint64(8 * b)) & np.uint64(255))
            at += 8
    return at


@helper
def _first_number(sets: Int64, s: int, now: int) -> int:
    """Return the oldest tile of a set that a window may still reach."""
    oldest: int = now // sets[s, 0] - sets[s, 1] + 1
    return max(oldest, 0)


@helper
def _pack_tiles(
    fields: Int64, sets: Int64, tiles: Int64, row: int, now: int, buffer: Bytes, at: int
) -> int:
    for s in range(len(sets)):
        before = _first_number(sets, s, now)
        length, first = sets[s, 1], sets[s, 2]
        oldest, place = before, before % length
        count = 0
        for i in range(first, first + length):
            count += tiles[row, i, 1] > 0 and tiles[row, i, 0] >= oldest
        at = _put(buffer, at, np.uint64(count))
        for n in range(oldest, oldest + length):
            i = first + place
            place = place + 1 if place + 1 < length else 0
            if count > 0 and tiles[row, i, 1] > 0 and tiles[row, i, 0] == n:
                at = _put(buffer, at, np.uint64(n - before))
                at = _pack_record(fields, tiles, row, i, buffer, at)
                before = n
    return at


@helper
def _pack_record(fields: Int64, tiles: Int64, row: int, i: int, buffer: Bytes, at: int) -> int:
    at = _put(buffer, at, np.uint64(tiles[row, i, 1]))
    for f in range(len(fields)):
        at = _put_signed(buffer, at, tiles[row, i, fields[f, 0]])
        squares, extremes = fields[f, 1], fields[f, 2]
        if squares:
            at = _put(buffer, at, np.uint64(tiles[row, i, squares]))
            at = _put(buffer, at, np.uint64(tiles[row, i, squares + 1]))
        if extremes:
            smallest = tiles[row, i, extremes]
            at = _put_signed(buffer, at, smallest)
            at = _put(buffer, at, np.uint64(tiles[row, i, extremes + 1] - smallest))
    return at


@helper
def _unpack(plan: Plan, rows: Rows, slots: Int64, data: Bytes, ends: Int64) -> bool:
    fields, sets, with_ids = borrowed(plan.fields), borrowed(plan.sets), plan.limits[3]
    meta, ring, tiles = borrowed(rows.meta), borrowed(rows.ring), borrowed(rows.tiles)
    free_count, bytes_ = borrowed(rows.free_count), borrowed(data)
    begin = 0
    for i in range(len(slots)):
        slot = slots[i]
        end = ends[i] - CRC_LENGTH
        value, at = _get(bytes_, begin + HEADER_LENGTH, end)
        now = int(_signed(value))
        tiled, at = _get(bytes_, at, end)
        size, at = _get(bytes_, at, end)
        if at > end or size > np.uint64(ring.shape[2]) or (tiled and len(sets) == 0):
            return False
        meta[slot, NOW], meta[slot, SIZE] = now, int(size)
        at = _unpack_ring(ring, slot, int(size), len(fields), with_ids, bytes_, at, end)
        if tiled:
            meta[slot, TILED_MAX] = now + 1 - np.int64(tiled)
            free_count[0] -= 1
            row = rows.free[free_count[0]]
            meta[slot, TILE_ROW] = row
            at = _unpack_tiles(fields, sets, tiles, row, now, bytes_, at, end)
        if at != end:
            return False
        begin = ends[i]
    return True


@helper
def _unpack_ring(
    ring: Int64,
    slot: int,
    size: int,
    fields: int,
    with_ids: int,
    data: Bytes,
    at: int,
    end: int,
) -> int:
    t = np.int64(0)
    for i in range(size):
        value, at = _get(data, at, end)
        t += np.int64(value)
        ring[slot, 0, i] = t
        for f in range(fields):
            value, at = _get(data, at, end)
            ring[slot, 1 + f, i] = _signed(value)
        if with_ids:
            if at + 8 > end:
                return end + 1
            rest = np.uint64(0)
            for b in range(8):
                rest |= np.uint64(data[at + b]) << np.uint64(8 * b)
            ring[slot, 1 + fields, i] = np.int64(rest)
            at += 8
    return at


@helper
def _unpack_tiles(
    fields: Int64, sets: Int64, tiles: Int64, row: int, now: int, data: Bytes, at: int, end: int
) -> int:
    for s in range(len(sets)):
        number = _first_number(sets, s, now)
        count, at = _get(data, at, end)
        if count > np.uint64(sets[s, 1]):
            return end + 1
        for _ in range(np.int64(count)):
            value, at = _get(data, at, end)
            number += int(value)
            # Numba has no bounds checks: what is read must not choose a place out of the row.
            if number < 0:
                return end + 1
            i = sets[s, 2] + number % sets[s, 1]
            tiles[row, i, 0] = number
            at = _unpack_record(fields, tiles, row, i, data, at, end)
    return at


@helper
def _unpack_record(
    fields: Int64, tiles: Int64, row: int, i: int, data: Bytes, at: int, end: int
) -> int:
    value, at = _get(data, at, end)
    tiles[row, i, 1] = np.int64(value)
    for f in range(len(fields)):
        value, at = _get(data, at, end)
        tiles[row, i, fields[f, 0]] = _signed(value)
        squares, extremes = fields[f, 1], fields[f, 2]
        if squares:
            value, at = _get(data, at, end)
            tiles[row, i, squares] = np.int64(value)
            value, at = _get(data, at, end)
            tiles[row, i, squares + 1] = np.int64(value)
        if extremes:
            value, at = _get(data, at, end)
            tiles[row, i, extremes] = _signed(value)
            value, at = _get(data, at, end)
            tiles[row, i, extremes + 1] = tiles[row, i, extremes] + np.int64(value)
    return at


SOURCES = (compiling, state)
"""The modules whose helpers and constants are in these kernels, other than this one."""


def _make_pack(sources: str) -> Callable[[Plan, Rows, Int64, Bytes, Int64], None]:
    @kernel
    def pack(plan: Plan, rows: Rows, slots: Int64, buffer: Bytes, ends: Int64) -> None:
        """Write the bodies of slots one after the other; ``ends`` says where each ends."""
        sources  # noqa: B018  # see worker.features.compiling
        _pack(plan, rows, slots, buffer, ends)

    return pack


def _make_unpack(sources: str) -> Callable[[Plan, Rows, Int64, Bytes, Int64], bool]:
    @kernel
    def unpack(plan: Plan, rows: Rows, slots: Int64, data: Bytes, ends: Int64) -> bool:
        """Fill slots from checked, whole blobs; return whether all were read to the end."""
        sources  # noqa: B018  # see worker.features.compiling
        return _unpack(plan, rows, slots, data, ends)

    return unpack


pack = _make_pack(digest_of(*SOURCES))
unpack = _make_unpack(digest_of(*SOURCES))
