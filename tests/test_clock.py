"""The event clock: what is ahead, what a gap does, and that batches do not matter."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.contracts.clock import AHEAD_RUN, EventClock

AHEAD_MAX_MS = 1_000
TIMES = st.lists(
    st.one_of(
        st.integers(0, 5_000),
        st.integers(90_000, 93_000),
        st.sampled_from([0, 1_000, 1_001, 2**45]),
    ),
    max_size=60,
)


def accept(clock: EventClock, *times_ms: int) -> list[bool]:
    return clock.accept(np.array(times_ms, np.int64)).tolist()


def test_the_first_event_sets_the_clock() -> None:
    """Whatever its time, there is nothing that it could be ahead of."""
    clock = EventClock(AHEAD_MAX_MS)
    assert accept(clock, 2**45) == [True]
    assert clock.now_ms == 2**45


def test_an_event_exactly_at_the_bound_is_accepted_and_one_beyond_is_not() -> None:
    """The bound is inclusive, and a refused event does not move the clock."""
    clock = EventClock(AHEAD_MAX_MS)
    assert accept(clock, 5_000) == [True]
    assert accept(clock, 6_000, 7_001) == [True, False]
    assert accept(clock, 7_000) == [True]
    assert clock.now_ms == 7_000


def test_a_late_event_is_accepted_and_the_clock_stays() -> None:
    """Event time never moves back."""
    clock = EventClock(AHEAD_MAX_MS)
    assert accept(clock, 5_000, 0) == [True, True]
    assert clock.now_ms == 5_000


def test_a_gap_is_crossed_after_a_full_run_of_ahead_events() -> None:
    """The run itself is refused; the clock jumps to its smallest time."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, 0)
    run = [90_000 + (5 * i + 3) % 7 for i in range(AHEAD_RUN)]
    assert not any(accept(clock, *run))
    assert clock.now_ms == 90_000
    assert accept(clock, 91_000) == [True]


def test_a_batch_without_ahead_events_ends_a_run() -> None:
    """As a single accepted event does."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, 0, 90_000)
    accept(clock, 1, 2)
    assert clock.to_tuple() == (2, -1, 0)


def test_a_run_one_short_crosses_nothing() -> None:
    """The boundary below a full run."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, 0, *[90_000] * (AHEAD_RUN - 1))
    assert clock.now_ms == 0


def test_an_accepted_event_ends_a_run() -> None:
    """Ahead events must be consecutive: a device with a wrong clock among others moves nothing."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, 0)
    for _ in range(3 * AHEAD_RUN):
        assert accept(clock, 90_000, 1) == [False, True]
    assert clock.now_ms == 1


def test_ahead_events_that_contradict_each_other_make_no_run() -> None:
    """Each event must lie near the smallest of the run."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, 0)
    accept(clock, *[90_000, 95_000] * AHEAD_RUN)
    assert clock.now_ms == 0


def test_an_empty_batch_changes_nothing() -> None:
    """Nor does it end a run."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, 0, 90_000)
    before = clock.to_tuple()
    assert accept(clock) == []
    assert clock.to_tuple() == before == (0, 90_000, 1)


@given(TIMES, st.lists(st.integers(0, 60), max_size=5))
def test_batches_do_not_matter_and_state_survives_a_restart(
    times: list[int], cuts: list[int]
) -> None:
    """Any split, with the state taken out and put back between batches, gives the same."""
    whole = EventClock(AHEAD_MAX_MS)
    expected = accept(whole, *times)
    split = EventClock(AHEAD_MAX_MS)
    edges = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    found: list[bool] = []
    for start, end in itertools.pairwise(edges):
        split = EventClock.from_tuple(AHEAD_MAX_MS, list(split.to_tuple()))
        found += accept(split, *times[start:end])
    assert found == expected
    assert split.to_tuple() == whole.to_tuple()


@given(st.lists(st.sampled_from([0, 500, 1_600, 90_000, 90_400, 91_300, 200_000]), max_size=500))
def test_the_clock_equals_a_naive_one(times: list[int]) -> None:
    """A second implementation that keeps the whole run as a list."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, 700)
    now = 700
    run: list[int] = []
    for time_ms, accepted in zip(times, accept(clock, *times), strict=True):
        fits = time_ms - now <= AHEAD_MAX_MS
        assert accepted == fits
        if fits:
            now, run = max(now, time_ms), []
            continue
        near = bool(run) and abs(time_ms - min(run)) <= AHEAD_MAX_MS
        run = [*run, time_ms] if near else [time_ms]
        if len(run) == AHEAD_RUN:
            now, run = min(run), []
    assert clock.now_ms == now


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**12), min_size=1, max_size=50))
def test_no_accepted_event_is_ahead_of_all_before_it(first: int, times: list[int]) -> None:
    """Between jumps, accepted times grow by at most the bound."""
    clock = EventClock(AHEAD_MAX_MS)
    accept(clock, first)
    largest = first
    for time_ms, accepted in zip(times, accept(clock, *times), strict=True):
        assert accepted == (time_ms <= largest + AHEAD_MAX_MS)
        largest = max(largest, time_ms) if accepted else largest
