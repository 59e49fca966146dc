"""Reasons name what is unusual about an event, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worlds import settings as world
from worker.features.spec import compile_features
from worker.models.reasons import FeatureStatistics, reasons_for, typical_values
from worker.testing import Driver

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@dataclass(frozen=True)
class Feature:
    name: str
    aggregation: str
    words: str
    entity: str | None = None
    field: str | None = None
    window_ms: int | None = None
    delay_ms: int = 0
    typical: int | None = None
    typical_count: int | None = None


FEATURES = (
    Feature("amount", "field", "amount", None, "amount", typical=1),
    Feature("amount_mean_7d", "mean", "mean amount of this card over 7 d", "card", "amount",
            7 * DAY_MS),
    Feature("n_1h", "count", "transactions of this card in 1 h", "card", None, HOUR_MS),
    Feature("gap", "time_since_last", "time since the last transaction of this card", "card"),
    Feature("hour", "hour", "hour of the day"),
    Feature("constant", "count", "transactions of this terminal in 1 h", "terminal"),
)  # fmt: skip
USUAL = np.array([60.0, 65.1, 3.1, 40_000.0, 13.0, 1.0])
SPREAD = np.array([50.0, 30.0, 5.365, 8_000.0, 5.0, 0.0])


def reasons(x: np.ndarray, count: int = 1_000, reasons_max: int = 5) -> list:
    return reasons_for(FEATURES, x, USUAL, SPREAD, count, reasons_max)


def with_value(column: int, value: float) -> np.ndarray:
    x = USUAL.copy()
    x[0] = 65.1  # exactly this card's mean
    x[column] = value
    return x


def test_an_amount_is_compared_with_this_cards_own_mean() -> None:
    """The text tells how many times the card's mean; the distance is in spreads of all events."""
    [reason, *_] = reasons(with_value(0, 912.4))
    assert reason.text == "amount 912.40 is 14.0 times this card's mean of 65.10 over 7 d"
    assert (reason.feature, reason.value, reason.typical) == ("amount", 912.4, 65.1)
    assert reason.contribution == (912.4 - 65.1) / 50.0


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (0, 3.0, "amount 3.00 is 0.046 times this card's mean of 65.10 over 7 d"),
        (0, -40.0, "amount -40.00 is 105.10 below this card's mean of 65.10 over 7 d"),
        (2, 31.0, "transactions of this card in 1 h: 31 is 5.2 standard deviations above the usual "
                  "3.1"),
        (3, 120.0, "time since the last transaction of this card: 2 min is 5.0 standard deviations "
                   "below the usual 11.1 h"),
        (4, 3.0, "hour of the day: 3 is 2.0 standard deviations below the usual 13"),
    ],
)  # fmt: skip
def test_the_text_is_in_words_and_units(column: int, value: float, text: str) -> None:
    """Counts have no decimals, amounts two, times a readable unit."""
    assert reasons(with_value(column, value))[0].text == text


@pytest.mark.parametrize("own", [0.0, math.nan, math.inf])
def test_a_card_without_history_is_compared_with_all_events(own: float) -> None:
    """A mean of nothing is not typical of anything."""
    x = with_value(0, 912.4)
    x[1] = own
    reason = next(r for r in reasons(x) if r.feature == "amount")
    assert reason.typical == 60.0
    assert reason.text.endswith("17.0 standard deviations above the usual 60.00")


COUNTED = (
    replace(FEATURES[0], typical_count=2),
    FEATURES[1],
    replace(FEATURES[2], name="n_7d", window_ms=7 * DAY_MS),
)


def counted(value: float, mean: float, count: float) -> Any:
    x = np.array([value, mean, count])
    found = reasons_for(COUNTED, x, USUAL[:3], SPREAD[:3], 1_000, 5)
    reason = next(r for r in found if r.feature == "amount")
    assert typical_values(COUNTED, x[None], USUAL[None, :3])[0, 0] == reason.typical
    return reason


def test_the_event_is_taken_out_of_the_mean_that_it_is_part_of() -> None:
    """Amounts of 50, 50 and 950: before the last one the card's mean was 50."""
    reason = counted(950.0, 350.0, 3.0)
    assert reason.text == "amount 950.00 is 19.0 times this card's mean of 50.00 over 7 d"
    assert (reason.typical, reason.contribution) == (50.0, (950.0 - 50.0) / 50.0)


@pytest.mark.parametrize(
    ("mean", "count"), [(912.4, 1.0), (0.0, 0.0), (912.4, 0.0), (456.2, 2.0), (100.0, 4.0)]
)
def test_with_nothing_before_it_an_event_is_compared_with_all_events(
    mean: float, count: float
) -> None:
    """A card's first event, or one after others of zero or less, has no mean of its own."""
    reason = counted(912.4, mean, count)
    assert reason.typical == 60.0
    assert reason.text.endswith("17.0 standard deviations above the usual 60.00")


