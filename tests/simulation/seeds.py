"""One seed from begin to verdict, with a protection broken or not."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

from tests.simulation.mutants import MUTANTS
from tests.simulation.oracle import check
from tests.simulation.schedule import KINDS, Cut, Schedule


def trial(seed: int, mutant: str | None, cut: Cut = Cut()) -> str | None:  # noqa: B008
    """Return what is wrong with a seed and the command that replays it, None for nothing."""
    # Around the try: what cannot be broken any more is no mutant that was caught.
    with nullcontext() if mutant is None else MUTANTS[mutant]():
        try:
            check(Schedule(seed, cut).run())
        except Exception as error:
            cause = "" if error.__cause__ is None else f" because of {error.__cause__!r}"
            what = f"{type(error).__name__}: {error}{cause}"
            return f"seed {seed}: {what[:600]}\n  {command(seed, cut)}"
    return None


def command(seed: int, cut: Cut) -> str:
    """Return what replays a seed, with what is cut from it."""
    said = f"python -m tests.simulation --replay {seed}"
    if cut.without:
        said += f" --without {','.join(sorted(cut.without))}"
    return said if cut.items_max is None else f"{said} --items {cut.items_max}"


def shrunk(seed: int, mutant: str | None = None) -> Cut:
    """Return the most that can be cut, one thing after the other, while a seed stays wrong."""
    cut = Cut()
    for kind in KINDS:
        less = replace(cut, without=cut.without | {kind})
        cut = less if trial(seed, mutant, less) else cut
    count = len(Schedule(seed).input)
    while count > 1:
        less = replace(cut, items_max=count - max(1, count // 4))
        if not trial(seed, mutant, less):
            break
        cut, count = less, less.items_max or 0
    return cut


def wrong_of(seeds: Sequence[int], jobs: int) -> Iterator[str]:
    """Yield what is wrong with seeds, in their order; several processes run them."""
    with workers_of(jobs) as pool:
        for said in pool.map(partial(trial, mutant=None), seeds, chunksize=8):
            if said is not None:
                yield said


def workers_of(jobs: int) -> ProcessPoolExecutor:
    """Return processes for trials."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_ready)


def _ready() -> None:
    """Have the collector leave alone what was imported, which is most of what is there."""
    gc.freeze()


def replay(seed: int, cut: Cut) -> int:
    """Print everything that happened in a schedule, then what is wrong; return 1 if anything is."""
    schedule = Schedule(seed, cut)
    try:
        check(schedule.run())
    except Exception as error:
        print("\n".join([*schedule.told, f"wrong: {type(error).__name__}: {error}"]))
        return 1
    print("\n".join([*schedule.told, "nothing is wrong"]))
    return 0
