"""Prequential figures against River's own metrics, scikit-learn's formulas and plain loops."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import metrics

from worker.metrics import average_precision, roc_auc
from worker.models.days import DAY_MS, Judged
from worker.models.plain import pack, unpack
from worker.models.prequential import Figures, Prequential

TOP, DAYS = 3, 7
ROWS = st.lists(
    st.tuples(
        st.integers(0, 1_000),  # score in thousandths
        st.booleans(),  # truth
        st.booleans(),  # whether the threshold was reached
        st.integers(0, 12 * 24),  # hour of the event
        st.integers(0, 5),  # entity
    ),
    min_size=1,
    max_size=80,
)
Row = tuple[int, bool, bool, int, int]


def judged(rows: list[Row]) -> Judged:
    score, y, reached, hour, entity = (np.array(c) for c in zip(*rows, strict=True))
    return Judged(
        y.astype(np.int64), score / 1_000, reached, hour.astype(np.int64) * 3_600_000,
        entity.astype(np.int64),
    )  # fmt: skip


def told(rows: list[Row], block: int = 10_000) -> Prequential:
    one = Prequential(TOP, DAYS, block)
    if rows:
        one.add(judged(rows))
    return one


def of_days(rows: list[Row], first_day: int = -1) -> tuple[float | None, float | None]:
    """Return precision at k by event and by entity, by a plain loop over what comes in time."""
    newest, days = -1, defaultdict(list)
    for row in rows:
        newest = max(newest, row[3] // 24)
        if row[3] // 24 > newest - DAYS:
            days[row[3] // 24].append(row)
    shares: list[tuple[float, float]] = []
    for day, part in sorted(days.items()):
        if day <= first_day:
            continue
        top = sorted(part, key=lambda row: -row[0])[:TOP]  # of equal scores the earlier
        best: dict[int, int] = defaultdict(int)
        for row in part:
            best[row[4]] = max(best[row[4]], row[0])
        entities = sorted(best, key=lambda entity: (-best[entity], entity))[:TOP]
        frauds = {row[4] for row in part if row[1]}
        shares.append((np.mean([r[1] for r in top]), np.mean([e in frauds for e in entities])))
    if not shares:
        return None, None
    return tuple(np.mean(shares, axis=0).tolist())


@settings(deadline=None)
@given(rows=ROWS)
def test_figures_equal_plain_formulas_over_all_examples(rows: list[Row]) -> None:
    """Scores in thousandths fall into bins of their own, so nothing is lost."""
    part, figures = judged(rows), told(rows).total()
    scores, y, loss = part.score, part.y, metrics.LogLoss()
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


@settings(deadline=None)
@given(rows=ROWS)
def test_figures_at_the_threshold_equal_rivers(rows: list[Row]) -> None:
    """Where River says 0.0 for want of anything to divide by, here is nothing."""
    figures = told(rows).total()
    pairs = [("precision", metrics.Precision()), ("recall", metrics.Recall()), ("f1", metrics.F1())]
    for name, metric in pairs:
        for _, y, reached, *_ in rows:
            metric.update(y, reached)
        mine = getattr(figures, name)
        assert (0.0 if mine is None else mine) == pytest.approx(metric.get()), name
    assert (figures.precision is None) == (not any(row[2] for row in rows))
    assert (figures.recall is None) == (not any(row[1] for row in rows))


@settings(deadline=None)
@given(rows=ROWS)
def test_precision_at_k_a_day_equals_a_plain_loop(rows: list[Row]) -> None:
    """Of events and of entities, in total and of the last seven days; late labels are left out."""
    figures = told(rows)
    newest = max(row[3] // 24 for row in rows)
    for one, expected in (
        (figures.total(), of_days(rows)),
        (figures.recent(), of_days(rows, newest - 7)),
    ):
        assert (one.precision_at_k, one.entity_precision_at_k) == pytest.approx(expected)


def test_the_delay_is_from_the_first_fraud_of_an_entity_to_the_first_that_was_found() -> None:
    """Labels come in any order; whoever was never found has no delay; a pause begins a new case."""
    hour, pause = 3_600_000, (DAYS * 24 + 1)
    rows: list[Row] = [
        (9, True, True, 7, 1), (9, True, False, 2, 1), (9, False, True, 0, 1),
        (9, True, True, 9, 1), (9, True, False, 3, 2), (9, True, True, 4, 3), (9, True, True, 4, 3),
    ]  # fmt: skip
    assert told(rows).total().alert_delay_s == np.mean([5 * 3_600, 0])
    later = told([*rows, (9, True, False, 9 + pause, 1), (9, True, True, 10 + pause, 1)])
    assert later.total().alert_delay_s == np.mean([5 * 3_600, 0, 3_600])
    assert later.recent().alert_delay_s == 3_600
    assert hour * pause > DAYS * DAY_MS


@settings(deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 80), max_size=3))
def test_any_split_and_a_restart_give_the_same_state(rows: list[Row], cuts: list[int]) -> None:
    """To the last bit, the sums of losses too."""
    whole, parts = told(rows, block=7), told([], block=7)
    edges = [0, *sorted(cuts), len(rows)]
    for start, stop in pairwise(edges):
        if rows[start:stop]:
            parts.add(judged(rows[start:stop]))
        again = told([], block=7)
        again.restore(unpack(pack(parts.to_state())))
        parts = again
    assert pack(parts.to_state()) == pack(whole.to_state())
    assert nan_safe(parts.recent()) == nan_safe(whole.recent())


def nan_safe(figures: Figures) -> dict[str, Any]:
    return {name: str(value) for name, value in asdict(figures).items()}


def test_recent_is_the_last_whole_block() -> None:
    """A model that was bad for long and is good now shows it."""
    bad: list[Row] = [(900, False, True, 0, 0), (100, True, False, 0, 1)]
    good: list[Row] = [(100, False, False, 0, 0), (900, True, True, 0, 1)]
    one = told([*bad, *bad, *good, *good, bad[0]], block=4)
    assert (one.recent().roc_auc, one.recent().precision, one.recent().recall) == (1.0, 1.0, 1.0)
    assert one.recent().labelled == 4
    assert one.total().labelled == 9
    assert one.total().precision == 2 / 5
    assert math.isfinite(one.total().log_loss or math.nan)


def test_more_entities_than_are_known_cost_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of frauds beyond the bound some are not known as such, and old cases end."""
    monkeypatch.setattr("worker.models.days.FRAUDS_MAX", 50)
    one, first = told([(500, True, True, 0, e) for e in range(40)]), None
    for start in range(0, 4_000, 400):
        one.add(judged([(500, True, True, 0, e) for e in range(start, start + 400)]))
        size = len(pack(one.to_state()))
        first = first or size
    assert size == first
    assert one.total().alert_delay_s == 0.0
