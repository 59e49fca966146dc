"""One seed from begin to verdict, with a protection broken or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context

from tests.simulation.mutants import MUTANTS
from tests.simulation.oracle import check
from tests.simulation.schedule import Schedule


def trial(seed: int, mutant: str | None) -> str | None:
    """Return what is wrong with a seed and the command that replays it, None for nothing."""
    try:
        with nullcontext() if mutant is None else MUTANTS[mutant]():
            check(Schedule(seed).run())
    except Exception as error:
        cause = "" if error.__cause__ is None else f" because of {error.__cause__!r}"
        what = f"{type(error).__name__}: {error}{cause}"
        return f"seed {seed}: {what[:600]}\n  python -m tests.simulation --replay {seed}"
    return None


def wrong_of(seeds: Sequence[int], jobs: int) -> Iterator[str]:
    """Yield what is wrong with seeds, in their order; several processes run them."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for said in pool.map(partial(trial, mutant=None), seeds, chunksize=8):
            if said is not None:
                yield said


def replay(seed: int) -> int:
    """Print everything that happened in a schedule, then what is wrong; return 1 if anything is."""
    schedule = Schedule(seed)
    try:
        check(schedule.run())
    except Exception as error:
        print("\n".join([*schedule.told, f"wrong: {type(error).__name__}: {error}"]))
        return 1
    print("\n".join([*schedule.told, "nothing is wrong"]))
    return 0
