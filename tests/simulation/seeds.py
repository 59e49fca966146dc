"""One seed from begin to verdict, with a protection broken or not."""

from __future__ import annotations

from contextlib import nullcontext

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
