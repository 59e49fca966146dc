"""Where the entities of one type are: slots by id, found for a whole batch at once.

A Python dict of a million ids costs 0.55 us a look-up: places in memory that are in no cache, one
after the other. Here the hashes of a batch are made first, each place is asked for as soon as its
hash is known, and when it is read it has come: 0.08 us of ten thousand ids, 0.10 of a million.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Int64
from worker.features import checksum, compiling
from worker.features.checksum import Bytes, word_at
from worker.features.compiling import bare_kernel, digest_of, helper, prefetch

_CAPACITY_FIRST = 512
_SLOT_BITS = 32

UInt64 = NDArray[np.uint64]


class Index:
    """The slots of ids: an open table that is at most half full, 16 bytes a place.

    An id is known by 96 bits of its hash, not by its text: of ten million, two have the same with a
    probability of 1e-15. Whoever knows the key could make such ids.

    Parameters
    ----------
    key
        16 bytes, of the hash.
    """

    def __init__(self, key: bytes) -> None:
        self._key = np.frombuffer(key, np.uint64)
        self._found: tuple[Sequence[str], UInt64] = (), np.empty((0, 2), np.uint64)
        self.clear()

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Forget all ids."""
        self._places = np.zeros((_CAPACITY_FIRST, 2), np.uint64)
        self._count = 0

    def find(self, ids: Sequence[str]) -> Int64:
        """Return the slot of each id, -1 for those that are not here.

        Of the list that was asked for last, which must not have been changed, the hashes are there:
        a batch is looked up before what it lacks is loaded, and again when it is processed.
        """
        if ids is not self._found[0]:
            self._found = ids, self.hashes(ids)
        return self.look_up(self._found[1])

    def look_up(self, hashes: UInt64) -> Int64:
        """Return the slot of each id by its hash, -1 for those that are not here."""
        slots = np.empty(len(hashes), np.int64)
        _find(self._places, hashes, slots)
        return slots

    def add(self, hashes: UInt64, slots: Int64) -> None:
        """Remember the slots of ids that are not here, each once, by their hashes."""
        self._count += len(hashes)
        places = self._places
        if 2 * self._count > len(places):
            capacity = 1 << int(2 * self._count - 1).bit_length()
            self._places = np.zeros((capacity, 2), np.uint64)
            _add(self._places, places[places[:, 1] > 0])
        placed = hashes.copy()
        placed[:, 1] |= (slots + 1).view(np.uint64)
        _add(self._places, placed)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget ids that are here, each once."""
        self._count -= len(ids)
        _remove(self._places, self.hashes(ids))

    def slots(self) -> Int64:
        """Return all slots, in ascending order."""
        second = self._places[:, 1]
        return np.sort((second[second > 0] & np.uint64((1 << _SLOT_BITS) - 1)).view(np.int64) - 1)

    def hashes(self, ids: Sequence[str]) -> UInt64:
        """Return two words of hash for each id, the lower half of the second empty."""
        text = "".join(ids)
        if text.isascii():
            data, lengths = text.encode(), map(len, ids)
        else:
            encoded = [id_.encode("utf-8", "surrogatepass") for id_ in ids]
            data, lengths = b"".join(encoded), map(len, encoded)
        ends = np.cumsum(np.fromiter(lengths, np.int64, len(ids)))
        hashes = np.empty((len(ids), 2), np.uint64)
        _hash(np.frombuffer(data, np.uint8), ends, self._key, self._places, hashes)
        return hashes


@helper
def _turn(word: np.uint64, bits: int) -> np.uint64:
    return np.uint64(word << np.uint64(bits) | word >> np.uint64(64 - bits))


@helper
def _mix(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return the state after a round of SipHash."""
    a += b
    c += d
    b, d = _turn(b, 13) ^ a, _turn(d, 16) ^ c
    a = _turn(a, 32)
    c += b
    a += d
    b, d = _turn(b, 17) ^ c, _turn(d, 21) ^ a
    return a, b, _turn(c, 32), d


