"""The spacing of played items, by a clock that moves only when it is slept on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.pacing import Pacer


class Clock:
    """Seconds since an arbitrary start; sleeping moves it, and is remembered."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


def _send_times(clock: Clock, pacer: Pacer, times_ms: list[int]) -> list[float]:
    """Return the clock's reading, from its start on, at which each item goes out."""
    start, sent = clock.seconds, []
    for time_ms in times_ms:
        pacer.wait(time_ms)
        sent.append(clock.seconds - start)
    return sent


def test_speed_one_keeps_the_recorded_spacing() -> None:
    """Items 0, 250 and 2,000 ms after the first go out after just that time."""
    clock = Clock()
    pacer = Pacer(speed=1, now=clock.now, sleep=clock.sleep)
    assert _send_times(clock, pacer, [5_000, 5_250, 7_000]) == pytest.approx([0, 0.25, 2.0])


def test_speed_sixty_plays_an_hour_in_a_minute() -> None:
    """The recorded spacing is divided by the speed."""
    clock = Clock()
    pacer = Pacer(speed=60, now=clock.now, sleep=clock.sleep)
    assert _send_times(clock, pacer, [0, 3_600_000]) == pytest.approx([0, 60])


def test_without_speed_and_rate_nothing_ever_waits() -> None:
    """Full speed reads no clock and never sleeps."""
    clock = Clock()
    pacer = Pacer(now=clock.now, sleep=clock.sleep)
    assert _send_times(clock, pacer, [0, 86_400_000]) == [0, 0]
    assert clock.slept == []


def test_rate_bounds_items_that_are_due_together() -> None:
    """Ten per second: items of one instant go out every 100 ms."""
    clock = Clock()
    pacer = Pacer(rate_max=10, now=clock.now, sleep=clock.sleep)
    assert _send_times(clock, pacer, [7, 7, 7, 7]) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_with_both_the_later_of_the_two_schedules_holds() -> None:
    """A burst is bounded by the rate, a gap by the speed."""
    clock = Clock()
    pacer = Pacer(speed=2, rate_max=10, now=clock.now, sleep=clock.sleep)
    assert _send_times(clock, pacer, [0, 0, 4_000]) == pytest.approx([0, 0.1, 2.0])


def test_an_item_older_than_the_ones_before_does_not_wait() -> None:
    """A time that runs back is due at once, and what follows keeps its schedule."""
    clock = Clock()
    pacer = Pacer(speed=1, now=clock.now, sleep=clock.sleep)
    assert _send_times(clock, pacer, [1_000, 2_000, 500, 3_000]) == pytest.approx([0, 1, 1, 2])


def test_a_player_that_fell_behind_catches_up_without_sleeping() -> None:
    """After a slow destination the next items go out at once until the schedule is met again."""
    clock = Clock()
    pacer = Pacer(speed=1, now=clock.now, sleep=clock.sleep)
    pacer.wait(0)
    clock.seconds += 10
    pacer.wait(1_000)
    pacer.wait(2_000)
    assert clock.slept == []
    pacer.wait(12_000)
    assert clock.slept == pytest.approx([2])


@pytest.mark.parametrize(
    ("speed", "rate"), [(0, None), (-1, None), (None, 0), (float("nan"), None)]
)
def test_a_speed_or_rate_that_is_not_above_zero_is_refused(
    speed: float | None, rate: float | None
) -> None:
    """Zero, negative and NaN would wait for ever or never: they are errors."""
    with pytest.raises(ValueError, match="above 0"):
        Pacer(speed=speed, rate_max=rate)


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0.1, 1e4), st.floats(0.1, 1e4))
def test_no_item_goes_out_before_its_time_or_above_the_rate(
    times_ms: list[int], speed: float, rate: float
) -> None:
    """Whatever the times, each item waits for both schedules, and waits never drift."""
    clock = Clock()
    pacer = Pacer(speed, rate, now=clock.now, sleep=clock.sleep)
    sent = _send_times(clock, pacer, times_ms)
    for index, (at, time_ms) in enumerate(zip(sent, times_ms, strict=True)):
        assert at >= (time_ms - times_ms[0]) / 1000 / speed - 1e-6
        assert at >= index / rate - 1e-6
    latest = max(times_ms) - times_ms[0]
    assert sent[-1] <= max(latest / 1000 / speed, (len(sent) - 1) / rate) + 1e-6
