"""Run seeds: ``python -m tests.simulation FIRST COUNT``; or replay one: ``... --replay SEED``.

``... --until 200000 --minutes 30`` goes on behind what was done of the present commit, which is
noted in build/simulation.jsonl, and ends after that time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

from tests.simulation.schedule import KINDS, Cut
from tests.simulation.seeds import replay, shrunk, trial, wrong_of

_DONE = Path(__file__).parents[2] / "build" / "simulation.jsonl"
_SLICE = 4000  # each starts its processes anew, a few seconds


def main() -> int:
    """Return 1 when a seed is wrong, as a command does."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("count", type=int, nargs="?", default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--until", type=int, metavar="SEED", help="go on to this one, and note it")
    parser.add_argument("--minutes", type=float, default=60.0, help="of --until, at most")
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
    if asked.until is not None:
        return _go_on(asked.until, asked.minutes, asked.jobs)
    started_s = time.monotonic()
    wrong = _run(range(asked.first, asked.first + asked.count), asked.jobs)
    print(f"{asked.count} seeds, {wrong} wrong, {time.monotonic() - started_s:.0f} s")
    return 1 if wrong else 0


def _run(seeds: range, jobs: int) -> int:
    """Print what is wrong with seeds; return how many are."""
    wrong = 0
    for said in wrong_of(seeds, jobs):
        wrong += 1
        print(said, flush=True)
    return wrong


def _go_on(until: int, minutes: float, jobs: int) -> int:
    """Run the seeds that this commit has not run yet, slice by slice, and note each."""
    commit, started_s = _commit(), time.monotonic()
    _DONE.parent.mkdir(exist_ok=True)
    _DONE.touch()
    every = map(json.loads, _DONE.read_text().splitlines())
    done = [one for one in every if one["commit"] == commit]
    while (first := sum(one["count"] for one in done)) < until:
        if time.monotonic() - started_s > 60 * minutes:
            break
        seeds, begun_s = range(first, min(first + _SLICE, until)), time.monotonic()
        wrong = _run(seeds, jobs)
        seconds = round(time.monotonic() - begun_s, 1)
        done.append({"commit": commit, "first": first, "count": len(seeds), "wrong": wrong,
                     "seconds": seconds})  # fmt: skip
        with _DONE.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    wrong, took_s = sum(one["wrong"] for one in done), sum(one["seconds"] for one in done)
    print(f"{commit}: {first} seeds of {until}, {wrong} wrong, {took_s:.0f} s in all")
    return 1 if wrong else 0


def _commit() -> str:
    """Return the present commit, marked when files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