def test_rounding_does_not_make_a_mean_of_nothing() -> None:
    """Three equal parts of an amount leave no more than a rounding error for the others."""
    value = 1000.01
    mean = value / 3.0
    assert counted(value, mean + 1e-13, 3.0).typical == 60.0


def test_a_mean_that_ended_earlier_says_so() -> None:
    """It is what the card did a week ago, not what it did lately."""
    words = (FEATURES[0], replace(FEATURES[1], delay_ms=7 * DAY_MS), FEATURES[2])
    x = np.array([912.4, 65.1, 3.0])
    [reason, *_] = reasons_for(words, x, USUAL[:3], SPREAD[:3], 1_000, 5)
    said = "amount 912.40 is 14.0 times this card's mean of 65.10 over 7 d, which ended 7 d ago"
    assert reason.text == said


def test_a_worker_holds_an_amount_against_what_its_card_did_before() -> None:
    """From the declared features to x: the mean of all events but this one, exactly."""
    config = world(
        features={"amount": "$amount", "card": {"mean(amount)": ["1d"], "count": ["1d"]}}
    )
    words, driver = compile_features(config).features, Driver(config)
    usual = []
    for i, amount in enumerate([50.0, 50.0, 950.0, 0.01]):
        event = {"id": f"e{i}", "card": "c", "terminal": "t", "at": 1_000 * i, "amount": amount}
        x = np.array([list(driver.send(event).features.values())])
        usual.append(float(typical_values(words, x, np.full((1, 3), -1.0))[0, 0]))
    assert usual == [-1.0, 50.0, 50.0, 350.0]


def test_the_largest_distance_is_first_and_five_are_enough() -> None:
    """Order is by distance, whatever its sign; no more come than were asked for."""
    x = np.array([465.1, 65.1, 30.0, -20_000.0, 23.0, 1.0])
    names = [reason.feature for reason in reasons(x)]
    assert names == ["amount", "gap", "n_1h", "hour"]
    assert [r.feature for r in reasons(x, reasons_max=2)] == names[:2]
    assert reasons(x, reasons_max=0) == []


def test_ties_keep_the_order_of_the_features() -> None:
    """Equal distances give one order in every run."""
    pair = (Feature("b", "count", "b"), Feature("a", "count", "a"))
    found = reasons_for(pair, np.array([3.0, -3.0]), np.zeros(2), np.ones(2), 99, 5)
    assert [reason.feature for reason in found] == ["b", "a"]


@pytest.mark.parametrize(("count", "some"), [(29, False), (30, True)])
def test_nothing_is_usual_before_30_events(count: int, some: bool) -> None:
    """With 29 observations the one reason says that nothing is known, with 30 there are others."""
    found = reasons(with_value(2, 31.0), count=count)
    assert any(reason.contribution != 0.0 for reason in found) is some
    assert any("too few events" in reason.text for reason in found) is not some


def test_what_never_varied_and_what_is_not_a_number_are_no_reasons() -> None:
    """A feature without spread has no distance, nor has NaN."""
    x = with_value(5, 900.0)
    x[3] = math.nan
    assert all(r.feature not in ("constant", "gap") for r in reasons(x))


def test_small_distances_are_told_only_where_there_is_nothing_else() -> None:
    """Below one spread only the largest is a reason, and an event at the mean has none."""
    x = with_value(4, 14.0)
    x[2] = 5.0
    assert [reason.feature for reason in reasons(x)] == ["n_1h"]
    (only,) = reasons(with_value(4, 13.0))
    assert (only.contribution, "nothing about it is unusual" in only.text) == (0.0, True)


@pytest.mark.parametrize("column", [0, 2, 3, 4])
def test_a_planted_anomaly_is_found_first(column: int) -> None:
    """In a stream of usual events, the one with a strange value is explained by that feature."""
    rng = np.random.default_rng(column)
    X = USUAL + rng.normal(size=(500, 6)) * np.where(SPREAD > 0, 0.3, 0.0) * SPREAD
    X[400, column] += 12.0 * SPREAD[column]
    seen = FeatureStatistics(6).update(X, np.array([400]))
    found = reasons_for(FEATURES, X[400], seen.mean[0], seen.std[0], int(seen.count[0]), 5)
    assert found[0].feature == FEATURES[column].name


@given(st.lists(st.floats(-1e30, 1e30), min_size=6, max_size=6))
def test_every_reason_can_be_recomputed(values: list[float]) -> None:
    """Value, typical and distance of each reason come from the event and the statistics alone."""
    x = np.array(values)
    names = [feature.name for feature in FEATURES]
    for reason in reasons(x):
        i = names.index(reason.feature)
        is_own = i == 0 and x[1] > 0.0
        assert reason.value == x[i]
        assert reason.typical == (x[1] if is_own else USUAL[i])
        assert reason.contribution == (x[i] - reason.typical) / SPREAD[i]
        assert reason.text.startswith(FEATURES[i].words)
