"""What is defined over the events of a ring: by place and by order, not by sums."""

from __future__ import annotations

from worker.contracts.records import Int64
from worker.features.codes import MISSING
from worker.features.compiling import helper


@helper
def distinct_of(ring: Int64, slot: int, row: int, begin: int, until: int) -> float:
    """Return how many different values there are."""
    count = 0
    for i in range(begin, until):
        v = ring[slot, row, i]
        new = v != MISSING
        for j in range(begin, i):
            new &= ring[slot, row, j] != v
        count += new
    return float(count)
