"""Which negative examples a model learns where it is told to learn a share of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xxhash

from worker.contracts.records import Float64
from worker.models.batch import Batch

_SEED = 0x6E656761  # another draw than that of `labels.negative_rate`, which may have chosen first


def draws_of(event_ids: Sequence[str]) -> Float64:
    """Return a number in [0, 1) per event, told by its id alone: the same on all workers.

    >>> draws = draws_of([f"e{i}" for i in range(10_000)])
    >>> round(float((draws < 0.1).mean()), 2)
    0.1
    """
    hashes = (xxhash.xxh3_64_intdigest(one.encode(), _SEED) >> 11 for one in event_ids)
    return np.fromiter(hashes, np.float64, len(event_ids)) * 2.0**-53


def sampled(batch: Batch, draws: Float64, rate: float) -> Batch:
    """Return the batch without the negatives that were not drawn; the others count 1 / rate."""
    is_negative = batch.learn_y == 0
    kept = np.flatnonzero(~is_negative | (draws < rate))
    weight = np.where(is_negative, batch.learn_weight / rate, batch.learn_weight)
    return replace(
        batch,
        learn_x=batch.learn_x[kept],
        learn_y=batch.learn_y[kept],
        learn_weight=weight[kept],
        learn_before=batch.learn_before[kept],
    )
