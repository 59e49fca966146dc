"""Label aggregates against a recomputation from all that was told, and that order means nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.label_streams import (
    PASSES,
    Stream,
    Told,
    fresh,
    label_spec,
    labelled_streams,
    run,
    score_of,
)
from tests.features.streams import UNHURRIED, Row, tables_of
from worker.features.aggregations.labels import LABEL_AGGREGATIONS, Known, Truth
from worker.features.entity import Window
from worker.features.feature import Feature
from worker.features.spec import FeatureSpec

WEIGHTS = ("score", "1 - score", "$amount")


def declared(windows: list[str], **options: Any) -> dict[str, Any]:
    """Return every label aggregate; new ones are found."""
    found: dict[str, Any] = {}
    for name, kind in LABEL_AGGREGATIONS.items():
        fits = {k: v for k, v in options.items() if k in kind.options}
        found[name] = {"windows": windows, **fits} if kind.each == "windows" else fits
    return found


SHAPES: dict[str, dict[str, Any]] = {
    "plain": declared(["10s", "1m", "1d"]),
    "delayed": declared(["10s", "1m"], delay="5s", prior=0.01, strength=20),
    "late": declared(["1d"], delay="1d", include_current=False),
    "filtered": declared(["10s", "1d"], where="$items > 0"),
    "both": declared(["1m", "1d"], where="$items > 0", weight="$amount", strength=2),
    **{weight: declared(["1m", "1d"], weight=weight, strength=2) for weight in WEIGHTS},
}
SPECS: dict[tuple[str, int], FeatureSpec] = {
    (shape, ring): label_spec({"card": SHAPES[shape], "terminal": SHAPES[shape]}, ring)
    for shape in SHAPES
    for ring in (1, 2, 4, 64)
}


@dataclass
class Seen:
    """What one event's entity has seen when the event is read."""

    now_ms: int
    events: list[Row]  # this one included, duplicates left out
    current: Row
    truths: list[tuple[int, str, int, Row]]  # (time, id, y, row) in the order of the ring

    def known(self, feature: Feature, keep: Callable[[int], bool]) -> Known:
        """Return the part of it whose times ``keep`` takes."""
        weigh, passes = weight_of(feature.name), PASSES.get(feature.options.where, lambda row: True)
        here = [r for r in self.events if feature.include_current or r is not self.current]
        return Known(
            [Truth(t, y, weigh(row)) for t, _, y, row in self.truths if keep(t) and passes(row)],
            self.now_ms,
            sum(keep(row.time_ms) and passes(row) for row in here),
            *((0.01, 20.0) if "delay_5s" in feature.name else (0.0, strength_of(feature.name))),
        )


def weight_of(name: str) -> Callable[[Row], Any]:
    def score(row: Row) -> Fraction:
        return Fraction(score_of(row) or 0, 10**6)

    def rest(row: Row) -> Fraction:
        return Fraction(0) if score_of(row) is None else 1 - score(row)

    if "_by_1_less_score" in name:
        return rest
    if "_by_score" in name:
        return score
    return lambda row: Fraction(row.amount or 0, 100) if "_by_amount" in name else 1


def strength_of(name: str) -> float:
    return 2.0 if "_by_" in name else 0.0


def checked(
    spec: FeatureSpec,
    rows: list[Row],
    told: list[Told],
    check: Callable[[Feature, float, Seen], None],
) -> None:
    """Call ``check`` for every label feature of every event, with what its entity has seen."""
    X, duplicate, _ = run(spec, rows, told)
    for i in range(len(rows)):
        if duplicate[i]:
            assert not X[i].any()
            continue
        for feature, value in zip(spec.features, X[i].tolist(), strict=True):
            check(feature, value, seen_by(feature.entity or "", i, rows, told, duplicate))


def seen_by(entity: str, i: int, rows: list[Row], told: list[Told], duplicate: np.ndarray) -> Seen:
    def mine(n: int) -> bool:
        return getattr(rows[n], entity) == getattr(rows[i], entity)

    events = [rows[n] for n in range(i + 1) if mine(n) and not duplicate[n]]
    known = {t.row: t.y for t in told if t.at <= i and mine(t.row)}
    truths = [(rows[n].time_ms, rows[n].id, y, rows[n]) for n, y in known.items()]
    truths.sort(key=lambda t: (t[0], hash_order(t[1])))
    return Seen(max(row.time_ms for row in events), events, rows[i], truths)


