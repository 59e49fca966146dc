"""Schedules of faults over the worker that ships: none is wrong, and a broken worker is caught."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Schedule
from tests.simulation.seeds import command, shrunk, trial, wrong_of
from worker.faults import FAULTS

SEEDS = 2_000
PART = 250  # the tests run in several processes, which share them
FOUND = (196_492,)
"""Seeds of long runs that were wrong once."""


@pytest.mark.parametrize("seeds", [FOUND, *(range(i, i + PART) for i in range(0, SEEDS, PART))])
def test_no_schedule_of_faults_ends_wrong(seeds: Sequence[int]) -> None:
    """Rows, alerts, dead letters, x, scores, examples and stored states are the oracle's."""
    assert list(wrong_of(seeds, jobs=1)) == []


def test_a_seed_is_the_same_schedule_again() -> None:
    """So a failing seed can be replayed, step by step."""
    assert Schedule(7).run().told == Schedule(7).run().told


def test_a_worker_that_writes_before_the_commit_is_caught() -> None:
    """The checks can fail: `make mutants` breaks each other protection too."""
    name = "store written before the commit"
    assert name in MUTANTS
    assert any(trial(seed, name) for seed in range(40))


def test_a_wrong_seed_shrinks_to_less_that_is_still_wrong() -> None:
    """Fewer kinds of faults and fewer records, and the command says which."""
    name = "store written before the commit"
    seed = next(seed for seed in range(40) if trial(seed, name))
    cut = shrunk(seed, name)
    said = trial(seed, name, cut)
    assert said is not None
    assert cut.without
    assert said.endswith(command(seed, cut))
    assert (cut.items_max or 0) < len(Schedule(seed).input)


def test_schedules_stop_at_every_fault_point() -> None:
    """No name in the list is one that the worker never reaches."""
    told = "\n".join(line for seed in range(12) for line in Schedule(seed).run().told)
    assert [name for name in FAULTS if f"is at {name}\n" not in told] == []
