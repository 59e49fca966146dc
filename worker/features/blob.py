"""Blobs: the state of one entity as bytes, compact, versioned and checked. Never a pickle.

Layout: ``rw``, format version, number of the entity type, first 8 bytes of the spec hash, the
position that is applied (8 bytes, reserved); the body; CRC-32 of all before. The body is made of
varints (seven bits a byte, small ones first; signed numbers zigzag): now, now − newest time in
tiles + 1 (0 without tiles), number of events; of each event, oldest first, the time since the one
before, its values in units, 8 bytes of id hash; per tile set the number of tiles that a window can
still reach and that are not empty, and each of these.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from worker.contracts.records import Int64
from worker.errors import StateLostError
from worker.features.borrowing import borrowed
from worker.features.state import NOW, SIZE, TILE_ROW, TILED_MAX, Plan, Rows

FORMAT_VERSION = 1
MAGIC = b"rw"

_PREFIX_LENGTH = 12
_HEADER_LENGTH = _PREFIX_LENGTH + 8
_CRC_LENGTH = 4
_CRC_RESIDUE = 0x2144DF1C  # CRC-32 of any bytes followed by their own CRC-32, low byte first
_VARINT_MAX = 10
_CHUNK = 512  # slots packed at once: the buffer is sized for the worst case

Bytes = NDArray[np.uint8]


class BlobCodec:
    """Packs and unpacks the slots of one entity type.

    Parameters
    ----------
    entity
        Its name, for messages.
    index
        Its number in the spec.
    """

    def __init__(self, plan: Plan, spec_hash: str, entity: str, index: int) -> None:
        self._plan = plan
        self._where = f"stored state of a {entity}"
        version = bytes([FORMAT_VERSION, index])
        self._prefix = MAGIC + version + bytes.fromhex(spec_hash)[:8]
        self._header = self._prefix + bytes(8)

    def encode(self, rows: Rows, slots: Int64) -> list[bytes]:
        """Return the blob of each slot. The same state gives the same bytes, however it came."""
        blobs: list[bytes] = []
        for first in range(0, len(slots), _CHUNK):
            blobs += self._encode_chunk(rows, slots[first : first + _CHUNK])
        return blobs

    def check(self, blob: bytes) -> None:
        """Refuse a blob that is not ours, or damaged.

        Raises
        ------
        StateLostError
            Acquire the shard again: drop its space in the store and rebuild it from the log.
        """
        if zlib.crc32(blob) != _CRC_RESIDUE or not blob.startswith(self._prefix):
            raise self._refusal(blob)

    def decode(self, rows: Rows, slots: Int64, blobs: Sequence[bytes]) -> None:
        """Fill empty slots from blobs that were checked. There must be a free tile row for each.

        Raises
        ------
        StateLostError
            As `check`; the slots hold nothing of use then.
        """
        ends = np.cumsum(np.fromiter(map(len, blobs), np.int64, len(blobs)))
        data = np.frombuffer(b"".join(blobs), np.uint8)
        if not unpack(self._plan, rows, slots, data, ends):
            raise StateLostError(self._where, "a packed state", "bytes that end too early or late")

    def _encode_chunk(self, rows: Rows, slots: Int64) -> list[bytes]:
        plan = self._plan
        events = rows.ring.shape[2] * (_VARINT_MAX * (1 + len(plan.fields)) + 8)
        tiles = int(plan.limits[1]) * _VARINT_MAX * int(plan.limits[0])
        bound = 64 + events + tiles + _VARINT_MAX * len(plan.sets)
        buffer = np.empty(bound * len(slots), np.uint8)
        ends = np.empty(len(slots), np.int64)
        pack(plan, rows, slots, buffer, ends)
        data = buffer[: ends[-1]].tobytes()
        blobs: list[bytes] = []
        header, header_crc = self._header, zlib.crc32(self._header)
        begin = 0
        for end in ends.tolist():
            body = data[begin:end]
            crc = zlib.crc32(body, header_crc)
            blobs.append(header + body + crc.to_bytes(_CRC_LENGTH, "little"))
            begin = end
        return blobs

    def _refusal(self, blob: bytes) -> StateLostError:
        hint = "rebuild the shard from the log; see docs/operations.md"
        if blob[:3] != self._prefix[:3]:
            return StateLostError(self._where, "a blob of format 1", "other bytes", hint)
        if not blob.startswith(self._prefix):
            got = blob[4:_PREFIX_LENGTH].hex()
            return StateLostError(self._where, f"spec {self._prefix[4:].hex()}", got, hint)
        return StateLostError(self._where, "bytes as they were written", "a wrong checksum", hint)


@njit(cache=True, error_model="numpy", forceinline=True)
def _put(buffer: Bytes, at: int, value: np.uint64) -> int:
    """Write a varint; return the place after it."""
    rest = np.uint64(value)
    while rest >= np.uint64(128):
        buffer[at] = np.uint8((rest & np.uint64(127)) | np.uint64(128))
        rest >>= np.uint64(7)
        at += 1
    buffer[at] = np.uint8(rest)
    return at + 1


@njit(cache=True, error_model="numpy", forceinline=True)
def _put_signed(buffer: Bytes, at: int, value: int) -> int:
    return _put(buffer, at, np.uint64((value << 1) ^ (value >> 63)))


@njit(cache=True, error_model="numpy", forceinline=True)
def _get(data: Bytes, at: int, end: int) -> tuple[np.uint64, int]:
    """Return a varint and the place after it; beyond ``end`` where there is none."""
    value = np.uint64(0)
    for i in range(_VARINT_MAX):
        if at >= end:
            return value, end + 1
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(127)) << np.uint64(7 * i)
        if byte < np.uint64(128):
            return value, at
    return value, end + 1


@njit(cache=True, error_model="numpy", forceinline=True)
def _signed(value: np.uint64) -> np.int64:
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))


@njit(cache=True, error_model="numpy")
def pack(plan: Plan, rows: Rows, slots: Int64, buffer: Bytes, ends: Int64) -> None:
    """Write the bodies of slots one after the other; ``ends`` says where each ends."""
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


@njit(cache=True, error_model="numpy", forceinline=True)
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


@njit(cache=True, error_model="numpy", forceinline=True)
def _first_number(sets: Int64, s: int, now: int) -> int:
    """Return the oldest tile of a set that a window may still reach."""
    oldest: int = now // sets[s, 0] - sets[s, 1] + 1
    return max(oldest, 0)


@njit(cache=True, error_model="numpy", forceinline=True)
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


@njit(cache=True, error_model="numpy", forceinline=True)
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


@njit(cache=True, error_model="numpy")
def unpack(plan: Plan, rows: Rows, slots: Int64, data: Bytes, ends: Int64) -> bool:
    """Fill slots from whole blobs that were checked; return whether each was read to its end."""
    fields, sets, with_ids = borrowed(plan.fields), borrowed(plan.sets), plan.limits[3]
    meta, ring, tiles = borrowed(rows.meta), borrowed(rows.ring), borrowed(rows.tiles)
    free_count, bytes_ = borrowed(rows.free_count), borrowed(data)
    begin = 0
    for i in range(len(slots)):
        slot = slots[i]
        end = ends[i] - _CRC_LENGTH
        value, at = _get(bytes_, begin + _HEADER_LENGTH, end)
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


@njit(cache=True, error_model="numpy", forceinline=True)
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


@njit(cache=True, error_model="numpy", forceinline=True)
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


@njit(cache=True, error_model="numpy", forceinline=True)
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