def hash_order(id_: str) -> int:
    """Return the hash that `events_of` gives an id, signed as in the ring."""
    return int.from_bytes(id_.encode().rjust(8, b"\xff")[-8:], "big", signed=True)


def inside(feature: Feature, seen: Seen) -> Callable[[int], bool]:
    if feature.window_ms is None:
        return lambda t: True
    end = seen.now_ms - feature.delay_ms
    start = end - feature.window_ms
    return lambda t: start < t <= end


def assert_exact(feature: Feature, value: float, seen: Seen) -> None:
    kind = LABEL_AGGREGATIONS[feature.aggregation]
    truth = kind.of_known(seen.known(feature, inside(feature, seen)))
    assert math.isclose(value, truth, rel_tol=1e-12, abs_tol=1e-12), (feature.name, value, truth)


def assert_within_bound(ring: int, feature: Feature, value: float, seen: Seen) -> None:
    kind = LABEL_AGGREGATIONS[feature.aggregation]
    if feature.window_ms is None:
        assert_exact(feature, value, replace(seen, truths=seen.truths[-ring:]))
        return
    end = seen.now_ms - feature.delay_ms
    start = end - feature.window_ms
    lost = [t for t, *_ in seen.truths[:-ring]] if len(seen.truths) > ring else []
    lost += sorted(row.time_ms for row in seen.events)[:-ring]
    if not any(t > start for t in lost):
        assert_exact(feature, value, seen)
        return
    tile_ms = Window(True, feature.delay_ms, feature.window_ms).tile_ms
    is_inside = inside(feature, seen)
    sure = seen.known(feature, lambda t: is_inside(t) and not is_cut(t, start, end, tile_ms))
    wide = seen.known(feature, lambda t: is_inside(t) or is_cut(t, start, end, tile_ms))
    low, high = kind.bounds_of(sure, wide, tile_ms)
    assert low - 1e-9 * (1 + abs(low)) <= value, (feature.name, value, low)
    assert value <= high + 1e-9 * (1 + abs(high)), (feature.name, value, high)


def is_cut(t: int, start: int, end: int, tile_ms: int) -> bool:
    """Return whether an edge of (start, end] lies in the tile of an event at t."""
    first = t // tile_ms * tile_ms
    return first <= start < first + tile_ms or first <= end < first + tile_ms


@pytest.mark.parametrize("shape", SHAPES)
@UNHURRIED
@given(stream=labelled_streams())
def test_a_ring_that_holds_all_labelled_events_reads_exactly(
    shape: str, stream: tuple[list[Row], list[Told]]
) -> None:
    """Every label aggregate equals its definition over all that was told before, at each event."""
    checked(SPECS[shape, 64], *stream, assert_exact)


@pytest.mark.parametrize("shape", SHAPES)
@UNHURRIED
@given(stream=labelled_streams(), ring=st.sampled_from((1, 2, 4)))
def test_a_small_ring_stays_within_the_stated_bound(
    shape: str, stream: tuple[list[Row], list[Told]], ring: int
) -> None:
    """Runs see the newest N labelled events; sums are off by no more than the tiles they cut."""
    checked(SPECS[shape, ring], *stream, lambda *words: assert_within_bound(ring, *words))


def test_the_bound_of_an_age_knows_frauds_at_both_edges_of_the_window() -> None:
    """The tile cut by the start is read, that cut by the end is not: the oldest fraud is meant."""
    rows = [Row(f"e{i}", at) for i, at in enumerate((0, 86_400_000, 86_400_001, 172_799_999))]
    seen: list[float] = []

    def check(feature: Feature, value: float, what: Seen) -> None:
        assert_within_bound(1, feature, value, what)
        if "since_last" in feature.name and what.current is rows[3]:
            seen.append(value)

    checked(SPECS["late", 1], rows, [Told(3, 0, 1), Told(3, 1, 1)], check)
    assert seen == [172_799.999] * 2  # of the card, and of the terminal


@UNHURRIED
@given(
    stream=labelled_streams(),
    ring=st.sampled_from((1, 2, 4)),
    cuts=st.lists(st.integers(1, 9), min_size=1),
)
def test_cuts_and_reloading_change_nothing(
    stream: tuple[list[Row], list[Told]], ring: int, cuts: list[int]
) -> None:
    """Batches of any size through a store, memory bounded to one entity: same x, same blobs."""
    rows, told = stream
    spec = SPECS["plain", ring]
    X, _, blobs = run(spec, rows, told)
    cut = Stream(tables_of(spec, entities_max=1), rows, told)
    found = []
    while cut.at < len(rows):
        found.append(cut.step(min(cuts[len(found) % len(cuts)], len(rows) - cut.at))[0])
        cut.flush()
    assert np.array_equal(np.concatenate(found), X)
    assert cut.store == blobs


