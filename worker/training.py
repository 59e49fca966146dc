"""Following the training log: the only way into models that do not learn inline."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any  # structlog's bound loggers

import numpy as np

from worker.arrow import Examples, joined, read_examples, read_order
from worker.contracts.records import Float64, unserved
from worker.errors import FatalError, TransientError
from worker.models.advance import advance
from worker.models.catalogue import ModelSet
from worker.models.snapshot import PROBES_MAX, Snapshot
from worker.snapshots import Found, Snapshots
from worker.streams import Log

_FETCH_MS = 20
_RUN_EXAMPLES = 2_000  # as many stay in the cache


class TrainingFollower:
    """Applies the training log to the models, in its order, from the newest snapshot on.

    ``version`` is v: the models are the fold of the log before it. ``learned`` counts the examples
    of that; records of another feature spec count in the order but teach nothing. Snapshots are
    read, and written unless ``writes`` says no.

    Raises
    ------
    FatalError
        The log's beginning is gone and no snapshot stands for it.
    """

    def __init__(
        self,
        stream: Log,
        topic: str,
        models: ModelSet,
        spec_hash: str,
        snapshots: Snapshots | None,
        log: Any,
        *,
        writes: bool = True,
    ) -> None:
        self.learned = 0
        self._topic = topic
        self._stream = stream
        self._models = models
        self._spec_hash = spec_hash
        self._snapshots = snapshots if writes else None
        self._log = log
        self._probes: Float64 | None = None
        self._fetched: list[tuple[int, bytes | None]] = []
        self._run: list[Examples] = []  # read, and learned as one
        first, end = stream.log_range(topic, 0)
        snapshot = self._newest(snapshots, first, end)
        self.version = first if snapshot is None else snapshot.header.version
        self._reader = stream.reader(topic, 0, self.version)
        # Last: where the stream does not answer, who tries again has models that learned nothing.
        if snapshot is not None:
            models.restore(snapshot.state)
            self.learned, self._probes = snapshot.header.examples, snapshot.probes
            log.info("snapshot_loaded", version=self.version, examples=self.learned)

    def catch_up(self, tick: Callable[[], None]) -> int:
        """Apply everything committed until now; return the number of examples.

        May take long: ``tick`` is called between polls.
        """
        return self._reach(self._stream.settle(self._topic, 0), tick)

    def keep_up(self, tick: Callable[[], None]) -> int:
        """Apply all that any worker may have applied; return the number of examples.

        It does not wait for transactions that are open.
        """
        return self._reach(self._stream.log_range(self._topic, 0)[1], tick)

    def follow(self, timeout_ms: int = 0) -> int:
        """Apply the records that are there; return the number of examples."""
        self.fetch(timeout_ms)
        fetched, self._fetched = self._fetched, []
        return self.apply(fetched)

    def apply(self, records: Sequence[tuple[int, bytes | None]]) -> int:
        """Apply records of the log, each with its offset; return the number of examples.

        Examples of several are learned as one run: each call of a model costs the same.
        """
        before = self.learned
        for offset, value in records:
            self._take(offset, value)
        self._learn()
        return self.learned - before

    def fetch(self, timeout_ms: int = _FETCH_MS) -> None:
        """Get the next records, if any come in time and none wait; `follow` applies them.

        On whatever thread, while nobody else uses this.
        """
        if self._fetched:
            return
        records = self._reader.poll(timeout_ms, 500)
        if records is not None:
            self._fetched = list(zip(records.offsets, records.values, strict=True))

    def close(self) -> None:
        """Give back the reader."""
        self._reader.close()

    def _reach(self, end: int, tick: Callable[[], None]) -> int:
        before = self.learned
        while self._reader.position < end or self._fetched:
            self.follow(timeout_ms=100)
            tick()
        return self.learned - before

    def _newest(self, snapshots: Snapshots | None, first: int, end: int) -> Snapshot | None:
        """Return the snapshot to go on from, None for the log's beginning."""
        snapshot = None
        if snapshots is not None:
            snapshot = snapshots.newest(first, end, self._passed_over)
        if snapshot is None and first > 0:
            raise FatalError(
                f"{self._topic}/0", "a log from 0 on, or a snapshot", f"one from {first} on",
                "keep the training topic whole (retention.ms=-1), or configure snapshots",
            )  # fmt: skip
        return snapshot

    def _passed_over(self, found: Found) -> None:
        self._log.warning("snapshot_refused", file=found.path.name, reason=found.refused)

    def _take(self, offset: int, value: bytes | None) -> None:
        self.version = offset + 1
        if value is None:
            return
        where = f"{self._topic}/0@{offset}"
        order = read_order(value, where)
        if order is not None:
            self._learn()
            self._models.steward.order(*order)
            return
        stamps, e = read_examples(value, where)
        if stamps.get("spec_hash") == self._spec_hash:
            _rename(e, json.loads(stamps.get("models", "[]")), self._models.names)
            self._run.append(e)
            if sum(map(len, self._run)) >= self._run_max:
                self._learn()

    @property
    def _run_max(self) -> int:
        """Return how many examples end a run: a snapshot is of the record that made it due."""
        if self._snapshots is None:
            return _RUN_EXAMPLES
        return min(_RUN_EXAMPLES, self._snapshots.every - self.learned % self._snapshots.every)

    def _learn(self) -> None:
        """Learn the examples of the records that were read."""
        if not self._run:
            return
        e, self._run = joined(self._run), []
        advance(self._models, e.X[:0], e, np.full(len(e), -1))
        self.learned += len(e)
        self._take_snapshot(e.X)

    def _take_snapshot(self, X: Float64) -> None:
        """Write a snapshot where these examples reach a multiple of K; X are its probes."""
        if self._snapshots is None:
            return
        before = X if self._probes is None else np.concatenate([self._probes, X[-PROBES_MAX:]])
        self._probes = before[-PROBES_MAX:]
        every = self._snapshots.every
        if self.learned // every > (self.learned - len(X)) // every:
            try:
                path = self._snapshots.save(self._models, self.version, self.learned, self._probes)
            except TransientError as error:
                self._log.error("snapshot_failed", error=str(error))
            except TypeError as error:  # a model has come to hold what has no plain form
                self._log.error("snapshot_impossible", error=str(error))
            else:
                self._log.info("snapshot_written", file=path.name, examples=self.learned)


def _rename(e: Examples, written: Sequence[str], names: Sequence[str]) -> None:
    """Put scores into the order of ``names``; NaN of a model that was not there.

    A record is written by workers whose configuration may have had other models.
    """
    if list(written) == list(names):
        return
    served = unserved(len(e), len(names))
    raw = served["scores"].copy()
    for name in ("entity", "score", "threshold", "alert"):
        served[name] = e.served[name]
    for i, name in enumerate(names):
        if name in written:
            place = list(written).index(name)
            raw[:, i], served["scores"][:, i] = e.raw[:, place], e.served["scores"][:, place]
    e.raw, e.served = raw, served
