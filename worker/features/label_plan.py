"""What is known of events, and what is read of it besides sums, as arrays for kernels."""

from __future__ import annotations

from typing import NamedTuple

from worker.contracts.records import Bool, Int64


class LabelPlan(NamedTuple):
    """What is read of an L-part besides the sums of its windows."""

    runs: Int64  # (K, 3): the recorded column that is 1 for a fraud, 0 for a genuine event and
    # missing for one that is left out; code, column of X
    times: Int64  # (T, 6): that column, 1 for the first fraud, size_ms, delay_ms, tile set,
    # column of X


class Truths(NamedTuple):
    """Updates of one L-part in order: what is known of which event, and what was known before."""

    before: Int64  # (m,): events of the batch that come before it, non-decreasing
    slots: Int64
    time_ms: Int64
    id_hash: Int64
    revised: Bool
    values: Int64  # (m, F): recorded columns
    old: Int64  # (m, F): the same under the former truth
