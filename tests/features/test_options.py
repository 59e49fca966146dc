"""What stands after an aggregation: every wrong option is a problem at its place, and only that."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.features.streams import Row, run, spec_of
from tests.features.test_spec import problems_of
from worker.features.aggregations.labels import LABEL_AGGREGATIONS

CONDITION = "a condition on the event, such as $amount > 100"
DURATION = "a duration such as 10m or 7d"
DURATIONS = "a list of durations such as [1d, 7d]"
COUNT = "a number of events from 1 to the ring's 32"
COUNTS = "a list of numbers of events such as [3, 10]"
SPREADS = "a number of spreads above 0"
KNOWN = "one of windows, delay, include_current, where"
WRONG: list[tuple[str, Any, tuple[str | int, ...], str]] = [
    ("count", {"windows": "1d", "where": 7}, ("where",), CONDITION),
    ("count", {"windows": "1d", "where": "$amount + 1"}, ("where",), CONDITION),
    ("count", {"windows": "1d", "where": "$amuont > 1"}, ("where",), "a declared field"),
    ("count", [{"windows": "1d"}, {"windows": "2d", "where": []}], (1, "where"), CONDITION),
    ("geo_speed(latitude, longitude)", {"where": True}, ("where",), CONDITION),
    ("mean_last(amount)", 0, (), COUNT),
    ("mean_last(amount)", [3, 33], (1,), COUNT),
    ("mean_last(amount)", [True], (0,), COUNT),
    ("mean_last(amount)", "3", (), COUNTS),
    ("mean_last(amount)", {"last": "3d"}, ("last",), COUNTS),
    ("outliers_last(amount)", {"last": -1}, ("last",), COUNT),
    ("outliers(amount)", {"windows": "1d", "beyond": 0}, ("beyond",), SPREADS),
    ("outliers(amount)", {"windows": "1d", "beyond": True}, ("beyond",), SPREADS),
    ("outliers(amount)", {"windows": "1d", "beyond": "3"}, ("beyond",), SPREADS),
    ("outliers(amount)", {"windows": "1d", "beyond": float("nan")}, ("beyond",), SPREADS),
    ("decayed_rate", "1 fortnight", (), DURATION),
    ("decayed_rate", {"half_life": ["1d", 7]}, ("half_life", 1), DURATION),
    ("decayed_mean(amount)", {"half_life": []}, ("half_life",), DURATIONS),
    ("decayed_mean(amount)", {}, (), DURATIONS),
    ("streak", {"gap": -1}, ("gap",), DURATIONS),
    ("streak", {"gap": "0s"}, ("gap",), "a duration of more than 0, such as 10m or 7d"),
    ("streak", {"gap": ["1m", "60s"]}, ("gap", 1), "each window once"),
    ("mean(amount)", {"windows": "1d", "gap": "1s"}, ("gap",), KNOWN),
    ("mean(amount)", {"windows": "1d", "half_life": "1s"}, ("half_life",), KNOWN),
    ("mean(amount)", {"windows": "1d", "last": 3}, ("last",), KNOWN),
    ("mean(amount)", {"windows": "1d", "beyond": 3}, ("beyond",), KNOWN),
]


@pytest.mark.parametrize(("name", "value", "place", "expected"), WRONG)
def test_a_wrong_option_is_one_problem_at_its_place(
    name: str, value: Any, place: tuple[str | int, ...], expected: str
) -> None:
    """With what was expected there; nothing else is complained about."""
    found = problems_of({"card": {name: value}})
    path = ("features", "card", name, *place)
    assert [(p.path, p.expected.partition(" between")[0]) for p in found] == [(path, expected)]


@pytest.mark.parametrize("name", LABEL_AGGREGATIONS)
def test_a_label_aggregate_without_labels_is_a_mistake(name: str) -> None:
    """Each says what section is missing, and how it is written."""
    each = LABEL_AGGREGATIONS[name].each
    (found,) = problems_of({"card": {name: ["1d"] if each == "windows" else {}}})
    assert found.path == ("features", "card", name)
    assert found.expected.startswith("a labels section")
    assert found.hint.startswith("labels: {}")


def test_a_distance_with_a_filter_is_from_the_last_event_that_passes_it() -> None:
    """An event that does not pass has none, and the next one is not measured from it."""
    spec = spec_of({"card": {"geo_distance(latitude, longitude)": {"where": "$amount > 1"}}})
    rows = [
        Row("e1", 0, amount=500, latitude=0.0, longitude=0.0),
        Row("e2", 1, amount=50, latitude=50.0, longitude=0.0),
        Row("e3", 2, amount=500, latitude=1.0, longitude=0.0),
    ]
    first, filtered, third = [next(iter(f.values())) for f in run(spec, rows)]
    assert (first, filtered) == (0.0, 0.0)
    assert math.isclose(third, 111.195, rel_tol=1e-5)  # a degree of a meridian
