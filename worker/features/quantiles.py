"""Quantiles of a number learned online: a histogram of integers that is a fold of the events."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worker.contracts.records import Bool, Float64, Int64
from worker.features import compiling
from worker.features.compiling import digest_of, helper, kernel

COUNT_MAX = 131_072
"""At this many values every count is halved: older ones fade, none weighs for ever."""

_PARTS_BITS = 4  # bins in a factor of two, as a power of two
_LOWEST, _HIGHEST = -16, 48  # powers of two between which sizes are told apart
_SIDE = (_HIGHEST - _LOWEST) << _PARTS_BITS
_FIRST = (1023 + _LOWEST) << _PARTS_BITS
_BLOCK = 64
BINS = 2 * _SIDE + 1


def bins_of(values: Float64) -> Int64:
    """Return the bin of each value; bins ascend with the values, the one of 0 is in the middle.

    Values of one bin differ by at most 1/16 of their size. Sizes below 2^-16 count as 0, those
    above 2^48 as one bin.

    >>> bins_of(np.array([-1.0, 0.0, 1.0, 1.01])) - BINS // 2
    array([-257,    0,  257,  257])
    """
    bits = np.ascontiguousarray(values, np.float64).view(np.int64)
    step = np.clip(((bits & 0x7FFFFFFFFFFFFFFF) >> (52 - _PARTS_BITS)) - _FIRST + 1, 0, _SIDE)
    return np.asarray(np.where(bits < 0, -step, step) + _SIDE)


class Quantiles:
    """The distribution of about the last 100,000 values of one number.

    The rank of a value is the share of values seen before it that were smaller, those of its own
    bin by half. It is wrong by at most half the share of values in that bin. Two folds of the same
    values have the same bits, however they were cut.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(-(-BINS // _BLOCK) * _BLOCK, np.int64)
        self._blocks = np.zeros(len(self._counts) // _BLOCK, np.int64)

    def buckets(self, values: Float64, parts: int) -> Float64:
        """Return ⌊rank · parts⌋ of each value without learning it; for tests and readers."""
        return self.update(values, np.ones(len(values), np.bool_), parts)

    def update(self, values: Float64, skipped: Bool, *parts: int) -> Float64:
        """Return, per value, ⌊rank · parts⌋ before the value is learned; one row per ``parts``.

        A missing value (NaN) has none and teaches nothing; a skipped one teaches nothing. Before
        the first value every rank is one half.
        """
        buckets = np.empty((len(parts), len(values)))
        missing = np.isnan(values)
        _fold_quantiles(
            self._counts, self._blocks, bins_of(values), missing, skipped,
            np.array(parts, np.int64), buckets,
        )  # fmt: skip
        return buckets if len(parts) != 1 else buckets[0]

    def to_tuple(self) -> tuple[bytes, bytes]:
        """Return the bins that are not empty and their counts."""
        used = np.flatnonzero(self._counts)
        return used.astype("<u2").tobytes(), self._counts[used].astype("<u4").tobytes()

    @classmethod
    def from_tuple(cls, state: tuple[bytes, bytes]) -> Quantiles:
        """Return what `to_tuple` was made of."""
        found = cls()
        found._counts[np.frombuffer(state[0], "<u2")] = np.frombuffer(state[1], "<u4")
        found._blocks[:] = found._counts.reshape(-1, _BLOCK).sum(axis=1)
        return found


@helper
def _below(counts: Int64, blocks: Int64, bin_: int) -> int:
    """Return how many values lie in lower bins."""
    block = bin_ // _BLOCK
    total = 0
    for b in range(block):
        total += blocks[b]
    for i in range(block * _BLOCK, bin_):
        total += counts[i]
    return total


@helper
def _halve(counts: Int64, blocks: Int64) -> int:
    total = 0
    for b in range(len(blocks)):
        blocks[b] = 0
        for i in range(b * _BLOCK, (b + 1) * _BLOCK):
            counts[i] //= 2
            blocks[b] += counts[i]
        total += blocks[b]
    return total


def _make_fold(sources: str) -> Callable[..., None]:
    @kernel
    def fold_quantiles(
        counts: Int64,
        blocks: Int64,
        bins: Int64,
        missing: Bool,
        skipped: Bool,
        parts: Int64,
        buckets: Float64,
    ) -> None:
        sources  # noqa: B018  # see worker.features.compiling
        total = blocks.sum()
        for i in range(len(bins)):
            if missing[i]:
                buckets[:, i] = np.nan
                continue
            bin_ = bins[i]
            twice = 2 * _below(counts, blocks, bin_) + counts[bin_]
            for p in range(len(parts)):
                rank = twice * parts[p] // (2 * total) if total else parts[p] // 2
                buckets[p, i] = min(rank, parts[p] - 1)
            if skipped[i]:
                continue
            counts[bin_] += 1
            blocks[bin_ // _BLOCK] += 1
            total += 1
            if total >= COUNT_MAX:
                total = _halve(counts, blocks)

    return fold_quantiles


_fold_quantiles = _make_fold(digest_of(compiling))
