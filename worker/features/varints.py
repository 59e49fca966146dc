"""Numbers as bytes, for kernels: varints, and eight bytes as they are; told in `blob`."""

from __future__ import annotations

import numpy as np

from worker.features.checksum import Bytes, word_at
from worker.features.codes import HASHED, MISSING, SIGNED
from worker.features.compiling import helper

VARINT_MAX = 10


@helper
def put(buffer: Bytes, at: int, value: np.uint64) -> int:
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
def put_signed(buffer: Bytes, at: int, value: int) -> int:
    return put(buffer, at, zigzag(value))


@helper
def get(data: Bytes, at: int, end: int) -> tuple[np.uint64, int]:
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
def zigzag(value: int) -> np.uint64:
    """Return a number that is small where a signed one is near 0."""
    return np.uint64((value << 1) ^ (value >> 63))


@helper
def signed(value: np.uint64) -> np.int64:
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))


@helper
def put_value(buffer: Bytes, at: int, value: int, form: int) -> int:
    """Write a recorded value: what is missing as 0 where it may be, hashes as they are."""
    if form == SIGNED:
        return put_signed(buffer, at, value)
    if form == HASHED:
        return put_word(buffer, at, value)
    if value == MISSING:
        return put(buffer, at, np.uint64(0))
    return put(buffer, at, zigzag(value) + np.uint64(1))


@helper
def get_value(data: Bytes, at: int, end: int, form: int) -> tuple[np.int64, int]:
    if form == HASHED:
        return get_word(data, at, end)
    value, at = get(data, at, end)
    if form == SIGNED:
        return signed(value), at
    return (np.int64(MISSING) if value == 0 else signed(value - np.uint64(1))), at


@helper
def put_word(buffer: Bytes, at: int, value: int | np.int64) -> int:
    rest, place = np.uint64(value), np.uint64(at)
    for b in range(8):
        buffer[place + np.uint64(b)] = np.uint8((rest >> np.uint64(8 * b)) & np.uint64(255))
    return at + 8


@helper
def get_word(data: Bytes, at: int, end: int) -> tuple[np.int64, int]:
    if at + 8 > end:
        return np.int64(0), end + 1
    return word_at(data, at), at + 8
