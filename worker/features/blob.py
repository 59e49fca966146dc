"""Blobs: the state of one entity as bytes, compact, versioned and checked. Never a pickle.

Layout: ``rw``, format version, number of the entity type, first 8 bytes of the state hash, 8 bytes
of checksum of the body (`worker.features.checksum`); the body. The body is made of varints (seven
bits a byte, small ones first; signed numbers zigzag): now, now − newest time in tiles + 1 (0
without tiles), number of events; of each event, oldest first, the time since the one before, its
recorded values (one more, and 0 for none, where one may be missing; hashes as 8 bytes), 8 bytes of
id hash; the registers, 8 bytes each; where there are tiles, of each column that keeps them the
smallest and the largest value in any; per tile set the number of tiles that a window can still
reach and that are not empty. Of these then numbers, by column: 7 bits that say how many bits each
takes, and so many bits of each tile, low ones first, up to a whole byte after the last column:

- how many tiles before it are empty; its events;
- of what each recorded column keeps: events with a value n; its smallest less the smallest of all,
  the largest of all less its largest; sum less n · ⌊(smallest + largest) / 2⌋, or without extremes
  the sum, zigzag; squares less m · (2 · sum − n · m), m the whole part of sum / n as a float64,
  modulo 2⁶⁴, and how often 2⁴⁰, zigzag.

Last, of each of these tiles and each column that has them, its bits.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from worker.contracts.records import Int64
from worker.errors import StateDamagedError
from worker.features.checksum import PREFIX_LENGTH, Bytes, are_whole
from worker.features.packing import pack, unpack
from worker.features.plan import RECORD_LENGTH, TILES_ROW, Plan
from worker.features.state import Rows
from worker.features.tile_packing import AFTER
from worker.features.varints import VARINT_MAX

FORMAT_VERSION = 5
MAGIC = b"rw"

Joined = tuple[Bytes, Int64]
"""Blobs one after the other, and where each ends."""

_CHUNK = 512  # slots packed at once: the buffer is sized for the worst case


class BlobCodec:
    """Packs and unpacks the slots of one entity type.

    Parameters
    ----------
    entity
        Its name, for messages.
    index
        Its number in the spec.
    """

    def __init__(self, plan: Plan, state_hash: str, entity: str, index: int) -> None:
        self._plan = plan
        self._where = f"stored state of a {entity}"
        version = bytes([FORMAT_VERSION, index])
        self._prefix = MAGIC + version + bytes.fromhex(state_hash)[:8]
        self._shared = np.frombuffer(self._prefix, np.uint8)
        tiles_max = max(plan.sets[:, 1], default=0)
        self._numbers = np.empty((tiles_max, int(plan.limits[RECORD_LENGTH])), np.uint64)
        self._buffer = np.empty(0, np.uint8)  # kept: new pages cost more than to pack into them
        self._whole: tuple[list[bytes], Joined] = _NOTHING  # what was checked last

    def encode(self, rows: Rows, slots: Int64) -> list[bytes]:
        """Return the blob of each slot. The same state gives the same bytes, however it came."""
        blobs: list[bytes] = []
        for first in range(0, len(slots), _CHUNK):
            blobs += self._encode_chunk(rows, slots[first : first + _CHUNK])
        return blobs

    def check(self, blobs: list[bytes]) -> None:
        """Refuse blobs that are not ours, or damaged.

        Raises
        ------
        StateDamagedError
            Drop the space and acquire the shard again: it is rebuilt from the log.
        """
        joined = _joined(blobs)
        if not are_whole(*joined, self._shared):
            raise self._refusal(
                next(b for b in blobs if not are_whole(*_joined([b]), self._shared))
            )
        self._whole = blobs, joined

    def decode(self, rows: Rows, slots: Int64, blobs: list[bytes]) -> None:
        """Fill empty slots from blobs that were checked, at best just now. There must be a free
        tile row for each.

        Raises
        ------
        StateDamagedError
            As `check`; the slots hold nothing of use then.
        """
        checked, joined = self._whole
        self._whole = _NOTHING
        if checked != blobs:  # a comparison of places in memory
            joined = _joined(blobs)
        if not unpack(self._plan, rows, slots, self._numbers, *joined):
            raise StateDamagedError(
                self._where, "a packed state", "bytes that end too early or late"
            )

    def _encode_chunk(self, rows: Rows, slots: Int64) -> list[bytes]:
        plan = self._plan
        events = rows.ring.shape[2] * (VARINT_MAX * (1 + len(plan.recorded)) + 8)
        tiles = int(plan.limits[TILES_ROW]) * VARINT_MAX * int(plan.limits[RECORD_LENGTH])
        bound = 64 + events + 8 * len(plan.registers) + tiles + VARINT_MAX * len(plan.sets)
        if len(self._buffer) < bound * len(slots):
            self._buffer = np.empty(bound * len(slots), np.uint8)
        buffer = self._buffer
        ends = np.empty(len(slots), np.int64)
        pack(plan, rows, slots, self._shared, self._numbers, buffer, ends)
        data, bounds = buffer[: ends[-1]].tobytes(), [0, *ends.tolist()]
        return [data[begin:end] for begin, end in pairwise(bounds)]

    def _refusal(self, blob: bytes) -> StateDamagedError:
        hint = "the worker rebuilds it from the log"
        if blob[:3] != self._prefix[:3]:
            return StateDamagedError(
                self._where, f"a blob of format {FORMAT_VERSION}", "other bytes", hint
            )
        if not blob.startswith(self._prefix):
            got = blob[4:PREFIX_LENGTH].hex()
            return StateDamagedError(self._where, f"state {self._prefix[4:].hex()}", got, hint)
        return StateDamagedError(
            self._where, "bytes as they were written", "a wrong checksum", hint
        )


def _joined(blobs: list[bytes]) -> Joined:
    """Return blobs as one array, with a few bytes behind them, and where each ends."""
    ends = np.cumsum(np.fromiter(map(len, blobs), np.int64, len(blobs)))
    return np.frombuffer(b"".join([*blobs, bytes(AFTER)]), np.uint8), ends


_NOTHING: tuple[list[bytes], Joined] = [], _joined([])
