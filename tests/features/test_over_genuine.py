"""Comparisons with events known to be genuine, against a recomputation from all that was told."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.label_streams import (
    Stream,
    Told,
    label_settings,
    label_spec,
    labelled_streams,
    run,
)
from tests.features.streams import UNHURRIED, Row, settings_of, tables_of
from tests.features.test_label_features import inside, seen_by
from worker.errors import ConfigError
from worker.features.aggregations import AGGREGATIONS, Past
from worker.features.feature import Feature
from worker.features.spec import compile_features
from worker.features.standing import COMPARES, Standing

FIELDS = {"amount": 100, "items": 1}
SIZES = {"windows": ["10s", "1m", "1d"], "over": "genuine"}
COMPARISONS = [name for name, kind in AGGREGATIONS.items() if "over" in kind.options]


def declared(**options: Any) -> dict[str, Any]:
    """Return every aggregation that may be over genuine events, of two fields; new ones too."""
    return {
        f"{name}({field})": {k: v for k, v in {**SIZES, **options}.items() if fits(name, k)}
        for name in COMPARISONS
        for field in FIELDS
    }


def fits(name: str, option: str) -> bool:
    return option == "windows" or option in AGGREGATIONS[name].options


SHAPES = {"plain": declared(), "late": declared(delay="5s"), "robust": declared(robust=True)}
SPECS = {
    (shape, ring): label_spec({"card": SHAPES[shape], "terminal": SHAPES[shape]}, ring)
    for shape in SHAPES
    for ring in (2, 64)
}


@pytest.mark.parametrize("shape", SHAPES)
@UNHURRIED
@given(stream=labelled_streams())
def test_it_compares_with_the_genuine_events_of_the_window(
    shape: str, stream: tuple[list[Row], list[Told]]
) -> None:
    """Of those told so far: revised ones as last told, unlabelled ones and frauds left out."""
    rows, told = stream
    spec = SPECS[shape, 64]
    X, duplicate, _ = run(spec, rows, told)
    for i in range(len(rows)):
        for feature, value in zip(spec.features, X[i].tolist(), strict=True):
            if not duplicate[i]:
                seen = seen_by(feature.entity or "", i, rows, told, duplicate)
                keep = inside(feature, seen)
                genuine = [row for t, _, y, row in seen.truths if y == 0 and keep(t)]
                check(feature, value, rows[i], genuine)


def check(feature: Feature, value: float, own: Row, genuine: list[Row]) -> None:
    kind, name = AGGREGATIONS[feature.aggregation], feature.field or ""

    def of(row: Row) -> float | None:
        units = getattr(row, name)
        return None if units is None else units / FIELDS[name]

    past = Past([of(row) for row in genuine], own=of(own), options=feature.options)
    truth = kind.of(past)
    if feature.aggregation == "rank":
        past = Past([getattr(row, name) for row in genuine], own=getattr(own, name))
        truth = kind.of(past)
    assert math.isclose(value, truth, rel_tol=1e-7, abs_tol=1e-7), (feature.name, value, truth)


@UNHURRIED
@given(
    stream=labelled_streams(),
    ring=st.sampled_from((2, 64)),
    cuts=st.lists(st.integers(1, 9), min_size=1),
)
def test_cuts_and_reloading_change_nothing(
    stream: tuple[list[Row], list[Told]], ring: int, cuts: list[int]
) -> None:
    """Batches of any size through a store, memory bounded to one entity: same x, same blobs."""
    rows, told = stream
    X, _, blobs = run(SPECS["plain", ring], rows, told)
    cut = Stream(tables_of(SPECS["plain", ring], entities_max=1), rows, told)
    found: list[list[float]] = []
    while cut.at < len(rows):
        size = cuts[len(found) % len(cuts)]
        found += cut.step(min(size, len(rows) - cut.at))[0].tolist()
        cut.flush()
    assert found == X.tolist()
    assert cut.store == blobs


def test_a_fraud_does_not_teach_what_is_usual() -> None:
    """100 is ten times the genuine 10; the stolen 1,000 between is not in the mean."""
    spec = label_spec({"card": {"ratio(amount)": [{"windows": ["1d"], "over": "genuine"}, "1d"]}})
    rows = [Row("e1", 0, amount=1_000), Row("e2", 1, amount=100_000), Row("e3", 2, amount=10_000)]
    X, _, _ = run(spec, rows, [Told(1, 0, 0), Told(2, 1, 1)])
    found = dict(zip(spec.names, X[2].tolist(), strict=True))
    assert found == {
        "card_ratio_amount_1d_genuine": 10.0, "card_ratio_amount_1d": 10_000 / 50_500,
    }  # fmt: skip
    assert spec.features[0].words.endswith(", of events known to be genuine")


def test_what_the_ring_lost_is_compared_with_too() -> None:
    """In tiles that lie inside the window, moments are exact, also of a truth that was revised."""
    sizes = {"windows": ["1d"], "over": "genuine"}
    spec = label_spec({"card": {"zscore(amount)": sizes, "ratio(amount)": sizes}}, ring=2)
    amounts = [300, 2**31, 500, 900, 700, 1_300, 4_100]
    rows = [Row(f"e{i}", 3_600_000 * i, amount=v) for i, v in enumerate(amounts)]
    told = [*(Told(6, i, 0) for i in range(6)), Told(6, 1, 1), Told(6, 3, 1), Told(6, 3, 0)]
    z, ratio = run(spec, rows, told)[0][-1].tolist()
    genuine = [v for i, v in enumerate(amounts[:6]) if i != 1]
    assert math.isclose(z, (4_100 - mean(genuine)) / stdev(genuine), rel_tol=1e-12)
    assert math.isclose(ratio, 4_100 / mean(genuine), rel_tol=1e-12)


def test_a_reader_leaves_it_out() -> None:
    """There is no event to compare."""
    features = {"card": {"zscore(amount)": SIZES, "count": ["1d"]}}
    standing = Standing(label_settings(features), label_spec(features))
    assert standing.names("card") == ("card_count_1d",)
    assert set(standing.left_out("card").values()) == {COMPARES}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"windows": ["1d"], "over": "fraud"}, "all or genuine"),
        ({"over": "genuine"}, "windows"),
        ({"windows": ["1d"], "over": "genuine", "where": "$items > 1"}, "neither where"),
        ({"windows": ["1d"], "over": "genuine", "include_current": True}, "neither where"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], said: str) -> None:
    """One problem each."""
    with pytest.raises(ConfigError) as caught:
        label_spec({"card": {"ratio(amount)": options}})
    (problem,) = caught.value.problems
    assert problem.expected.startswith(said)


def test_it_needs_labels() -> None:
    """Nothing would ever be known."""
    with pytest.raises(ConfigError) as caught:
        compile_features(settings_of({"card": {"ratio(amount)": SIZES}}))
    assert caught.value.problems[0].expected.startswith("a labels section")
