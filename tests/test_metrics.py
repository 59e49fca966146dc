"""Ranking metrics against pairwise and step-by-step definitions."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.metrics import average_precision, roc_auc

pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=40)


@given(pairs)
def test_roc_auc_is_the_share_of_ordered_pairs(rows: list[tuple[int, int]]) -> None:
    """Each positive against each negative; a tie counts half."""
    positives = [s for y, s in rows if y]
    negatives = [s for y, s in rows if not y]
    got = roc_auc(np.array([y for y, _ in rows]), np.array([float(s) for _, s in rows]))
    if not positives or not negatives:
        assert got is None
        return
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    assert math.isclose(got or 0.0, wins / len(positives) / len(negatives), abs_tol=1e-12)


@given(pairs)
def test_average_precision_sums_precision_over_steps_of_recall(
    rows: list[tuple[int, int]],
) -> None:
    """Equal scores are one step."""
    total = sum(y for y, _ in rows)
    got = average_precision(np.array([y for y, _ in rows]), np.array([float(s) for _, s in rows]))
    if not total:
        assert got is None
        return
    area, before = 0.0, 0
    for threshold in sorted({s for _, s in rows}, reverse=True):
        chosen = [y for y, s in rows if s >= threshold]
        area += (sum(chosen) - before) / total * (sum(chosen) / len(chosen))
        before = sum(chosen)
    assert math.isclose(got or 0.0, area, abs_tol=1e-12)
