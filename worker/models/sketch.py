"""A streaming quantile sketch of bounded size that forgets, with a tail fitted beyond it.

Values are merged in blocks into centroids: single values at the top, ever larger groups below, as
in a t-digest whose fine end is the upper one. Beyond the top hundred values a generalised Pareto
distribution takes over. A window lags behind what drifts; so at a few levels the share of values
that did exceed them is fed back, which holds it in the long run whatever the drift. Everything
happens at counts of values, so the state does not depend on how a stream is cut into batches.

*Source*: Dunning and Ertl, arXiv 1902.04023 (merging digests); Hosking and Wallis 1987, doi
10.1080/00401706.1987.10488243 (the tail by probability-weighted moments); Gibbs and Candes, arXiv
2106.00170 (the feedback).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.errors import StateLostError
from worker.models import sketch_kernels as kernels
from worker.models.sketch_kernels import (
    BLOCK,
    EVIDENCE,
    FIRST,
    POINT,
    RARITY,
    TOTAL,
    VALUE,
    WINDOW,
)

_HEADER = struct.Struct("<4sdiiiqd")  # magic, window, levels, centroids, buffered, seen, total
_CRC = struct.Struct("<I")
_MAGIC = b"RWQ2"


class QuantileSketch:
    """Quantiles of the last ``window`` values, older ones fading; at most 25 kB, 0.1 µs a value.

    Parameters
    ----------
    window
        Once so many values were seen the weight of all of them stays there: a value that is
        ``window`` values old counts 1/e of a new one.
    levels
        Shares, increasing, whose exceedances are held in the long run; at least one.

    Examples
    --------
    >>> sketch = QuantileSketch(10_000, (0.9,))
    >>> sketch.add(np.random.default_rng(0).random(5_120))
    >>> round(sketch.threshold(0), 2), round(float(sketch.ranks(np.array([0.5]))[0]), 2)
    (0.9, 0.5)
    """

    def __init__(self, window: float, levels: Sequence[float]) -> None:
        rarity = [-math.log(1.0 - share) for share in levels]
        self.levels = np.array([rarity, rarity, [math.inf] * len(levels)])
        self.table, self._scratch = np.zeros((4, kernels.CAPACITY)), np.zeros((3, kernels.CAPACITY))
        self.buffer = np.zeros(BLOCK)
        self.counters = np.zeros(3, np.int64)
        self.facts = np.array([max(window, 2.0 * BLOCK), 0.0, 0.0, 0.0, 0.0, 0.0])

    @property
    def arrays(self) -> tuple[Float64, Float64, Float64, Int64, Float64, Float64]:
        """Return the state as kernels take it."""
        return self.table, self._scratch, self.buffer, self.counters, self.facts, self.levels

    def add(self, values: Float64) -> None:
        """Add values in order. They must be finite."""
        kernels.add_all(np.ascontiguousarray(values), *self.arrays)

    def ranks(self, values: Float64) -> Float64:
        """Return of each value the share of the merged values that lie below it, [0, 1)."""
        out = np.empty(len(values))
        facts = (self.table, self.counters, self.facts, self.levels)
        kernels.rank_all(np.ascontiguousarray(values), *facts, out)
        return out

    def threshold(self, level: int) -> float:
        """Return the value of a level: infinity while there are too few values to tell."""
        return float(self.levels[VALUE, level])

    def to_bytes(self) -> bytes:
        """Return the state with a checksum."""
        size, buffered, seen = self.counters.tolist()
        count, window, total = self.levels.shape[1], self.facts[WINDOW], self.facts[TOTAL]
        head = _HEADER.pack(_MAGIC, window, count, size, buffered, seen, total)
        table, levels = self.table[: POINT + 1, :size], self.levels[:VALUE]
        data = head + table.tobytes() + self.buffer[:buffered].tobytes() + levels.tobytes()
        return data + _CRC.pack(zlib.crc32(data))

    @classmethod
    def from_bytes(cls, data: bytes) -> QuantileSketch:
        """Return the state that `to_bytes` gave.

        Raises
        ------
        StateLostError
            The bytes are damaged or of another format.
        """
        end = len(data) - _CRC.size
        if end < _HEADER.size or _CRC.pack(zlib.crc32(data[:end])) != data[end:]:
            raise StateLostError("quantile sketch", "intact bytes", "damaged or foreign ones")
        magic, window, count, size, buffered, seen, total = _HEADER.unpack_from(data)
        body = np.frombuffer(data[_HEADER.size : end], "<f8")
        if magic != _MAGIC or len(body) != 3 * size + buffered + 2 * count:
            raise StateLostError("quantile sketch", f"format {_MAGIC!r}", "another format")
        sketch = cls(window, [0.0] * count)
        sketch.table[: POINT + 1, :size] = body[: 3 * size].reshape(3, size)
        sketch.buffer[:buffered] = body[3 * size : 3 * size + buffered]
        sketch.levels[:VALUE] = body[3 * size + buffered :].reshape(2, count)
        sketch.counters[:] = size, buffered, seen
        sketch.facts[TOTAL] = total
        kernels.finish(sketch.table, sketch.counters, sketch.facts, sketch.levels)
        return sketch

    def is_alike(self, other: QuantileSketch, *, is_level_free: bool) -> bool:
        """Return whether another sketch has the same window and, unless free, the same levels."""
        return bool(
            self.facts[WINDOW] == other.facts[WINDOW]
            and (is_level_free or np.array_equal(self.levels[RARITY], other.levels[RARITY]))
        )

    def aimed_as(self, other: QuantileSketch) -> QuantileSketch:
        """Return this sketch's values with the window and levels of another."""
        self.facts[WINDOW], self.levels = other.facts[WINDOW], other.levels
        kernels.finish(self.table, self.counters, self.facts, self.levels)
        return self


__all__ = ["BLOCK", "EVIDENCE", "FIRST", "QuantileSketch"]
