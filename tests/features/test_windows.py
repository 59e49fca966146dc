"""Every aggregation against a naive recomputation over the whole history, after each event."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.oracle import (
    VARIANTS,
    Entity,
    Seen,
    assert_defined,
    checked,
    declared,
    past_of,
    spec_of_all,
    within,
)
from tests.features.streams import START_MS, UNHURRIED, Row, run, spec_of, step, streams, tables_of
from worker.features.aggregations import AGGREGATIONS
from worker.features.aggregations.comparison import Zscore
from worker.features.feature import Feature
from worker.features.spec import FeatureSpec

RINGS = (1, 2, 5, 40)
SPECS: dict[tuple[str, int], FeatureSpec] = {
    (variant, ring): spec_of_all(variant, ring)
    for variant in ("plain", "turned", "long")
    for ring in RINGS
}
"""Every aggregation at once, for tests of state."""


@cache
def spec_of_one(name: str, ring: int) -> FeatureSpec:
    return spec_of({"card": declared(AGGREGATIONS[name], ring, list(VARIANTS))}, ring)


@pytest.mark.parametrize("name", AGGREGATIONS)
@settings(UNHURRIED, max_examples=40)
@given(rows=streams(), ring=st.sampled_from(RINGS))
def test_each_aggregation_is_what_it_says(name: str, ring: int, rows: list[Row]) -> None:
    """Exact where it says so, else within its bound; aggregations are found, not listed."""
    check = lambda *words: assert_defined(ring, *words)  # noqa: E731
    checked(spec_of_one(name, ring), ring, rows, check)


def test_a_zscore_beyond_the_ring_is_near_its_definition() -> None:
    """Of hundreds of events in tiles, 1 of 24 cut: within its bound, and that is narrow."""
    draw, errors = random.Random(3), []
    rows = [
        Row(f"e{i}", i * 300_000 + draw.randrange(300_000), amount=draw.randrange(1, 90_000))
        for i in range(900)
    ]

    def check(feature: Feature, value: float, entity: Entity, now: Seen) -> None:
        assert_defined(2, feature, value, entity, now)
        events = [s for s in within(feature, entity, entity.events) if s is not now]
        errors.append(abs(value - Zscore.of(past_of(feature, entity, now, events))))

    checked(spec_of({"card": {"zscore(amount)": ["1d"]}}, 2), 2, rows, check)
    assert 0.0 < max(errors[288:]) < 0.1


@settings(UNHURRIED, max_examples=10)
@given(rows=streams(), ring=st.sampled_from(RINGS))
def test_aggregations_do_not_disturb_each_other(ring: int, rows: list[Row]) -> None:
    """All at once, for two types of entities, are what each is alone."""
    check = lambda *words: assert_defined(ring, *words)  # noqa: E731
    checked(SPECS["plain", ring], ring, rows, check)


@pytest.mark.parametrize(("at", "count"), [(9_999, 2.0), (10_000, 1.0), (10_001, 1.0)])
def test_an_event_leaves_the_window_when_it_is_as_old_as_the_window(at: int, count: float) -> None:
    """A window is open at its old end: t − size is out, one millisecond later is in."""
    rows = [Row("e1", 0), Row("e2", at)]
    assert run(spec_of({"card": {"count": ["10s"]}}), rows)[1] == {"card_count_10s": count}


@pytest.mark.parametrize(("at", "count"), [(4_999, 0.0), (5_000, 1.0), (5_001, 1.0)])
def test_an_event_enters_a_delayed_window_when_it_is_as_old_as_the_delay(
    at: int, count: float
) -> None:
    """A window is closed at its new end: exactly now − delay is in."""
    spec = spec_of({"card": {"count": {"windows": ["10s"], "delay": "5s"}}})
    assert run(spec, [Row("e1", 0), Row("e2", at)])[1] == {"card_count_10s_delay_5s": count}


@pytest.mark.parametrize(("at", "count"), [(14_999, 1.0), (15_000, 0.0), (15_001, 0.0)])
def test_an_event_leaves_a_delayed_window_at_size_plus_delay(at: int, count: float) -> None:
    """The old end of a delayed window is open, too."""
    spec = spec_of({"card": {"count": {"windows": ["10s"], "delay": "5s"}}})
    assert run(spec, [Row("e1", 0), Row("e2", at)])[1] == {"card_count_10s_delay_5s": count}


def test_a_tile_that_an_edge_of_the_window_cuts_counts_in_proportion() -> None:
    """Of an hour with four events a quarter is inside: one event; extremes count whole."""
    keys = ("count", "sum(amount)", "mean(amount)", "min(amount)")
    spec = spec_of({"card": {key: ["1d"] for key in keys}}, ring=1)
    hour, minute = 3_600_000, 60_000
    first = hour - START_MS % hour
    rows = [Row(f"e{i}", first + i * minute, amount=100) for i in range(4)]
    rows += [Row("f", first + 5 * hour, amount=200)]
    rows += [Row("g", first + 45 * minute - 1 + 24 * hour, amount=600)]
    assert list(run(spec, rows)[-1].values()) == [3.0, 9.0, 3.0, 1.0]


def test_a_late_event_is_read_at_the_now_of_its_entity() -> None:
    """Now never moves back: a late event sees what happened after it, and keeps its own place."""
    spec = spec_of({"card": {"count": ["10s"], "time_since_last": {}}})
    found = run(spec, [Row("e1", 0), Row("e2", 20_000), Row("e3", 5_000), Row("e4", 21_000)])
    assert [f["card_count_10s"] for f in found] == [1.0, 1.0, 1.0, 2.0]
    assert [f["card_time_since_last"] for f in found] == [-1.0, 20.0, 0.0, 1.0]


def test_without_the_current_event_equal_times_count() -> None:
    """`include_current: false` leaves out this event, not others of the same millisecond."""
    spec = spec_of({"card": {"sum(amount)": {"windows": ["10s"], "include_current": False}}})
    found = run(spec, [Row("e1", 0, amount=150), Row("e2", 0, amount=250), Row("e3", 0)])
    assert [f["card_sum_amount_10s_before"] for f in found] == [0.0, 1.5, 4.0]


def test_integer_sums_do_not_drift() -> None:
    """A million cents and a huge value that comes and goes leave no trace."""
    rows = [Row("huge", 0, amount=2**40)]
    rows += [Row(f"e{i}", 20_000 + i, amount=10) for i in range(30)]
    spec = spec_of({"card": {"sum(amount)": ["10s"], "std(amount)": ["10s"]}}, ring=4)
    assert run(spec, rows)[-1] == {"card_sum_amount_10s": 3.0, "card_std_amount_10s": 0.0}


def test_a_silence_beyond_the_memory_of_the_spec_starts_anew() -> None:
    """After `forget_ms` an entity is new, ids and tiles included; up to it, it is not."""
    spec = spec_of({"card": {"count": ["10s"]}}, ring=2)
    days30 = 30 * 86_400_000
    rows = [Row("e1", 0), Row("e2", 0), Row("e3", 0)]
    for at, repeated in ((days30, True), (days30 + 1, False)):
        _, duplicate = step(tables_of(spec), [*rows, Row("e3", at)])
        assert duplicate.tolist() == [False, False, False, repeated]
