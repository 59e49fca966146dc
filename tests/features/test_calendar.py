"""The calendar in time zones, and the logarithm that is the same on every machine."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.features.expression_rows import SCHEMA, events_of_values
from tests.features.streams import UNHURRIED, settings_of
from worker.errors import ConfigError
from worker.features.expressions import Schema, parse
from worker.features.expressions.logarithm import log, log1p
from worker.features.expressions.values import MISSING
from worker.features.expressions.zones import YEARS, zone_of
from worker.features.spec import compile_features

# Half hours, two hours, a day left out, rules that follow Ramadan, none, and the south.
ZONES = (
    "UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll",
    "Pacific/Apia", "Africa/Casablanca", "Asia/Kathmandu", "America/Sao_Paulo",
)  # fmt: skip
END_MS = 4_102_444_800_000  # 2100
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CALENDAR = ("hour", "weekday", "day", "is_night", "is_weekend")


def moment(time_ms: int, zone: str) -> datetime:
    return (EPOCH + timedelta(milliseconds=time_ms)).astimezone(ZoneInfo(zone))


def calendar(times: list[int], zone: str) -> list[list[float]]:
    """Return each function of the calendar over times."""
    events = events_of_values([{"time": time_ms} for time_ms in times])
    texts = [f"{name}($time, '{zone}')" for name in CALENDAR]
    return [parse(text, SCHEMA).column(events).tolist() for text in texts]


def expected(times: list[int], zone: str) -> list[list[float]]:
    """Return the same by the standard library."""
    local = [moment(time_ms, zone) for time_ms in times]
    return [
        [float(m.hour) for m in local],
        [float(m.weekday()) for m in local],
        [float(m.day) for m in local],
        [float(m.hour <= 6) for m in local],
        [float(m.weekday() >= 5) for m in local],
    ]


@pytest.mark.parametrize("zone", ZONES)
def test_each_side_of_every_change_of_the_clock_is_right(zone: str) -> None:
    """One ms before it, and at it, from 1970 to 2099."""
    starts = zone_of(zone).starts_ms.tolist()
    times = [0, *(t for start in starts for t in (start - 1, start)), END_MS - 1]
    assert calendar(times, zone) == expected(times, zone)
    assert YEARS == (1970, 2100)


@UNHURRIED
@given(times=st.lists(st.integers(0, END_MS - 1), min_size=1), zone=st.sampled_from(ZONES))
def test_the_calendar_equals_the_standard_library(times: list[int], zone: str) -> None:
    """At any time of these years."""
    assert calendar(times, zone) == expected(times, zone)


def test_a_year_of_hours_in_paris_has_one_hour_twice_and_one_never() -> None:
    """On the days when the clock changes; all other days have 24."""
    first = int(datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Paris")).timestamp() * 1000)
    times = [first + hour * 3_600_000 for hour in range(366 * 24)]
    hours = calendar(times, "Europe/Paris")[0]
    counts = [hours.count(float(hour)) for hour in range(24)]
    assert counts == [366] * 2 + [366] + [366] * 21  # 2 o'clock: once never, once twice
    steps = {(b - a) % 24 for a, b in pairwise(hours)}
    assert steps == {0.0, 1.0, 2.0}


def test_a_missing_time_has_no_hour() -> None:
    """Not that of the year −292,277,022."""
    events = events_of_values([{}])
    assert events.columns["opened"].tolist() == [MISSING]  # type: ignore[union-attr]
    for zone in ZONES:
        for name in CALENDAR:
            text = f"is_missing({name}($opened, '{zone}'))"
            assert parse(text, SCHEMA).mask(events).tolist() == [True]


def test_the_declared_zone_is_that_of_calls_without_one() -> None:
    """It is part of the canonical text, so two zones are two features; UTC is left out of it."""
    paris = Schema({}, "at", "Europe/Paris")
    assert parse("hour($time) < 6", paris).canonical == 'hour($time, "Europe/Paris") < 6'
    assert parse("hour($time, 'UTC') < 6", paris).canonical == "hour($time) < 6"
    assert "Europe/Paris" in parse("hour($time) < 6", paris).meaning
    assert parse("hour($time)", paris).words == "hour of the day (Europe/Paris)"


def zoned(timezone: str, features: dict[str, Any]) -> str:
    settings = settings_of(features)
    events = settings.events.model_copy(update={"timezone": timezone})
    return compile_features(settings.model_copy(update={"events": events})).spec_hash


def test_a_zone_changes_the_spec_only_where_the_calendar_is_used() -> None:
    """And one that is not known is a problem, used or not."""
    used, unused = {"h": "hour($time)"}, {"a": "$amount"}
    assert zoned("UTC", used) != zoned("Europe/Paris", used)
    assert zoned("UTC", unused) == zoned("Europe/Paris", unused)
    with pytest.raises(ConfigError) as caught:
        zoned("Europe/Pari", {**used, **unused})
    (problem,) = caught.value.problems
    assert problem.path == ("events", "timezone")
    assert problem.hint == "did you mean Europe/Paris?"


@UNHURRIED
@given(st.floats(5e-324, 1.7e308))
@example(1.0)
@example(math.nextafter(1.0, 0.0))
@example(math.nextafter(1.0, 2.0))
@example(math.sqrt(0.5))
@example(2.0)
@example(5e-324)
def test_the_logarithm_is_within_one_unit_in_the_last_place(x: float) -> None:
    """Of every positive double, tiny ones included, and 0.0 exactly at 1.0."""
    found, exact = float(log(np.array([x]))[0]), math.log(x)
    assert abs(found - exact) <= math.ulp(exact)


@UNHURRIED
@given(st.floats(-0.9999999, 1e300) | st.floats(-1e-9, 1e-9))
@example(-0.0)
@example(1e-300)
@example(math.nextafter(-1.0, 0.0))
def test_log1p_keeps_the_digits_of_small_numbers(x: float) -> None:
    """Within 4 units in the last place of the standard library's."""
    found, exact = float(log1p(np.array([x]))[0]), math.log1p(x)
    assert abs(found - exact) <= 4 * math.ulp(exact)


def test_the_bits_of_the_logarithm_are_fixed() -> None:
    """Another machine, or a vector of another length, must not change the last place."""
    values = np.array([2.0, 3.0, 10.0, 0.1, 57.16, 1e-300, 12345.678])
    assert [float(v).hex() for v in log(values)] == [
        "0x1.62e42fefa39efp-1", "0x1.193ea7aad030ap+0", "0x1.26bb1bbb55516p+1",
        "-0x1.26bb1bbb55515p+1",
    ] + [float(log(values[i : i + 1])[0]).hex() for i in range(4, 7)]  # fmt: skip
    assert log(np.tile(values, 100)).tobytes() == np.tile(log(values), 100).tobytes()
