"""Schedules of faults over the worker that ships: none is wrong, and a broken worker is caught."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Schedule
from tests.simulation.seeds import trial
from worker.faults import FAULTS

SEEDS, PER_TEST = 60, 10


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_no_schedule_of_faults_ends_wrong(first: int) -> None:
    """Rows, alerts, dead letters, x, scores, examples and stored states are the oracle's."""
    wrong = [said for seed in range(first, first + PER_TEST) if (said := trial(seed, None))]
    assert not wrong, "\n".join(wrong)


def test_a_seed_is_the_same_schedule_again() -> None:
    """So a failing seed can be replayed, step by step."""
    assert Schedule(7).run().told == Schedule(7).run().told


def test_a_worker_that_writes_before_the_commit_is_caught() -> None:
    """The checks can fail: `make mutants` breaks each other protection too."""
    name = "store written before the commit"
    assert name in MUTANTS
    assert any(trial(seed, name) for seed in range(40))


def test_schedules_stop_at_every_fault_point() -> None:
    """No name in the list is one that the worker never reaches."""
    told = "\n".join(line for seed in range(12) for line in Schedule(seed).run().told)
    assert [name for name in FAULTS if f"is at {name}\n" not in told] == []
