"""The loop: poll, load, process, commit, flush. The only place where the core meets the world.

One step, and what if the worker dies in it:

1. poll; with several partitions, fold what is new of secondary entities (`worker.exchange` tells
   its own steps); per shard, decode and load missing state: nothing happened yet.
2. the transaction of the last step is known to be committed (`worker.committing`), or everything
   is forgotten. Apply the training records that are there: models are rebuilt from the log.
3. per shard: process. All of it is in memory: redone from the log.
4. one transaction: journal, alerts, scores, dead letters, examples, rows of secondary entities,
   input positions. Before the commit nobody sees any of it; a successor starts at the committed
   positions and writes it once. After the commit everybody sees all of it. It may be on its way
   while the next step polls and prepares.
5. after the commit, one guarded write per shard to the store. If it is lost, the store lags behind
   the log and the next owner folds the difference; it is never ahead, and never written by two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from worker.acquire import Live, acquire
from worker.checkpoint import Checkpoint, Folded, space_of, together, ttls_ms_of
from worker.committing import Committer
from worker.contracts.settings import Settings
from worker.degrading import Degrading
from worker.errors import RiverwatchError, StateLostError, StoreAwayError, TransientError
from worker.exchange import exchange_for
from worker.faults import fault
from worker.features.spec import FeatureSpec
from worker.flushing import Dirty, Flusher
from worker.listening import Listening
from worker.models.catalogue import ModelSet
from worker.outputs import Emitter, Outcome
from worker.patience import Patience, Stopped
from worker.positions import topics_of
from worker.shard import Batch, Shard
from worker.snapshots import Snapshots
from worker.stores import StateStore
from worker.streams import Polled, Stream, TopicPartition
from worker.telemetry import Telemetry
from worker.training import TrainingFollower

_TURNS_MAX = 2  # of all input partitions, before what is ready is processed
_FRESH_MS = 3  # what the client holds was fetched a step ago: waits for what has come since


@dataclass(frozen=True, slots=True)
class Parts:
    """What a runner works with; it closes none of them but the training reader."""

    settings: Settings
    spec: FeatureSpec
    models: ModelSet
    stream: Stream
    store: StateStore
    telemetry: Telemetry
    slot: str = "0"
    snapshots: Snapshots | None = None
    background: Executor | None = None  # one thread, see worker.flushing
    committing: Executor | None = None  # another one, see worker.committing


class Runner:
    """Runs one worker until it is asked to stop.

    Parameters
    ----------
    stop
        Asked between steps and in every wait.
    flush_every_s
        None flushes only when the dirty cap is reached (a run whose store ends with it).
    on_commit
        Called with every committed outcome, for reports.
    """

    def __init__(
        self,
        parts: Parts,
        stop: Callable[[], bool],
        *,
        flush_every_s: float | None,
        on_commit: Callable[[Outcome], None] = lambda outcome: None,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # A flush that waits for its answer frees what a batch has loaded.
        assert parts.committing is None or parts.background is not None
        self._parts = parts
        self._settings, self._topics = parts.settings, topics_of(parts.settings)
        self._bounds = parts.settings.runner
        self._stop = stop
        self._clock_s = clock_s
        self._telemetry = parts.telemetry
        inline = parts.stream.learns_inline
        self._emitter = Emitter(
            parts.settings, parts.spec, parts.models, parts.slot, trains=not inline
        )
        self._patience = Patience(parts.stream, parts.telemetry, stop, sleep)
        self._flusher = Flusher(parts.telemetry, clock_s, flush_every_s, parts.background)
        self._training: TrainingFollower | None = None
        self._has_learned = self._has_more = False
        self._version = 0
        self._live: dict[int, Live] = {}
        self._ttls_ms = ttls_ms_of(parts.settings, parts.spec)
        self._exchange = exchange_for(
            parts.stream, parts.store, self._settings, parts.spec, parts.slot, self._ttls_ms,
            self._patience, self._telemetry,
        )  # fmt: skip
        self._committer = Committer(
            parts.stream, self._settings, self._exchange, self._telemetry, clock_s, on_commit,
            parts.committing,
        )  # fmt: skip
        declared = None if inline else self._settings.degrade
        self._degrading = Degrading(declared, self._topics.events, parts.telemetry, clock_s)
        self._listening = Listening(parts.settings.events.topic, self._topics.labels)

    @property
    def parts(self) -> Parts:
        """Return what the runner works with."""
        return self._parts

    @property
    def idle(self) -> bool:
        """Return whether everything that was polled has been processed."""
        return not any(len(live.inbox) for live in self._live.values())

    def run(self) -> None:
        """Step until asked to stop, then flush. The caller closes stream and store.

        Raises
        ------
        FatalError
            State is threatened or the slot is taken: the process must exit.
        """
        try:
            while not self._stop():
                self.step()
            self._flush_last()
        except Stopped:
            self._telemetry.log.info("wait_interrupted")
        finally:
            self._telemetry.ready = False
            self._committer.drain()  # it reads the training log, too
            if self._training is not None:
                self._training.close()
            if self._exchange is not None:
                self._exchange.release_all()

    def step(self) -> int:
        """Do one poll and at most one transaction; return the number of input records processed."""
        try:
            self._learn_history()
            polled = self._collect()
            fault("polled")
            done = self._batch(polled)
            self._has_more = done > 0 and not self.idle
            self._telemetry.dirty.set(self._dirty())
            if self._parts.committing is None or not done:
                self._flush_due()  # else workers that wait for each other's positions wait for ever
        except (TransientError, StateLostError) as error:
            # What was polled may not have reached a shard, and a shard may be ahead of the log.
            self._lose_all(error)
            if isinstance(error, TransientError):
                is_store = isinstance(error, StoreAwayError)
                self._patience.wait("store" if is_store else "stream", error)
            return 0
        self._patience.reset()
        return done

    def _collect(self) -> Polled:
        """Poll until a batch is ready or nothing more comes; return the last poll.

        One poll may bring one partition of one topic only. Turns are counted and no clock is asked:
        a backlog is cut alike everywhere. Where learning is inline, one poll is a batch.
        """
        polled = self._poll(0 if self._has_more else self._bounds.poll)
        turns = 0 if self._parts.stream.learns_inline else _TURNS_MAX * 2 * len(self._live)
        waits = [_FRESH_MS]
        for _ in range(turns):
            if self._is_batch_ready() or not (polled.records or waits):
                break
            polled = self._poll(0 if polled.records else waits.pop())
        return polled

    def _poll(self, timeout_ms: int) -> Polled:
        if self._parts.stream.is_rebalancing:
            self._committer.join()
        polled = self._parts.stream.poll(timeout_ms, self._bounds.batch_records_max)
        self._own(polled)
        return polled

    def _is_batch_ready(self) -> bool:
        """Return whether as many events as a transaction holds wait for nothing."""
        labels, most = self._topics.labels, self._bounds.batch_records_max
        if sum(x.inbox.waiting(self._topics.events) for x in self._live.values()) < most:
            return False
        ended = self._listening.has_ended
        ready = (x.inbox.ready(most, labels_end=ended(labels, p)) for p, x in self._live.items())
        return sum(ready) >= most

    def _learn_history(self) -> None:
        """At the start, learn the whole training log, before anything is scored."""
        if self._has_learned or self._parts.stream.learns_inline:
            return
        if self._training is None:
            parts, topic = self._parts, self._settings.outputs.training
            self._training = TrainingFollower(
                parts.stream, topic, parts.models, parts.spec.spec_hash, parts.snapshots,
                self._telemetry.log,
            )  # fmt: skip
        self._training.catch_up(self._patience.tick)
        self._has_learned = True
        self._telemetry.notices_told = self._parts.models.steward.said
        learned, self._version = self._training.learned, self._training.version
        self._telemetry.learned.inc(learned)
        self._telemetry.log.info("training_log_learned", examples=learned, version=self._version)

    def _own(self, polled: Polled) -> None:
        """Make the live shards those that are assigned, and hand each its records."""
        if polled.assigned != self._live.keys():
            self._committer.join()
        for partition in [p for p in self._live if p not in polled.assigned]:
            del self._live[partition]
            if self._exchange is not None:
                self._exchange.release(partition)
            self._telemetry.log.info("shard_released", partition=partition)
        # Before anything is acquired: what a live shard was given must not be lost by an error, and
        # what was polled before a seek must not reach the shard that sought.
        for records in polled.records:
            live = self._live.get(records.partition)
            if live is not None and len(records):
                live.inbox.add(records)
        new, x = sorted(polled.assigned - self._live.keys()), self._exchange
        self._live |= {partition: self._acquire(partition) for partition in new}
        if new:
            self._learn(keep_up=True)  # versions never go back within a partition
            if x is not None:
                x.acquire(new)
        self._telemetry.lagging({p: len(live.inbox) for p, live in self._live.items()})
        self._listening.hear(polled, {p: live.inbox for p, live in self._live.items()})
        self._telemetry.stalled.set(self._listening.stalled)
        self._pause_full()
        self._telemetry.stand(bool(self._live), x is None or x.is_reached, self._flusher.is_away)

    def _acquire(self, partition: int) -> Live:
        parts, settings = self._parts, self._settings
        self._telemetry.ready, self._telemetry.reason = False, f"acquiring partition {partition}"
        started_s = self._clock_s()
        x = self._exchange
        foreign, rekeying = ((), None) if x is None else (x.names, x.rekeying(partition))
        shard = Shard(
            settings, parts.spec, parts.models, partition, parts.stream.learns_inline, foreign,
            parts.stream.partitions,
        )  # fmt: skip
        live = acquire(
            parts.stream, parts.store, self._topics, shard,
            space_of(settings.name, parts.spec, partition), parts.spec.spec_hash, self._ttls_ms,
            self._bounds.dirty_max,
            lambda done, total: self._telemetry.log.debug("shard_folding", done=done, total=total),
            self._patience.tick, rekeying,
        )  # fmt: skip
        self._telemetry.shard_acquired(
            live.spec_was, parts.spec.spec_hash, partition=partition,
            events_offset=shard.events_next, labels_offset=shard.labels_next, folded=live.folded,
            seconds=round(self._clock_s() - started_s, 3),
        )  # fmt: skip
        return live

    def _pause_full(self) -> None:
        """Take no more records of topics whose inbox holds two batches."""
        full: list[TopicPartition] = [
            (topic, partition)
            for partition, live in self._live.items()
            for topic in live.inbox.full(2 * self._bounds.batch_records_max)
        ]
        self._parts.stream.pause(full)

    def _batch(self, polled: Polled) -> int:
        """Process what every shard has ready and commit it as one transaction."""
        x = self._exchange
        self._degrading.hear(polled)
        if self._is_full() or not (x is None or x.catch_up(self._is_full)):
            self._patience.pause()
            return 0  # nothing is taken on; full inboxes pause the input
        for state, checkpoint in self._states():
            checkpoint.evict(state)
        found = ((live, self._prepare(live)) for live in self._live.values())
        ready = [(live, batch) for live, batch in found if batch is not None]
        needs = [(live.checkpoint, live.shard.supply(batch)) for live, batch in ready]
        if x is not None:
            needs += x.bring([(live.shard, batch.decoded.events) for live, batch in ready])
        together(needs, self._patience.insist)
        self._committer.join()  # its rows are in the overlays now
        if x is not None:
            x.recall()
        if self._parts.committing is not None:
            self._flush_due()  # before shards go on; the store has answered all that is asked
        self._learn()
        done = [(live, self._process(live, batch)) for live, batch in ready]
        if done:
            fault("processed")
            fetch = (lambda: None) if self._training is None else self._training.fetch
            self._committer.start(polled.generation, done, fetch)
        return sum(len(o.rows) for _, o in done)

    def _learn(self, keep_up: bool = False) -> None:
        """Apply the training records that are there; to ``keep_up``, all that others have."""
        if self._training is None or (self._degrading.level and not keep_up):
            return
        follow, tick = self._training.follow, self._patience.tick
        self._telemetry.learned.inc(self._training.keep_up(tick) if keep_up else follow())
        self._version = self._training.version
        self._telemetry.model_version.set(self._version)
        self._telemetry.reviewed(self._parts.models.steward)
        fault("learned")

    def _is_full(self) -> bool:
        """Return whether the store does not take what is dirty, at the cap."""
        return self._dirty() >= self._bounds.dirty_max and not self._flush_all()

    def _prepare(self, live: Live) -> Batch | None:
        """Return the next records of a shard, decoded; None where there are none."""
        partition = live.shard.partition
        events, labels, before = live.inbox.take(
            self._bounds.batch_records_max,
            events_end=self._listening.has_ended(self._settings.events.topic, partition),
            labels_end=self._listening.has_ended(self._topics.labels, partition),
        )
        if not len(events) and not len(labels):
            return None
        return live.shard.prepare(events, labels, before)

    def _process(self, live: Live, batch: Batch) -> Outcome:
        started_s = self._clock_s()
        live.shard.degraded = self._degrading.level
        result = live.shard.process(batch, self._version)
        if self._parts.stream.learns_inline:
            self._version += len(result.join.examples)
        outcome = self._emitter.outcome(live.shard, result)
        self._telemetry.batch_seconds.observe(self._clock_s() - started_s)
        return outcome

    def _dirty(self) -> int:
        mine = 0 if self._exchange is None else self._exchange.dirty_count
        return mine + sum(live.shard.dirty_count for live in self._live.values())

    def _flush_all(self) -> bool:
        """Flush everything that is dirty; return whether the store took all of it."""
        return self._flusher.flush(self._unflushed())

    def _flush_due(self) -> None:
        self._flusher.flush_due(self._unflushed, lambda: [one for _, one in self._states()])

    def _unflushed(self) -> list[Dirty]:
        """Return what is committed and not in the store."""
        self._committer.join()
        owned = {} if self._exchange is None else self._exchange.owned
        return [
            *(Dirty(p, live.shard, live.checkpoint, live.journal_next)
              for p, live in self._live.items()
              if live.shard.dirty_count or not live.checkpoint.is_settled),
            *(Dirty(q, one.owner, one.checkpoint, 0)
              for q, one in owned.items()
              if not one.is_flushed),
        ]  # fmt: skip

    def _states(self) -> list[tuple[Folded, Checkpoint]]:
        """Return all that goes to the store, with where it goes."""
        owned = {} if self._exchange is None else self._exchange.owned
        return [
            *((live.shard, live.checkpoint) for live in self._live.values()),
            *((one.owner, one.checkpoint) for one in owned.values()),
        ]

    def _flush_last(self) -> None:
        """Flush before leaving; what the store does not take, the next owner folds."""
        try:
            if self._flusher.every_s is not None:
                self._flush_all()
        except StateLostError as error:
            self._telemetry.lost(error)

    def _lose_all(self, error: RiverwatchError) -> None:
        """Forget everything that may not be committed; the next step acquires it again."""
        if self._live:
            self._telemetry.lost(error)
        self._telemetry.ready, self._telemetry.reason = False, str(error)
        self._committer.drain()
        self._flusher.drain()
        self._live.clear()
        self._telemetry.lagging({})
        if self._exchange is not None:
            self._exchange.release_all()
        self._patience.recover()