@UNHURRIED
@given(stream=labelled_streams(), ring=st.sampled_from((1, 2, 4, 64)), data=st.data())
def test_only_what_is_known_in_the_end_is_kept(
    stream: tuple[list[Row], list[Told]], ring: int, data: st.DataObject
) -> None:
    """Told as it came, all after the events, or only the last word in any order: same blobs."""
    rows, told = stream
    spec = SPECS["plain", ring]
    blobs = run(spec, rows, told)[2]
    after = [replace(t, at=len(rows)) for t in told]
    assert run(spec, rows, after)[2] == blobs
    last = list({t.row: t for t in after}.values())
    assert run(spec, rows, data.draw(st.permutations(last)))[2] == blobs


@UNHURRIED
@given(stream=labelled_streams(), ring=st.sampled_from((2, 64)), data=st.data())
def test_a_label_changes_nothing_before_its_position(
    stream: tuple[list[Row], list[Told]], ring: int, data: st.DataObject
) -> None:
    """Another truth, or none, leaves every x before it as it was."""
    rows, told = stream
    if not told:
        return
    spec = SPECS["plain", ring]
    j = data.draw(st.integers(0, len(told) - 1))
    other = [*told[:j], replace(told[j], y=1 - told[j].y), *told[j + 1 :]]
    X, _, _ = run(spec, rows, told)
    for changed in (fresh(other), fresh([*told[:j], *told[j + 1 :]])):
        assert np.array_equal(run(spec, rows, changed)[0][: told[j].at], X[: told[j].at])


def features_of(spec: FeatureSpec, rows: list[Row], told: list[Told]) -> dict[str, float]:
    """Return the features of the last event."""
    return dict(zip(spec.names, run(spec, rows, told)[0][-1].tolist(), strict=True))


@pytest.mark.parametrize(("at", "rate"), [(5_999, 0.0), (6_000, 1.0), (15_999, 1.0), (16_000, 0.0)])
def test_a_fraud_is_in_the_window_by_the_time_of_its_event(at: int, rate: float) -> None:
    """(now − delay − size, now − delay]: not by when it was told, and closed at the new end."""
    spec = label_spec({"card": {"fraud_rate": {"windows": ["10s"], "delay": "5s"}}})
    rows = [Row("e1", 1_000), Row("e2", at)]
    found = features_of(spec, rows, [Told(1, 0, 1)])
    assert found == {"card_fraud_rate_10s_delay_5s": rate}


def test_a_revised_label_counts_once() -> None:
    """Fraud, then genuine, then fraud again; in the ring and in a tile."""
    rows = [Row(f"e{i}", 1_000 * i) for i in range(6)]
    for ring in (1, 64):
        spec = label_spec({"card": {"frauds": ["1d"], "genuine_count": ["1d"]}}, ring)
        told = [Told(5, i, y) for y in (1, 0, 1) for i in range(4)]
        assert features_of(spec, rows, told[:4])["card_frauds_1d"] == 4.0
        assert features_of(spec, rows, told[:8])["card_frauds_1d"] == 0.0
        assert features_of(spec, rows, told)["card_frauds_1d"] == 4.0
        assert features_of(spec, rows, told)["card_genuine_count_1d"] == 0.0


@pytest.mark.parametrize(("key", "y"), [("frauds", 1), ("clean_run", 0)])
def test_an_entity_of_which_nothing_else_is_asked_has_a_now(key: str, y: int) -> None:
    """A terminal with no feature of what happened still reads what became known."""
    spec = label_spec({"terminal": {key: ["1d"] if key == "frauds" else {}}}, 4)
    rows = [Row(f"e{i}", 1_000 * i) for i in range(3)]
    assert list(features_of(spec, rows, [Told(2, 0, y)]).values()) == [1.0]


def test_an_unlabelled_entity_has_the_stated_defaults() -> None:
    """Each aggregate's ``empty``."""
    spec = SPECS["plain", 64]
    found = run(spec, [Row("e1")], [])[0][0].tolist()
    assert found == [LABEL_AGGREGATIONS[f.aggregation].empty for f in spec.features]
