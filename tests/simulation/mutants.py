"""One protection broken at a time: the simulation must notice each.

``python -m tests.simulation.mutants`` prints the table, that of `tests.streams.mutants` below it,
and writes build/mutants.json.
"""

from __future__ import annotations

import hmac
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import worker.acquire
import worker.checkpoint
from tests.mutating import always, instead
from tests.simulation.faults import FaultyStream, OpenLog
from worker.checkpoint import Checkpoint
from worker.committing import Committer
from worker.decisions.thresholds import Threshold
from worker.errors import StateLostError, TransientError
from worker.exchange import Exchange
from worker.flushing import Flusher
from worker.patience import Patience
from worker.runner import Runner
from worker.secondary import Overlay
from worker.snapshots import Snapshots
from worker.stores import Meta
from worker.streams.memory import MemoryStream, _Membership

SEEDS_MAX = 500
_JOBS, _SEEDS_AT_ONCE = 2, 8
_SLIP = re.compile(r"\b(Attribute|Index|Key|Name|Type)Error\b")
"""What a mutant runs into that was not kept up with the worker: that is not caught."""


def _flush_first(process: Any) -> Any:
    def processed(self: Any, live: Any, batch: Any) -> Any:
        outcome = process(self, live, batch)
        live.checkpoint.flush(live.shard, live.journal_next)
        return outcome

    return processed


def _write_whatever(_: Any) -> Any:
    def write(self: Any, meta: Meta, writes: Any) -> None:
        now = self._store.meta(self._space)
        if now is None or now.version != meta.version:  # else it is there, its answer was lost
            self._store.flush(self._space, now and now.version, meta, writes)

    return write


def _count_versions(_: Any) -> Any:
    def counted(version: bytes, *rest: Any) -> Meta:
        before = sys._getframe(1).f_locals["self"]._version
        return Meta(b"%d" % (int(before or 0) + 1), *rest)

    return counted


def _take_whatever(taken: Any) -> Any:
    def taken_anyway(self: Any, keys: Any, meta: Meta | None, values: Any) -> Any:
        mine, self._version = self._version, None if meta is None else meta.version
        try:
            return taken(self, keys, meta, values)
        finally:
            self._version = mine

    return taken_anyway


def _commit_as_whoever_is_there(commit: Any) -> Any:
    def committed(self: Any, generation: Any, outputs: Any, positions: Any) -> Any:
        self._assigned = lambda: frozenset(range(self.partitions))
        try:
            now = _Membership(self._state().generation, self._recovered)
            return commit(self, now, outputs, positions)
        finally:
            del self._assigned

    return committed


def _go_on(lose_all: Any) -> Any:
    def kept(self: Any, error: Any) -> None:
        if self._exchange is not None and self._exchange._overlays.keys() != self._live.keys():
            lose_all(self, error)  # it failed while it acquired: there is no state to keep
            return
        self._committer.drain()
        self._flusher.drain()
        self._patience.recover()
        for p, live in self._live.items():
            with suppress(StateLostError):
                self._parts.stream.seek(
                    p, live.inbox._events.next_offset, live.inbox._labels.next_offset
                )

    return kept


def _forget_failures(settle: Any) -> Any:
    def settled(self: Any) -> None:
        try:
            settle(self)
        except TransientError:
            self._unsettled = None

    return settled


def _state_the_newest(learn: Any) -> Any:
    def learned(self: Any, keep_up: bool = False) -> None:
        learn(self, keep_up)
        if self._degrading.level:
            self._version = self._parts.stream.log_range("training", 0)[1]

    return learned


def _whatever_version(newest: Any) -> Any:
    return lambda self, first, end, refused: newest(self, 0, 10**9, refused)


def _one_less(save: Any) -> Any:
    return lambda self, models, version, *rest: save(self, models, version - 1, *rest)


def _pause_more(pause: Any) -> Any:
    return lambda self, places: pause(self, [*self._paused, *places])


def _for_ever(_: Any) -> Any:
    def recover(self: Any) -> None:
        while True:
            self.pause()

    return recover


def _without_floors(acquire: Any) -> Any:
    def acquired(self: Any, partitions: Any) -> None:
        acquire(self, partitions)
        self._floors[:] = 0

    return acquired


@contextmanager
def _hurry() -> Iterator[None]:
    """The last transaction is asked after when the next one begins, and by nobody else."""
    join = Committer.join

    def started(start: Any) -> Any:
        def begin(self: Any, *arguments: Any) -> None:
            join(self)
            start(self, *arguments)

        return begin

    with instead(Committer, "join", always(None)), instead(Committer, "start", started):
        yield


