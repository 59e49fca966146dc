"""Packing: the bodies of blobs, written and read by kernels; their layout is told in `blob`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worker.contracts.records import Int64
from worker.features import (
    accumulators,
    checksum,
    codes,
    compiling,
    fetching,
    plan,
    state,
    tile_packing,
    varints,
)
from worker.features.checksum import HEADER_LENGTH, PREFIX_LENGTH, Bytes, checksum_of
from worker.features.codes import FORM
from worker.features.compiling import bare_kernel, digest_of, helper
from worker.features.fetching import AHEAD_TILES, fetch, fetch_tiles
from worker.features.plan import WITH_IDS, Plan
from worker.features.state import NOW, SIZE, TILE_ROW, TILED_MAX, Rows
from worker.features.tile_packing import Numbers, pack_tiles, unpack_tiles
from worker.features.varints import (
    get,
    get_value,
    get_word,
    put,
    put_signed,
    put_value,
    put_word,
    signed,
)


@helper
def _pack(
    plan: Plan,
    rows: Rows,
    slots: Int64,
    prefix: Bytes,
    numbers: Numbers,
    buffer: Bytes,
    ends: Int64,
) -> None:
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
        at = put_signed(out, begin + HEADER_LENGTH, now)
        at = put(out, at, np.uint64(now - tiled_max + 1 if tiled_max >= 0 else 0))
        at = _pack_ring(plan, rows, slot, meta[slot, SIZE], out, at)
        for r in range(registers.shape[1]):
            at = put_word(out, at, registers[slot, r])
        if tiled_max >= 0:
            at = pack_tiles(plan, rows, meta[slot, TILE_ROW], now, tiled_max, numbers, out, at)
        put_word(out, begin + PREFIX_LENGTH, checksum_of(out, begin + HEADER_LENGTH, at))
        ends[i] = at


@helper
def _pack_ring(plan: Plan, rows: Rows, slot: int, size: int, buffer: Bytes, at: int) -> int:
    ring, recorded = rows.ring, plan.recorded
    at = put(buffer, at, np.uint64(size))
    before = np.int64(0)
    for i in range(size):
        t = ring[slot, 0, i]
        at = put(buffer, at, np.uint64(t - before))
        before = t
        for f in range(len(recorded)):
            at = put_value(buffer, at, ring[slot, 1 + f, i], recorded[f, FORM])
        if plan.limits[WITH_IDS]:
            at = put_word(buffer, at, ring[slot, 1 + len(recorded), i])
    return at


@helper
def _unpack(
    plan: Plan, rows: Rows, slots: Int64, numbers: Numbers, data: Bytes, ends: Int64
) -> bool:
    bytes_ = data
    meta, registers = rows.meta, rows.registers.view(np.int64)
    begin = 0
    for i in range(len(slots)):
        if i + AHEAD_TILES < len(slots):
            fetch(rows, slots[i + AHEAD_TILES])
        slot = slots[i]
        end = ends[i]
        value, at = get(bytes_, begin + HEADER_LENGTH, end)
        now = int(signed(value))
        tiled, at = get(bytes_, at, end)
        size, at = get(bytes_, at, end)
        if at > end or size > np.uint64(rows.ring.shape[2]) or (tiled and len(plan.sets) == 0):
            return False
        meta[slot, NOW], meta[slot, SIZE] = now, int(size)
        at = _unpack_ring(plan, rows, slot, int(size), bytes_, at, end)
        for r in range(registers.shape[1]):
            registers[slot, r], at = get_word(bytes_, at, end)
        if tiled:
            meta[slot, TILED_MAX] = now + 1 - np.int64(tiled)
            rows.free_count[0] -= 1
            row = rows.free[rows.free_count[0]]
            meta[slot, TILE_ROW] = row
            at = unpack_tiles(plan, rows, row, now, numbers, bytes_, at, end)
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
        value, at = get(data, at, end)
        t += np.int64(value)
        ring[slot, 0, i] = t
        for f in range(len(recorded)):
            ring[slot, 1 + f, i], at = get_value(data, at, end, recorded[f, FORM])
        if plan.limits[WITH_IDS]:
            ring[slot, 1 + len(recorded), i], at = get_word(data, at, end)
    return at


SOURCES = (
    accumulators, checksum, codes, compiling, fetching, plan, state, tile_packing, varints,
)  # fmt: skip
"""The modules whose helpers and constants are in these kernels, other than this one."""


def _make_pack(sources: str) -> Callable[[Plan, Rows, Int64, Bytes, Numbers, Bytes, Int64], None]:
    @bare_kernel
    def pack(
        plan: Plan,
        rows: Rows,
        slots: Int64,
        prefix: Bytes,
        numbers: Numbers,
        buffer: Bytes,
        ends: Int64,
    ) -> None:
        """Write header and body of slots one after the other; ``ends`` says where each ends."""
        sources  # noqa: B018  # see worker.features.compiling
        _pack(plan, rows, slots, prefix, numbers, buffer, ends)

    return pack


def _make_unpack(sources: str) -> Callable[[Plan, Rows, Int64, Numbers, Bytes, Int64], bool]:
    @bare_kernel
    def unpack(
        plan: Plan, rows: Rows, slots: Int64, numbers: Numbers, data: Bytes, ends: Int64
    ) -> bool:
        """Fill slots from checked, whole blobs, after which `AFTER` bytes may be read; return
        whether all were read to the end.
        """
        sources  # noqa: B018  # see worker.features.compiling
        return _unpack(plan, rows, slots, numbers, data, ends)

    return unpack


pack = _make_pack(digest_of(*SOURCES))
unpack = _make_unpack(digest_of(*SOURCES))
