"""Decisions: thresholds, a rate held by a running quantile, severity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contracts.settings import DecisionSettings
from worker.decisions import Decider


def decider(**settings: object) -> Decider:
    return Decider(DecisionSettings(model="m", **settings))


def test_a_score_at_the_threshold_is_an_alert() -> None:
    """A fixed threshold includes its own value."""
    below, at = np.nextafter(0.9, 0), 0.9
    alert, threshold = decider(threshold=0.9).decide(np.array([below, at, 1.0]))
    assert alert.tolist() == [False, True, True]
    assert threshold.tolist() == [0.9, 0.9, 0.9]


def test_nothing_alerts_before_there_is_evidence() -> None:
    """With a rate of 1 % the first 500 scores only teach the quantile."""
    alert, threshold = decider(alert_rate=0.01).decide(np.arange(500.0))
    assert not alert.any()
    assert np.isinf(threshold).all()


def test_the_rate_is_held_while_scores_drift() -> None:
    """Scores that change their scale and level still give the declared share of alerts."""
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(k, 1 + k, 40_000) for k in range(4)])
    alert, _ = decider(alert_rate=0.02).decide(scores)
    assert 0.016 < alert[10_000:].mean() < 0.026


def test_a_constant_score_never_alerts() -> None:
    """A running quantile does not include its own value."""
    alert, _ = decider(alert_rate=0.1).decide(np.full(10_000, 0.5))
    assert not alert.any()


def naive(scores: list[float], rate: float) -> list[float]:
    """Thresholds by the definition, one score at a time, over plain lists."""
    size = min(100_000, max(2_000, math.ceil(50 / rate)))
    every, first = size // 20, min(size, math.ceil(5 / rate))
    threshold, out = math.inf, []
    for i, _ in enumerate(scores):
        if i >= first and (i - first) % every == 0:
            seen = sorted(scores[max(0, i - size) : i])
            threshold = seen[math.ceil((1 - rate) * (len(seen) - 1) - 1e-9)]
        out.append(threshold)
    return out


def test_thresholds_equal_the_definition() -> None:
    """The ring and its refreshes equal a sort over the last M scores."""
    scores = np.random.default_rng(1).exponential(size=7_000)
    _, thresholds = decider(alert_rate=0.05).decide(scores)
    assert thresholds.tolist() == naive(scores.tolist(), 0.05)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_batches_and_restarts_do_not_matter(sizes: list[int], seed: int) -> None:
    """Any split into batches, with the state saved and restored in between, decides alike."""
    scores = np.random.default_rng(seed).random(sum(sizes))
    whole = decider(alert_rate=0.05).decide(scores)
    parts, part, start = [], decider(alert_rate=0.05), 0
    for size in sizes:
        fresh = decider(alert_rate=0.05)
        fresh.restore(part.to_bytes())
        parts.append(fresh.decide(scores[start : start + size]))
        part, start = fresh, start + size
    assert np.array_equal(whole[0], np.concatenate([alert for alert, _ in parts]))
    assert np.array_equal(whole[1], np.concatenate([threshold for _, threshold in parts]))


@pytest.mark.parametrize(
    ("score", "level"), [(0.5, "low"), (0.7, "medium"), (0.89, "medium"), (0.9, "critical")]
)
def test_severity_is_the_highest_bound_reached(score: float, level: str) -> None:
    """A score has the level of the highest bound that it reaches, ``low`` below all of them."""
    assert (
        decider(threshold=0.1, severity={"medium": 0.7, "critical": 0.9}).severity(score) == level
    )


def test_severity_is_medium_where_none_is_declared() -> None:
    """Without bands every alert has the same severity."""
    assert decider(threshold=0.1).severity(0.99) == "medium"


@pytest.mark.parametrize(("before", "after"), [(0.001, 0.05), (0.05, 0.001), (0.05, 0.04)])
def test_another_rate_takes_up_the_scores_that_are_held(before: float, after: float) -> None:
    """A changed configuration starts, and decides as if it had seen those scores itself."""
    scores = np.random.default_rng(5).random(70_000)
    old, new, fresh = (
        decider(alert_rate=before),
        decider(alert_rate=after),
        decider(alert_rate=after),
    )
    old.decide(scores)
    new.restore(old.to_bytes())
    held = min(len(scores), min(100_000, max(2_000, math.ceil(50 / before))))
    fresh.decide(scores[-held:])
    more = np.random.default_rng(6).random(3_000)
    assert np.array_equal(new.decide(more)[1], fresh.decide(more)[1])