@contextmanager
def _overlay_that_keeps_all() -> Iterator[None]:
    """Rows that the owner's state holds already are neither dropped nor left out."""
    with (
        instead(Overlay, "drop", always(None)),
        instead(Overlay, "later", lambda later: lambda self, at: later(self, 0 * at)),
    ):
        yield


MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "store written before the commit": lambda: instead(Runner, "_process", _flush_first),
    "a step goes on before the last commit is known": _hurry,
    "unguarded write": lambda: instead(Checkpoint, "_write", _write_whatever),
    "versions are counted": lambda: instead(worker.checkpoint, "Meta", _count_versions),
    "load without the version check": lambda: instead(Checkpoint, "_taken", _take_whatever),
    "live before the labels reach C": lambda: instead(worker.acquire._Fold, "_rest", always(None)),
    "no tail check": lambda: instead(
        worker.acquire,
        "committed_of",
        lambda _: lambda stream, topics, p: (stream.committed(p), {}),
    ),
    "membership taken at commit time": lambda: instead(
        MemoryStream, "commit", _commit_as_whoever_is_there
    ),
    "state kept after a failed commit": lambda: instead(Runner, "_lose_all", _go_on),
    "recorded x not taken from the journal": lambda: instead(
        worker.acquire._Fold, "_is_same_spec", always(False)
    ),
    "losses noticed by writes alone": lambda: instead(Flusher, "_see_after_one", always(None)),
    "failed flush forgotten": lambda: instead(Checkpoint, "_settle", _forget_failures),
    "own secondary row folded twice": _overlay_that_keeps_all,
    "live before secondary entities": lambda: instead(Exchange, "acquire", _without_floors),
    "secondary state goes back unnoticed": lambda: instead(
        Exchange, "_advance", lambda _: lambda self, q, at: self._positions.__setitem__(q, at)
    ),
    "version goes on while learning stands still": lambda: instead(
        Runner, "_learn", _state_the_newest
    ),
    "open transactions not waited for": lambda: instead(
        FaultyStream, "settle", lambda _: lambda self, topic, p: self._log.end(topic, p)
    ),
    "read beyond the last stable offset": lambda: instead(
        OpenLog, "end", lambda _: OpenLog.high_watermark
    ),
    "snapshot ahead of the log": lambda: instead(Snapshots, "newest", _whatever_version),
    "snapshot of fewer examples than learned": lambda: instead(Snapshots, "save", _one_less),
    "signature of a snapshot not checked": lambda: instead(hmac, "compare_digest", always(True)),
    "decided by another threshold": lambda: instead(
        Threshold, "reached", lambda reached: lambda self, s, at: reached(self, s - 0.02, at)
    ),
    "never live again after a doubt": lambda: instead(Patience, "recover", _for_ever),
    "what is paused stays so": lambda: instead(MemoryStream, "pause", _pause_more),
}
"""By name: breaks it for as long as the context lasts."""


def main() -> int:
    """Return 1 when a mutant survives, as a command does."""
    from tests.simulation.seeds import workers_of  # it knows the mutants
    from tests.streams import mutants as on_kafka  # heavy

    table: list[dict[str, object]] = []
    started_s = time.monotonic()
    with workers_of(_JOBS) as pool:
        for name in MUTANTS:
            at, said = _caught(pool, name)
            by = "liveness" if "StuckError" in said else "safety"
            how = "SURVIVES" if at is None else f"caught at seed {at} of {SEEDS_MAX}, by {by}"
            print(f"{name:44} {how}", flush=True)
            row = {"caught_at_seed": at, "by": by, "seeds": SEEDS_MAX}
            table.append({"mutant": name, "caught": at is not None, **row})
    for name, test, is_caught in on_kafka.caught():
        print(on_kafka.line(name, test, is_caught), flush=True)
        table.append({"mutant": name, "caught": is_caught, "by": test})
    caught = sum(row["caught"] is True for row in table)
    print(f"{caught} of {len(table)} caught, {time.monotonic() - started_s:.0f} s")
    Path("build").mkdir(exist_ok=True)
    Path("build/mutants.json").write_text(json.dumps(table, indent=1) + "\n")
    return 0 if caught == len(table) else 1


def _caught(pool: Executor, name: str) -> tuple[int | None, str]:
    """Return the first seed that a mutant gets wrong, None for no seed, and what is wrong."""
    from tests.simulation.seeds import trial

    for first in range(0, SEEDS_MAX, _SEEDS_AT_ONCE):
        seeds = range(first, min(first + _SEEDS_AT_ONCE, SEEDS_MAX))
        for seed, said in zip(seeds, pool.map(partial(trial, mutant=name), seeds), strict=True):
            if said is not None:
                assert not _SLIP.search(said), f"{name} does not fit the worker any more: {said}"
                return seed, said
    return None, ""


if __name__ == "__main__":
    raise SystemExit(main())
