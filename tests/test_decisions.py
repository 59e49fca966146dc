"""Decisions: thresholds and budgets, lists, evidence, suppression and incidents, as folds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st

from tests import worlds
from tests.decision_worlds import (
    DAY_MS,
    EVERYTHING,
    HOUR_MS,
    NAMES,
    Naive,
    Stream,
    decider,
    mixed,
    of,
    words,
)
from worker.contracts.decisions import UNTAUGHT
from worker.contracts.metrics_settings import MetricsSettings
from worker.contracts.records import unserved
from worker.decisions import Decided, Decider
from worker.decisions.decider import share_of
from worker.decisions.incidents import ENTITIES_MAX, Incidents, Suppression
from worker.decisions.thresholds import Threshold
from worker.errors import ConfigError
from worker.features.naming import check_feature_names
from worker.models.measures import Measures


def test_a_late_alert_that_is_over_already_is_forgotten_at_once() -> None:
    """Nothing else is remembered: it is the last to go."""
    suppression = Suppression(DAY_MS)
    assert suppression.alerted("late", 0, 3 * DAY_MS) == 0
    assert suppression.to_state() == []
    assert not suppression.is_suppressed("late", 0)


def test_a_score_at_the_threshold_is_an_alert() -> None:
    """A fixed threshold includes its own value."""
    decided = decider(threshold=0.9).decide(of([np.nextafter(0.9, 0), 0.9, 1.0]).scores())
    assert words(decided) == ["pass", "alert", "alert"]
    assert decided.threshold.tolist() == [0.9, 0.9, 0.9]
    assert decided.alert.tolist() == [False, True, True]


def test_nothing_alerts_before_there_is_evidence() -> None:
    """With a rate of 0.1 % the first 5,000 scores only teach the quantile."""
    decided = decider(alert_rate=0.001).decide(of(np.arange(5_120.0)).scores())
    assert not decided.alert.any()
    assert np.isinf(decided.threshold).all()


def test_the_share_is_held_while_scores_drift() -> None:
    """Scores that change their scale and level still give the declared share of alerts."""
    rng = np.random.default_rng(3)
    level = np.repeat(np.arange(4), 40_000)
    scores = rng.normal(level + np.linspace(0, 4, 160_000), 1 + level)
    decided = decider(alert_rate=0.02).decide(of(scores).scores())
    assert math.isclose(decided.alert.mean(), 0.02, rel_tol=0.2)


@pytest.mark.parametrize("budget", [20, 42])
def test_a_budget_holds_for_all_partitions_together(budget: int) -> None:
    """Four partitions with traffic of their own: never more in any day, in the mean at least 80 %.

    The first days are left out: there is no threshold yet.
    """
    total = np.zeros(60, np.int64)
    for partition in range(4):
        stream = busy(60, partition)
        config = worlds.settings(decision={"model": "fraud", "alerts_per_day": budget})
        decided = Decider(config, NAMES, partition, 4).decide(stream.scores())
        total += np.bincount((stream.time_ms // DAY_MS)[decided.alert], minlength=60)
    assert total.max() <= budget
    assert 0.8 * budget <= total[5:].mean()


@given(budget=st.integers(1, 99), day=st.integers(0, 99), partitions=st.integers(1, 12))
def test_the_shares_of_a_day_are_the_budget(budget: int, day: int, partitions: int) -> None:
    """Exactly, differing by one at most, and over as many days all partitions have the same."""
    shares = [share_of(budget, day, p, partitions) for p in range(partitions)]
    assert sum(shares) == budget
    assert max(shares) - min(shares) <= 1
    turns = [share_of(budget, day + d, 0, partitions) for d in range(partitions)]
    assert sum(turns) == budget


def test_a_constant_score_never_alerts() -> None:
    """A running quantile does not include its own value."""
    assert not decider(alert_rate=0.1).decide(of(np.full(10_000, 0.5)).scores()).alert.any()


@pytest.mark.parametrize("budget", [{"alert_rate": 0.01}, {"alerts_per_day": 14}])
def test_scores_equal_to_a_budgets_quantile_are_below_its_threshold(budget: dict[str, Any]) -> None:
    """A twentieth says 0.95 and nothing more: no alert, and a figure of frauds has none found."""
    rng = np.random.default_rng(5)
    score = np.where(rng.random(20_000) < 0.05, 0.95, 0.9 * rng.random(20_000))
    decided = decider(**budget).decide(of(score).scores())
    assert np.isfinite(decided.threshold[5_000:]).all()
    assert not decided.alert.any()
    served = unserved(len(score), 1)
    served["score"], served["scores"][:, 0] = score, score
    served["threshold"], served["alert"] = decided.threshold, decided.alert
    measures = Measures(["fraud"], [], MetricsSettings())
    y = (score == 0.95).astype(np.int64)
    measures.add(np.empty((len(y), 0)), y, np.arange(len(y)), served)
    assert [one.total.recall for one in measures.all(["probability"], 0)] == [0.0, 0.0]


@given(seed=st.integers(0, 999), digits=st.integers(1, 3), rate=st.floats(0.001, 0.5))
@checked(max_examples=30, deadline=None)
def test_an_alert_is_a_score_at_or_above_the_recorded_threshold(
    seed: int, digits: int, rate: float
) -> None:
    """Whoever compares the journal's columns finds what was decided, however many are equal."""
    score = np.random.default_rng(seed).beta(1, 4, 8_000).round(digits)
    decided = decider(alert_rate=rate).decide(of(score).scores())
    assert np.array_equal(decided.alert, score >= decided.threshold)


