"""Prequential figures against River's own metrics and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import metrics

from worker.metrics import average_precision, roc_auc
from worker.models.plain import pack, unpack
from worker.models.prequential import Prequential

PAIRS = st.lists(st.tuples(st.integers(0, 1_000), st.booleans()), min_size=1, max_size=80)


def columns(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores = np.array([thousandths / 1_000 for thousandths, _ in pairs])
    return scores, np.array([int(y) for _, y in pairs])


@given(pairs=PAIRS)
def test_figures_equal_plain_formulas_over_all_examples(pairs: list[tuple[int, bool]]) -> None:
    """Scores in thousandths fall into bins of their own, so nothing is lost."""
    scores, y = columns(pairs)
    one = Prequential()
    one.add(scores, y)
    figures, loss = one.total(), metrics.LogLoss()
    for p, truth in zip(np.clip(scores, 1e-6, 1 - 1e-6).tolist(), y.tolist(), strict=True):
        loss.update(truth, p)
    assert (figures.labelled, figures.positives) == (len(y), int(y.sum()))
    assert figures.log_loss == pytest.approx(loss.get(), rel=1e-9)
    assert figures.brier == pytest.approx(np.mean((scores - y) ** 2), abs=1e-3)
    bins = [(scores * 10).round(6).astype(int).clip(0, 9) == b for b in range(10)]
    distances = [abs(np.sum(scores[one] - y[one])) for one in bins]
    assert figures.calibration_error == pytest.approx(sum(distances) / len(y), abs=5e-4 + 1e-9)
    if 0 < y.sum() < len(y):
        assert figures.roc_auc == pytest.approx(roc_auc(y, scores))
        assert figures.average_precision == pytest.approx(average_precision(y, scores))
    else:
        assert (figures.roc_auc, figures.average_precision) == (None, None)


@given(pairs=PAIRS, cut=st.integers(0, 80))
def test_any_split_gives_the_same_state(pairs: list[tuple[int, bool]], cut: int) -> None:
    """To the last bit, the sums of losses too."""
    scores, y = columns(pairs)
    whole, parts = Prequential(block=7), Prequential(block=7)
    whole.add(scores, y)
    parts.add(scores[:cut], y[:cut])
    parts.add(scores[cut:], y[cut:])
    assert pack(parts.to_state()) == pack(whole.to_state())


def test_recent_is_the_last_whole_block() -> None:
    """A model that was bad for long and is good now shows it."""
    one = Prequential(block=4)
    one.add(np.array([0.9, 0.1, 0.9, 0.1]), np.array([0, 1, 0, 1]))
    one.add(np.array([0.1, 0.9, 0.1, 0.9, 0.9]), np.array([0, 1, 0, 1, 0]))
    assert one.recent().roc_auc == 1.0
    assert one.recent().labelled == 4
    assert one.total().labelled == 9


def test_a_restored_one_goes_on_alike() -> None:
    """State travels as plain values."""
    first, second = Prequential(block=3), Prequential(block=3)
    first.add(np.array([0.2, 0.8]), np.array([0, 1]))
    second.restore(unpack(pack(first.to_state())))
    for one in (first, second):
        one.add(np.array([0.4, 0.6]), np.array([1, 0]))
    assert second.total() == first.total()
    assert second.recent() == first.recent()
    assert math.isfinite(first.total().log_loss or math.nan)
