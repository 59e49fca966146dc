"""Figures by period of event time against a recomputation by hand."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from worker.metrics import average_precision, roc_auc
from worker.periods import by_period, table_of

DAY_MS = 86_400_000
FIRST_MS = 1_522_540_800_000 + 5 * 3_600_000  # 2018-04-01T05:00Z


def events(count: int = 600, days: int = 24) -> dict[str, list[Any]]:
    """Return events of three weeks and a bit, out of order, with ties of scores."""
    rng = np.random.default_rng(7)
    return {
        "event_id": [f"e{i}" for i in range(count)],
        "event_time": (FIRST_MS + rng.integers(0, days * DAY_MS - 5 * 3_600_000, count)).tolist(),
        "entity": [f"c{i}" for i in rng.integers(0, 12, count).tolist()],
        "score": rng.integers(0, 40, count).tolist(),
        "decision": rng.choice(["pass", "alert", "blocked", "cold"], count).tolist(),
    }  # fmt: skip


def table(columns: dict[str, list[Any]]) -> pa.Table:
    scores = [float(one) for one in columns["score"]]
    return pa.table({**columns, "score": scores, "event_time": columns["event_time"]})


def naive(columns: dict[str, list[Any]], truth: dict[str, int], days: int) -> list[dict[str, Any]]:
    """Return the figures that need no ranking within a day."""
    periods: dict[int, list[dict[str, Any]]] = defaultdict(list)
    rows = [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]
    midnight = min(row["event_time"] for row in rows) // DAY_MS
    for row in rows:
        periods[(row["event_time"] // DAY_MS - midnight) // days].append(row)
    found = []
    for _, part in sorted(periods.items()):
        known = [row for row in part if row["event_id"] in truth]
        y = np.array([truth[row["event_id"]] for row in known])
        scores = np.array([float(row["score"]) for row in known])
        alerts = [row for row in part if row["decision"] in ("alert", "blocked")]
        judged = [truth[row["event_id"]] for row in alerts if row["event_id"] in truth]
        found.append(
            {
                "events": len(part), "alerts": len(alerts), "labelled": len(known),
                "positives": int(y.sum()), "roc_auc": roc_auc(y, scores),
                "average_precision": average_precision(y, scores),
                "precision": sum(judged) / len(judged), "recall": sum(judged) / int(y.sum()),
                "f1": 2 * sum(judged) / (len(judged) + int(y.sum())),
                "brier": float(np.mean((scores - y) ** 2)), "alert_delay_s": delay_s(known, truth),
            }
        )  # fmt: skip
    return found


def delay_s(known: list[dict[str, Any]], truth: dict[str, int]) -> float:
    """Return the mean seconds from an entity's first fraud to its first one with an alert."""
    frauds = [row for row in known if truth[row["event_id"]]]
    delays = []
    for entity in {row["entity"] for row in frauds}:
        mine = [row for row in frauds if row["entity"] == entity]
        found = [r["event_time"] for r in mine if r["decision"] in ("alert", "blocked")]
        if found:
            delays.append((min(found) - min(r["event_time"] for r in mine)) / 1000)
    return float(np.mean(delays))


def test_figures_of_each_week_equal_those_by_hand() -> None:
    """Counts, ranking and alerts' precision and recall are those of the week's events alone."""
    columns = events()
    rng = np.random.default_rng(8)
    labels = [(f"e{i}", int(rng.random() < 0.2)) for i in rng.integers(0, 600, 700).tolist()]
    ids, y = [one for one, _ in labels], np.array([one for _, one in labels])
    found = by_period(table(columns), ids, y, days=7, k=5)
    starts = [one["start"] for one in found]
    assert starts == ["2018-04-01", "2018-04-08", "2018-04-15", "2018-04-22"]
    for one, expected in zip(found, naive(columns, dict(labels), 7), strict=True):
        assert {name: one[name] for name in expected} == pytest.approx(expected)


def test_precision_at_k_is_the_mean_over_days() -> None:
    """Two days of three events, k = 2: 1 of 2 and 2 of 2; an entity counts once a day."""
    columns = {
        "event_id": list("abcdef"),
        "event_time": [0, 1, 2, DAY_MS, DAY_MS + 1, DAY_MS + 2],
        "entity": ["x", "x", "y", "x", "y", "z"],
        "score": [9.0, 8.0, 1.0, 7.0, 6.0, 5.0],
        "decision": ["pass"] * 6,
    }
    y = np.array([0, 1, 0, 1, 1, 0])
    (week,) = by_period(pa.table(columns), list("abcdef"), y, days=7, k=2)
    assert week["precision_at_k"] == (1 / 2 + 2 / 2) / 2
    assert week["entity_precision_at_k"] == (1 / 2 + 2 / 2) / 2  # x with its fraud b, and y
    (week,) = by_period(pa.table(columns), list("abcdef"), y, days=7, k=1)
    assert week["precision_at_k"] == 1 / 2
    assert week["entity_precision_at_k"] == 1.0


def test_the_last_label_of_an_event_holds() -> None:
    """A revision counts once, as what it says last."""
    columns = {"event_id": ["a"], "event_time": [0], "entity": ["x"], "score": [0.5],
               "decision": ["alert"]}  # fmt: skip
    (week,) = by_period(pa.table(columns), ["a", "a"], np.array([1, 0]), days=7, k=1)
    assert (week["labelled"], week["positives"], week["precision"]) == (1, 0, 0.0)


def test_the_table_says_nothing_where_nothing_is_known() -> None:
    """A week without labels has its counts, and dashes for what labels decide."""
    columns = {"event_id": ["a"], "event_time": [0], "entity": ["x"], "score": [0.5],
               "decision": ["alert"]}  # fmt: skip
    lines = table_of(by_period(pa.table(columns), [], np.empty(0, int), 7, 9), 9).splitlines()
    assert "precision@9" in lines[0]
    assert lines[1].split() == ["1970-01-01", "1", "1", "0", "0", *"--------"]