def busy(days: int, seed: int) -> Stream:
    """Return days of events, many by day and few by night, more each week; scores drift."""
    rng = np.random.default_rng(seed)
    times = [day * DAY_MS + rng.beta(3, 3, size=800 + 40 * day) * DAY_MS for day in range(days)]
    time_ms = np.sort(np.concatenate(times)).astype(np.int64)
    return of(rng.normal(size=len(time_ms)) + time_ms / (20 * DAY_MS), time_ms=time_ms)


def test_a_daily_budget_is_spent_and_never_exceeded() -> None:
    """20 alerts a day: never more in any day, and in the mean at least 16, whatever the traffic."""
    stream = busy(60, 1)
    decided = decider(alerts_per_day=20).decide(stream.scores())
    days = np.bincount((stream.time_ms // DAY_MS)[decided.alert], minlength=60)
    assert days.max() <= 20
    assert 16 <= days[4:].mean() <= 20
    assert "over_budget" in words(decided)


def test_a_block_list_alerts_and_an_allow_list_never_does() -> None:
    """Any score of what is blocked; none of what is allowed; both is blocked."""
    made = decider(
        threshold=0.5,
        block=[{"field": "terminal", "values": ["bad"]}],
        allow=[{"field": "card", "values": ["mine"]}, {"field": "amount", "values": ["7"]}],
    )
    stream = of(
        [0.0, 0.9, 0.0, 0.9, 0.9],
        terminal=["bad", "t", "t", "bad", "t"],
        card=["c", "mine", "mine", "mine", "c"],
    )
    decided = made.decide(stream.scores())
    assert words(decided) == ["blocked", "allowed", "pass", "blocked", "alert"]
    assert len(decided.facts) == decided.alert.sum() == 3
    assert made.blocked_by(stream.scores().events, 0) == "terminal"
    assert made.blocked_by(stream.scores().events, 1) is None


@pytest.mark.parametrize(("known", "score", "word"), [
    (4.0, 0.9, "cold"), (5.0, 0.9, "alert"), (4.0, 0.98, "alert"), (0.0, 0.1, "pass"),
])  # fmt: skip
def test_too_little_evidence_needs_a_higher_score(known: float, score: float, word: str) -> None:
    """Below 5 known events a card alerts from 0.98 only; a block list asks for no evidence."""
    evidence = {"feature": "known", "at_least": 5, "threshold": 0.98}
    made = decider(threshold=0.5, evidence=evidence, block=[{"field": "card", "values": ["x"]}])
    assert words(made.decide(of([score], known=[known]).scores())) == [word]
    assert words(made.decide(of([score], known=[known], card=["x"]).scores())) == ["blocked"]


def test_without_a_threshold_a_cold_entity_never_alerts() -> None:
    """However high the score."""
    made = decider(threshold=0.5, evidence={"feature": "known", "at_least": 5})
    assert words(made.decide(of([1.0], known=[4.9]).scores())) == ["cold"]


def test_one_alert_per_card_and_hour() -> None:
    """What comes within the hour, its end included, is suppressed and counted in the next alert."""
    made = decider(threshold=0.5, suppress={"entity": "card", "within": "1h"})
    times = [0, 1, HOUR_MS, HOUR_MS + 1, HOUR_MS + 2]
    stream = of([0.9] * 5, time_ms=times, card=["a", "a", "a", "a", "b"])
    decided = made.decide(stream.scores())
    assert words(decided) == ["alert", "suppressed", "suppressed", "alert", "alert"]
    assert [facts.suppressed_count for facts in decided.facts] == [0, 2, 0]


def test_an_event_without_the_entity_is_neither_suppressed_nor_part_of_an_incident() -> None:
    """An optional entity that is missing is nobody's."""
    made = decider(
        threshold=0.5,
        incidents={"entity": "card", "quiet": "1h"},
        suppress={"entity": "card", "within": "1h"},
    )
    decided = made.decide(of([0.9, 0.9], card=["", ""]).scores())
    assert words(decided) == ["alert", "alert"]
    assert [facts.incident_id for facts in decided.facts] == [None, None]


def test_lists_take_an_empty_batch() -> None:
    """A batch of labels alone has no events."""
    made = decider(threshold=0.5, block=[{"field": "card", "values": ["x"]}])
    assert len(made.decide(of([]).scores()).code) == 0


@given(seed=st.integers(0, 10_000), quiet_ms=st.sampled_from([2 * HOUR_MS, HOUR_MS // 3]))
@checked(max_examples=30, deadline=None)
def test_decisions_and_incidents_equal_plain_loops(seed: int, quiet_ms: int) -> None:
    """Every rule together, with late events, against a search through all that came before; what is
    suppressed may outlast an incident.
    """
    stream, naive = mixed(seed, 150), Naive(quiet_ms)
    incidents = {"entity": "card", "quiet": f"{quiet_ms // 60_000}m"}
    decided = decider(**EVERYTHING | {"incidents": incidents}).decide(stream.scores())
    columns = (stream.time_ms, stream.card, stream.terminal, stream.score, stream.known)
    expected = [naive.decide(*row) for row in zip(*columns, strict=True)]
    assert words(decided) == expected
    told = [
        (f"t-0-{first}", "opened" if first == i else "updated")
        for i, first in naive.incident()
        if decided.alert[i]
    ]
    assert [(f.incident_id, f.incident_state) for f in decided.facts] == told


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=6),
    st.integers(0, 999),
    st.sampled_from([EVERYTHING, {"alert_rate": 0.05}, {"alerts_per_day": 9}]),
)
@checked(max_examples=30, deadline=None)
def test_batches_and_restarts_do_not_matter(
    sizes: list[int], seed: int, decision: dict[str, Any]
) -> None:
    """Any split into batches, with the state saved and restored in between, decides alike.

    Some events are so late that the incident which they open is over already.
    """
    stream = mixed(seed, 1_500 + sum(sizes), late_ms_max=6 * HOUR_MS)
    whole = decider(**decision).decide(stream.scores())
    parts: list[Decided] = []
    part, start = decider(**decision), 0
    for size in [1_500, *sizes]:
        fresh = decider(**decision)
        fresh.restore(part.to_bytes())
        parts.append(fresh.decide(stream.scores(start, start + size)))
        part, start = fresh, start + size
    joined = Decided.joined(parts)
    assert words(joined) == words(whole)
    assert np.array_equal(joined.threshold, whole.threshold)
    assert (joined.facts, joined.closed) == (whole.facts, whole.closed)


def test_what_is_remembered_is_bounded() -> None:
    """Beyond 10,000 entities the oldest goes: its incident is closed, its alert forgotten."""
    suppression, incidents = Suppression(DAY_MS), Incidents(DAY_MS)
    closed = []
    for i in range(ENTITIES_MAX + 5):
        suppression.alerted(f"c{i}", i, i)
        closed += incidents.join(f"c{i}", f"i{i}", "k", i, 0.5, is_alert=True)[2]
    assert [one.incident_id for one in closed] == ["i0", "i1", "i2", "i3", "i4"]
    assert len(suppression.to_state()) == len(incidents.to_state()) == ENTITIES_MAX
    assert not suppression.is_suppressed("c4", 10)
    assert suppression.is_suppressed("c5", 10)


def test_what_is_over_is_forgotten() -> None:
    """Suppressions that ended longer ago than they lasted, and closed incidents, take no room."""
    made = decider(**EVERYTHING)
    made.decide(mixed(3, 4_000).scores())
    assert len(made.to_bytes()) < 2_000


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


@pytest.mark.parametrize(("before", "after"), [(0.01, 0.05), (0.05, 0.01), (0.05, 0.04)])
def test_another_share_takes_up_the_scores_that_are_held(before: float, after: float) -> None:
    """A changed configuration starts with a threshold near the new share's."""
    scores = np.random.default_rng(5).random(70_000)
    old, new = decider(alert_rate=before), decider(alert_rate=after)
    old.decide(of(scores).scores())
    new.restore(old.to_bytes())
    threshold = new.decide(of([0.5]).scores()).threshold[0]
    assert math.isclose(1 - threshold, after, rel_tol=0.3)


@pytest.mark.parametrize("budget", [{"alert_rate": 0.01}, {"alerts_per_day": 14}])
def test_another_champion_gets_a_threshold_of_its_own(budget: dict[str, Any]) -> None:
    """After a change from scores in 0..1 to scores in 0.9..1 the share is held, not blown."""
    scores = np.random.default_rng(5).random(40_000)
    scores[20_000:] = 0.99 + scores[20_000:] / 100  # nearly all above the former threshold
    stream, one = of(scores), decider(**budget)
    first = one.decide(replace(stream.scores(0, 20_000), champion="fraud"))
    assert first.alert.any()
    second = one.decide(replace(stream.scores(20_000), champion="odd"))
    assert np.isinf(second.threshold[:1_024]).all()
    assert 0.9985 < np.median(second.threshold[5_000:]) < 1.0
    again = decider(**budget)
    again.restore(one.to_bytes())
    kept = again.decide(replace(stream.scores(20_000, 20_256), champion="odd"))
    assert np.isfinite(kept.threshold).all()  # the champion is part of the state


def test_evidence_and_segments_that_are_no_features_are_problems_with_their_places() -> None:
    """The nearest feature is named."""
    evidence = {"feature": "card_count_1hour", "at_least": 5}
    decision = {"model": "fraud", "threshold": 0.5, "evidence": evidence}
    metrics = {"segments": {"large": {"feature": "amounts", "at_least": 100}}}
    with pytest.raises(ConfigError) as caught:
        check_feature_names(worlds.settings(decision=decision, metrics=metrics))
    segment, evidence_problem = caught.value.problems
    assert segment.path == ("metrics", "segments", "large", "feature")
    assert "amount" in segment.hint
    assert evidence_problem.path == ("decision", "evidence", "feature")
    assert "card_count_1h" in evidence_problem.hint


@pytest.mark.parametrize("budget", [{"alert_rate": 0.005}, {"alerts_per_day": 50}])
def test_a_budget_begins_with_the_first_scores_that_mean_something(budget: dict[str, Any]) -> None:
    """What an untaught model says is no past to compare with: else all that follows is high."""
    rng = np.random.default_rng(5)
    scores = np.concatenate([np.full(5_000, UNTAUGHT), rng.random(20_000) * 0.01])
    decision = worlds.settings(decision={"model": "fraud", **budget}).decision
    time_ms = worlds.START_MS + 8_640 * np.arange(len(scores))  # 10,000 a day
    above, thresholds = Threshold(decision).reached(scores, time_ms)
    assert not above[:6_000].any()
    assert np.isinf(thresholds[:5_000]).all()
    assert 50 < above.sum() < 130  # of 100
