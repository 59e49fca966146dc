"""Run seeds: ``python -m tests.simulation FIRST COUNT``; or replay one: ``... --replay SEED``."""

from __future__ import annotations

import argparse
import time

from tests.simulation.schedule import KINDS, Cut
from tests.simulation.seeds import replay, shrunk, trial, wrong_of


def main() -> int:
    """Return 1 when a seed is wrong, as a command does."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("count", type=int, nargs="?", default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--replay", type=int, metavar="SEED", help="print what happened, in order")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="print the least that is wrong")
    parser.add_argument("--without", default="", help=f"replay without these: {','.join(KINDS)}")
    parser.add_argument("--items", type=int, help="replay so many records of the input")
    asked = parser.parse_args()
    if asked.replay is not None:
        return replay(asked.replay, Cut(frozenset(asked.without.split(",")), asked.items))
    if asked.shrink is not None:
        print(trial(asked.shrink, None, shrunk(asked.shrink)) or "nothing is wrong")
        return 0
    started_s, wrong = time.monotonic(), 0
    seeds = range(asked.first, asked.first + asked.count)
    for said in wrong_of(seeds, asked.jobs):
        wrong += 1
        print(said, flush=True)
    print(f"{asked.count} seeds, {wrong} wrong, {time.monotonic() - started_s:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