@helper
def _hash_of(data: Bytes, begin: int, end: int, key: UInt64) -> tuple[np.uint64, np.uint64]:
    """Return the 128 bits of SipHash-1-3 of some bytes.

    Source: Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012, with the constants of the
    authors' own implementation for 128 bits.
    """
    a = key[0] ^ np.uint64(0x736F6D6570736575)
    b = key[1] ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE)
    c = key[0] ^ np.uint64(0x6C7967656E657261)
    d = key[1] ^ np.uint64(0x7465646279746573)
    length = end - begin
    for first in range(begin, end - 7, 8):
        word = np.uint64(word_at(data, first))
        a, b, c, d = _mix(a, b, c, d ^ word)
        a ^= word
    word = np.uint64(length) << np.uint64(56)
    for i in range(length & 7):
        word |= np.uint64(data[np.uint64(end - (length & 7) + i)]) << np.uint64(8 * i)
    a, b, c, d = _mix(a, b, c, d ^ word)
    a, c = a ^ word, c ^ np.uint64(0xEE)
    for _ in range(3):
        a, b, c, d = _mix(a, b, c, d)
    one, b = a ^ b ^ c ^ d, b ^ np.uint64(0xDD)
    for _ in range(3):
        a, b, c, d = _mix(a, b, c, d)
    return one, a ^ b ^ c ^ d


@helper
def _place_of(places: UInt64, one: np.uint64, two: np.uint64) -> int:
    """Return the place of a hash, or the empty one where it would be."""
    mask, bits = len(places) - 1, np.uint64(_SLOT_BITS)
    place = np.int64(one & np.uint64(mask))
    while places[place, 1] != 0 and (places[place, 0] != one or places[place, 1] >> bits != two):
        place = (place + 1) & mask
    return int(place)


def _make_hash(sources: str) -> Callable[[Bytes, Int64, UInt64, UInt64, UInt64], None]:
    @bare_kernel
    def hash_ids(data: Bytes, ends: Int64, key: UInt64, places: UInt64, hashes: UInt64) -> None:
        """Fill the hashes of texts that lie one after the other, and have their places fetched."""
        sources  # noqa: B018  # see worker.features.compiling
        begin, mask = 0, np.uint64(len(places) - 1)
        for i in range(len(ends)):
            one, two = _hash_of(data, begin, ends[i], key)
            hashes[i, 0], hashes[i, 1] = one, two >> np.uint64(_SLOT_BITS) << np.uint64(_SLOT_BITS)
            prefetch(places, np.int64(one & mask) * 2)
            begin = ends[i]

    return hash_ids


def _make_find(sources: str) -> Callable[[UInt64, UInt64, Int64], None]:
    @bare_kernel
    def find(places: UInt64, hashes: UInt64, slots: Int64) -> None:
        sources  # noqa: B018  # see worker.features.compiling
        bits, lower = np.uint64(_SLOT_BITS), np.uint64((1 << _SLOT_BITS) - 1)
        for i in range(len(hashes)):
            place = _place_of(places, hashes[i, 0], hashes[i, 1] >> bits)
            slots[i] = np.int64(places[place, 1] & lower) - 1

    return find


def _make_add(sources: str) -> Callable[[UInt64, UInt64], None]:
    @bare_kernel
    def add(places: UInt64, hashes: UInt64) -> None:
        sources  # noqa: B018  # see worker.features.compiling
        for i in range(len(hashes)):
            place = _place_of(places, hashes[i, 0], hashes[i, 1] >> np.uint64(_SLOT_BITS))
            places[place, 0], places[place, 1] = hashes[i, 0], hashes[i, 1]

    return add


def _make_remove(sources: str) -> Callable[[UInt64, UInt64], None]:
    @bare_kernel
    def remove(places: UInt64, hashes: UInt64) -> None:
        """Empty the places of hashes; what had to step aside moves up."""
        sources  # noqa: B018  # see worker.features.compiling
        mask = len(places) - 1
        for i in range(len(hashes)):
            hole = _place_of(places, hashes[i, 0], hashes[i, 1] >> np.uint64(_SLOT_BITS))
            place = (hole + 1) & mask
            while places[place, 1] != 0:
                home = np.int64(places[place, 0] & np.uint64(mask))
                if (place - home) & mask >= (place - hole) & mask:
                    places[hole, 0], places[hole, 1] = places[place, 0], places[place, 1]
                    hole = place
                place = (place + 1) & mask
            places[hole, 1] = np.uint64(0)

    return remove


_hash = _make_hash(digest_of(checksum, compiling))
_find = _make_find(digest_of(compiling))
_add = _make_add(digest_of(compiling))
_remove = _make_remove(digest_of(compiling))
