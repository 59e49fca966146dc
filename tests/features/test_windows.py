"""Every windowed feature against a naive recomputation over the whole history, after each event."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.streams import (
    RESOLUTION,
    UNHURRIED,
    Entity,
    Row,
    exact,
    run,
    spec_of,
    step,
    streams,
    tables_of,
)
from worker.features.aggregations import AGGREGATIONS, Past
from worker.features.feature import Feature
from worker.features.spec import FeatureSpec, Window

WINDOWED = [name for name, kind in AGGREGATIONS.items() if kind.each == "windows"]


def all_aggregations(windows: list[str], **options: Any) -> dict[str, Any]:
    declared = {"windows": windows, **options}
    history: dict[str, Any] = {"time_since_last": {}}
    for name in WINDOWED:
        kind = AGGREGATIONS[name]
        fields = ("amount", "present") if kind.field_count else (None,)
        history |= {f"{name}({f})" if f else name: declared for f in fields}
    return history


SHAPES: dict[str, dict[str, Any]] = {
    "plain": all_aggregations(["10s", "1m", "1d"]),
    "delayed": all_aggregations(["10s", "1m"], delay="5s"),
    "before": all_aggregations(["10s", "1m", "1d"], include_current=False),
    "long delay": all_aggregations(["10s", "1d"], delay="1d", include_current=False),
}
SPECS: dict[tuple[str, int], FeatureSpec] = {
    (shape, ring): spec_of({"card": SHAPES[shape], "terminal": SHAPES[shape]}, ring)
    for shape in SHAPES
    for ring in (1, 2, 5, 40)
}


def checked(spec: FeatureSpec, ring: int, rows: list[Row], check: Callable[..., None]) -> None:
    """Process rows and call ``check(feature, value, entity, current row)`` for every feature."""
    X, duplicate = step(tables_of(spec), rows)
    entities = {name: {i: Entity() for i in ids} for name, ids in IDS.items()}
    for i, row in enumerate(rows):
        card = entities["card"][row.card]
        expected = row.id in [r.id for _, _, r in card.events[-ring:]]
        assert duplicate[i] == expected
        if expected:
            assert not X[i].any()
            continue
        own = {"card": card, "terminal": entities["terminal"][row.terminal]}
        for entity in own.values():
            entity.add(i, row)
        for feature, value in zip(spec.features, X[i].tolist(), strict=True):
            check(feature, value, own[feature.entity or ""], row)


IDS = {"card": "ab", "terminal": "xy"}


def bounds(feature: Feature, entity: Entity) -> tuple[int, int]:
    assert feature.window_ms is not None
    end = entity.now - feature.delay_ms
    return end - feature.window_ms, end


def assert_exact(feature: Feature, value: float, entity: Entity, row: Row) -> None:
    if feature.aggregation == "time_since_last":
        assert value == (-1.0 if entity.before < 0 else (entity.now - entity.before) / 1000)
        return
    leave_out = None if feature.include_current else row
    truth = exact(
        feature.aggregation, feature.field, entity.within(*bounds(feature, entity), leave_out)
    )
    if feature.aggregation == "std":
        assert math.isclose(value, truth, rel_tol=2e-15), (feature.name, value, truth)
    else:
        assert value == truth, feature.name


def assert_within_bound(
    ring: int, feature: Feature, value: float, entity: Entity, row: Row
) -> None:
    """Exact where the ring covers the window; else off by no more than the tiles that it cuts."""
    leave_out = None if feature.include_current else row
    if feature.window_ms is None:
        assert_exact(feature, value, entity, row)
        return
    start, end = bounds(feature, entity)
    # Features without the current event are read before it pushes another out of the ring.
    if start >= entity.ring_start(ring, leave_out):
        assert_exact(feature, value, entity, row)
        return
    tile_ms = Window(True, feature.delay_ms, feature.window_ms).tile_ms
    cut = [
        r
        for _, _, r in entity.events
        if r is not leave_out and is_cut(r.time_ms, start, end, tile_ms)
    ]
    inside = entity.within(start, end, leave_out)
    wide = inside + [r for r in cut if r not in inside]
    near(feature, value, inside, cut, wide)


def is_cut(t: int, start: int, end: int, tile_ms: int) -> bool:
    """Return whether an edge of (start, end] lies in the tile of an event at t."""
    first = t // tile_ms * tile_ms
    return first <= start < first + tile_ms or first <= end < first + tile_ms


def near(
    feature: Feature, value: float, inside: list[Row], cut: list[Row], wide: list[Row]
) -> None:
    kind = feature.aggregation
    if kind == "count":
        assert len([r for r in inside if r not in cut]) <= value + 1e-9
        assert value <= len(wide) + 1e-9
        return
    values = [
        float(getattr(r, feature.field or "") * RESOLUTION[feature.field or ""]) for r in wide
    ]
    spread = (max(values) - min(values)) if values else 0.0
    truth = exact(kind, feature.field, inside)
    slack = 1e-9 * (1.0 + max(map(abs, values), default=0.0))
    if kind == "sum":
        uncertain = exact("sum", feature.field, [r for r in cut if r not in inside])
        most = sum(
            abs(float(getattr(r, feature.field or "") * RESOLUTION[feature.field or ""]))
            for r in cut
        )
        assert abs(value - truth) <= most + slack, uncertain
    elif kind == "std":
        assert abs(value - truth) <= spread + slack
    elif not wide:
        assert value == 0.0
    else:
        assert min(values) - slack <= value <= max(values) + slack
        if kind == "min" and inside:
            assert value <= truth
        if kind == "max" and inside:
            assert value >= truth


@pytest.mark.parametrize("shape", SHAPES)
@UNHURRIED
@given(rows=streams())
def test_a_ring_that_covers_all_windows_reads_exactly(shape: str, rows: list[Row]) -> None:
    """Every aggregation equals exact arithmetic over the whole history, after every event."""
    checked(SPECS[shape, 40], 40, rows, assert_exact)


@pytest.mark.parametrize("shape", SHAPES)
@UNHURRIED
@given(rows=streams(), ring=st.sampled_from((1, 2, 5)))
def test_a_small_ring_stays_within_the_stated_bound(shape: str, ring: int, rows: list[Row]) -> None:
    """Exact where the ring covers the window, otherwise wrong by at most the tiles at its edges."""
    spec = SPECS[shape, ring]
    checked(spec, ring, rows, lambda *words: assert_within_bound(ring, *words))


@pytest.mark.parametrize("name", WINDOWED)
@UNHURRIED
@given(units=st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=40))
def test_each_aggregation_equals_its_own_definition(name: str, units: list[int]) -> None:
    """The kernel and the class's `of` agree; aggregations are found, not listed."""
    declared = f"{name}(amount)" if AGGREGATIONS[name].field_count else name
    rows = [Row(f"e{i}", i, amount=u) for i, u in enumerate(units)]
    found = run(spec_of({"card": {declared: ["1d"]}}, 64), rows)
    for i, features in enumerate(found):
        expected = AGGREGATIONS[name].of(Past([u / 100 for u in units[: i + 1]]))
        (value,) = features.values()
        assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)


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
