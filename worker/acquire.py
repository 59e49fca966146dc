"""Acquire(p): the one way to a shard's state, for start, rebalance, failover and any doubt.

1. C := the committed offsets, read when no commit is pending. 2. Tail check: wait until the journal
has no open transaction; C := max(C, its last record's stamps). 3. R := where the store's fold
stands. Refuse what contradicts itself: R beyond C, a log that begins after R or ends before C,
   another number of partitions. Where `worker.repair` had the shard begin anew there is nothing
   before that.
4. Fold events and labels [R, C) silently, in the order that the journal has; what was said of an
   event comes from the journal too, nothing is scored again.
5. Live from C on.

If the worker dies anywhere in here, nothing was written but guarded flushes of true prefixes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from worker.arrow import read_batch, stamps_of, vectors_of
from worker.checkpoint import Checkpoint
from worker.contracts.decisions import ALERTS
from worker.contracts.needs import satisfy
from worker.contracts.records import Bool, Float64, Int64, Records, Served, unserved
from worker.errors import StateDamagedError
from worker.faults import fault
from worker.inbox import Buffer, Inbox
from worker.positions import (
    BEGINS,
    RESET,
    RESTORE,
    Topics,
    committed_of,
    refuse,
    standing,
    start_of,
)
from worker.rekeying import Rekeying
from worker.serving import Recorded
from worker.shard import SHARD_KEY, Shard
from worker.stores import Meta, StateStore
from worker.streams import Reader, Stream

_CHUNK = 2_000


@dataclass(slots=True)
class Live:
    """A shard that is ready for its next record, and where it stands.

    ``spec_was`` is the feature spec that the journal's last record was scored with, empty for none.
    """

    shard: Shard
    checkpoint: Checkpoint
    inbox: Inbox
    journal_next: int
    folded: int
    spec_was: str


def acquire(
    stream: Stream,
    store: StateStore,
    topics: Topics,
    shard: Shard,
    space: str,
    spec_hash: str,
    ttls_ms: tuple[int, int],
    dirty_max: int,
    progress: Callable[[int, int], None],
    tick: Callable[[], None],
    rekeying: Rekeying | None = None,
) -> Live:
    """Bring a fresh shard to the committed position and seek the stream there.

    ``progress`` is called with (events folded, events to fold) after every chunk, ``tick`` between
    polls: it may raise to end the work. ``rekeying`` is given the rows of records that were
    processed under another state, and closed.

    Raises
    ------
    FatalError
        Positions contradict each other; the message names the remedy.
    TransientError
        Stream or store are away; try again.
    """
    partition = shard.partition
    # R before C: an owner that goes on meanwhile moves C first, so what is read is never R > C.
    meta = standing(store, space)
    fault("acquire_standing")
    committed, stamps = committed_of(stream, topics, partition)
    shard.stamps |= {name: stamps[name] for name in (BEGINS,) if name in stamps}
    start = start_of(stream, topics, partition, committed, stamps, meta, tick)
    checkpoint = Checkpoint(store, space, meta, *ttls_ms, stream.partitions)
    if meta is not None:
        with checkpoint.guarding():
            state = checkpoint.load([SHARD_KEY])[0]
            if state is None:
                raise StateDamagedError(f"store {space}", "the shard's own state", "none")
            shard.restore(state, checkpoint.load)
            fault("acquire_restored")
    fold = _Fold(
        stream, topics, shard, checkpoint, start, spec_hash, dirty_max, progress, tick, rekeying
    )
    journal_next = fold.run(committed)
    stream.seek(partition, shard.events_next, shard.labels_next)
    fault("acquire_sought")
    inbox = Inbox(topics.events, topics.labels, partition, shard.events_next, shard.labels_next)
    spec_was = stamps.get("spec_hash", "")
    return Live(shard, checkpoint, inbox, journal_next, fold.folded, spec_was)


class _Fold:
    """Events and labels from R to C into a shard, in lockstep with the journal."""

    def __init__(
        self,
        stream: Stream,
        topics: Topics,
        shard: Shard,
        checkpoint: Checkpoint,
        start: Meta,
        spec_hash: str,
        dirty_max: int,
        progress: Callable[[int, int], None],
        tick: Callable[[], None],
        rekeying: Rekeying | None,
    ) -> None:
        self._tick = tick
        self._rekeying, self._lacks_rows = rekeying, False
        self.folded = 0
        self._spec_hash = spec_hash
        self._dirty_max = dirty_max
        self._stream = stream
        self._topics = topics
        self._shard = shard
        self._checkpoint = checkpoint
        self._start = start
        self._progress = progress
        # Before the end of the labels is asked: what these records know of labels is there then.
        self._journal_range = stream.log_range(topics.journal, shard.partition)
        self._journal_end = self._journal_range[1]
        self._labels = _LabelLog(stream, topics.labels, shard.partition, start.labels_offset, tick)
        shard.events_next, shard.labels_next = start.events_offset, start.labels_offset

    def run(self, committed: tuple[int, int] | None) -> int:
        """Fold up to C; return the journal's next offset."""
        events_end, labels_end = committed or (self._shard.events_next, self._shard.labels_next)
        try:
            self._start = self._readable(events_end, labels_end)
            journal_next = self._events(events_end)
            self._rest(labels_end)
            self._write_rows(journal_next)
        finally:
            self._labels.close()
            if self._rekeying is not None:
                self._rekeying.close()
        self._shard.events_next = max(self._shard.events_next, events_end)
        self._shard.labels_next = max(self._shard.labels_next, labels_end)
        return journal_next

    def _readable(self, events_end: int, labels_end: int) -> Meta:
        """Return R as the journal can be read from it.

        Where nothing is to be folded, retention may have taken what the journal had at R: of a
        quiet partition all of it, and the marker behind the last record that R lies before.
        """
        start, first = self._start, self._journal_range[0]
        if start.journal_offset >= first:
            return start
        if (start.events_offset, start.labels_offset) != (events_end, labels_end):
            expected, got = f"a log from {start.journal_offset} on", f"one from {first} on"
            refuse(self._topics.journal, self._shard.partition, expected, got, RESET)
        return replace(start, journal_offset=first)

    def _events(self, end: int) -> int:
        partition = self._shard.partition
        # First, for a reader asks at once: events come while the journal is waited for.
        log = self._stream.reader(self._topics.events, partition, self._start.events_offset)
        journal = self._stream.reader(self._topics.journal, partition, self._start.journal_offset)
        behind = Inbox(self._topics.events, None, partition, self._start.events_offset, 0)
        try:
            while journal.position < self._journal_end:
                for journal_next, rows in self._rows(journal):
                    self._note_rows(journal_next - 1, rows)
                    if rows.num_rows:
                        self._fold(rows, log, behind, end)
                    self._rest_of(rows)
                    if self._rekeying is not None and self._rekeying.is_full:
                        self._write_rows(journal_next)
                    if self._shard.dirty_count >= self._dirty_max:
                        self._flush(journal_next)
            self._check_complete(log, behind, end)
        finally:
            journal.close()
            log.close()
        return min(journal.position, max(self._journal_end, self._start.journal_offset))

    def _rows(self, journal: Reader) -> list[tuple[int, pa.RecordBatch]]:
        """Return the next record batches, each with the offset after it."""
        records = journal.poll(100, 10)
        self._tick()
        if records is None:
            return []
        topic, end = self._topics.journal, self._journal_end
        # What a successor has written since may know of labels beyond the end that was asked.
        pairs = [p for p in zip(records.offsets, records.values, strict=True) if p[0] < end]
        batches = [(offset + 1, read_batch(value or b"", topic)) for offset, value in pairs]
        said = [int(stamps_of(batch).get("next_notices", 0)) for _, batch in batches]
        self._shard.notices_next = max([self._shard.notices_next, *said])
        return batches

    def _note_rows(self, offset: int, rows: pa.RecordBatch) -> None:
        """See whether what follows, up to the next journal record, is to be re-keyed."""
        if self._rekeying is not None:
            self._lacks_rows = self._rekeying.lacks(offset, stamps_of(rows))

    def _rest_of(self, rows: pa.RecordBatch) -> None:
        """Fold the labels that came after the last event of a journal record's transaction.

        They are of its state, not of that of the next one.
        """
        stamps = stamps_of(rows)
        if int(stamps["next_events"]) <= self._shard.events_next:
            self._rest(int(stamps["next_labels"]))

    def _write_rows(self, journal_next: int) -> None:
        if self._rekeying is not None:
            self._rekeying.write(journal_next)

    def _flush(self, journal_next: int) -> None:
        self._write_rows(journal_next)  # first: a state never stands beyond its rows
        self._checkpoint.flush(self._shard, journal_next)

    def _check_complete(self, log: Reader, behind: Inbox, end: int) -> None:
        """Refuse when events before C have no journal row: their state would be missing."""
        while log.position < end and not len(behind):
            records = log.poll(100, 1)
            self._tick()
            if records is not None:
                behind.add(_until(records, end))
        left = behind.take(len(behind), events_end=False, labels_end=True)[0]
        missing = [offset for offset in left.offsets if offset < end]
        if missing:
            refuse(self._topics.journal, self._shard.partition,
                    f"a row of the event at {missing[0]}", "none", RESET)  # fmt: skip

    def _fold(self, rows: pa.RecordBatch, log: Reader, behind: Inbox, end: int) -> None:
        offsets = rows.column("source_offset").to_numpy()
        fresh = offsets >= self._shard.events_next
        if not fresh.any():
            return
        if not fresh.all():
            rows = rows.filter(pa.array(fresh))
        recorded = offsets[fresh].tolist()
        while len(behind) < len(recorded):
            records = log.poll(100, _CHUNK)
            self._tick()
            if records is not None:
                behind.add(records)
            elif log.position >= end:
                break
        events = behind.take(len(recorded), events_end=False, labels_end=True)[0]
        if events.offsets != recorded[: len(events)]:
            refuse(events.topic, events.partition, "the offsets that the journal has", "others",
                    RESET)  # fmt: skip
        if len(events) < len(recorded):
            missing = recorded[len(events)]
            refuse(events.topic, events.partition,
                    f"the record at {missing}", f"a log that ends at {end}", RESTORE)  # fmt: skip
        known = rows.column("labels_offset").fill_null(0).to_numpy()
        labels, before = self._labels.take(np.maximum.accumulate(known))
        scored = _is(rows, "outcome", "scored")
        valid = ~_is(rows, "outcome", "rejected")
        some = slice(None) if scored.all() else scored  # x is long: a copy is saved
        X = vectors_of(rows)[some] if self._is_same_spec(rows) else None
        champion = stamps_of(rows).get("model", "")
        raw = self._scores(rows, "raw")[some]
        said = Recorded(scored[valid], self._served(rows)[some], raw, X, champion)
        self._redo(events, labels, before, said)
        self.folded += rows.num_rows
        self._progress(self.folded, max(0, end - self._start.events_offset))

    def _served(self, rows: pa.RecordBatch) -> Served:
        """Return how the rows were served, but for their entity."""
        served = unserved(rows.num_rows, len(self._shard.model_names))
        for name in ("score", "threshold"):
            served[name] = rows.column(name).to_numpy(zero_copy_only=False)
        served["alert"] = _is(rows, "decision", *ALERTS)
        served["scores"] = self._scores(rows, "score")
        return served

    def _scores(self, rows: pa.RecordBatch, kind: str) -> Float64:
        """Return every model's recorded score (n, models); NaN where a row has no such model."""
        found = np.full((rows.num_rows, len(self._shard.model_names)), np.nan)
        for i, name in enumerate(self._shard.model_names):
            if f"{kind}_{name}" in rows.schema.names:
                found[:, i] = rows.column(f"{kind}_{name}").to_numpy(zero_copy_only=False)
        return found

    def _is_same_spec(self, rows: pa.RecordBatch) -> bool:
        """Return whether the rows' x is what this worker would compute; older specs have others."""
        return stamps_of(rows).get("spec_hash") == self._spec_hash

    def _rest(self, end: int) -> None:
        """Fold the labels that came after the last event."""
        partition = self._shard.partition
        nothing = Records(self._topics.events, partition, [], [], [], [], self._shard.events_next)
        width = len(self._shard.model_names)
        while len(labels := self._labels.before(end, _CHUNK)):
            nobody = np.empty(0, np.bool_)
            unsaid = Recorded(nobody, unserved(0, width), np.empty((0, width)), None)
            self._redo(nothing, labels, np.zeros(len(labels), np.int64), unsaid)

    def _redo(self, events: Records, labels: Records, before: Int64, recorded: Recorded) -> None:
        batch = self._shard.prepare(events, labels, before)
        with self._checkpoint.guarding():
            needs = self._shard.supply(batch, is_new=self._checkpoint.is_new)
            satisfy(needs, self._checkpoint.load)
        rows = self._shard.fold(batch, recorded, tells=self._lacks_rows)
        if self._lacks_rows and self._rekeying is not None:
            self._rekeying.add(rows, max(0, self._shard.clock.now_ms))
        fault("acquire_folded")


class _LabelLog:
    """The labels of one shard from a position on, in the portions that the journal tells."""

    def __init__(
        self,
        stream: Stream,
        topic: str | None,
        partition: int,
        start: int,
        tick: Callable[[], None],
    ) -> None:
        self._log = None if topic is None else stream.reader(topic, partition, start)
        self._end = 0 if topic is None else stream.log_range(topic, partition)[1]
        self._here = Buffer(topic or "", partition, start)
        self._tick = tick

    def close(self) -> None:
        """Give back the reader."""
        if self._log is not None:
            self._log.close()

    def take(self, known: Int64) -> tuple[Records, Int64]:
        """Return the next labels, and per label how many events come before it.

        ``known`` says per event which offset the labels had reached; it does not decrease.
        """
        labels = self.before(int(known[-1]) if len(known) else 0)
        before = np.searchsorted(known, np.array(labels.offsets, np.int64), side="right")
        return labels, before.astype(np.int64)

    def before(self, end: int, count_max: int | None = None) -> Records:
        """Return the next labels before an offset, at most so many."""
        count = 0
        while True:
            count = bisect_left(self._here.offsets, end)
            is_enough = count_max is not None and count >= count_max
            if is_enough or self._log is None or self._log.position >= min(end, self._end):
                break
            records = self._log.poll(100, _CHUNK)
            self._tick()
            if records is not None:
                self._here.add(records)
        return self._here.take(count if count_max is None else min(count, count_max))


def _is(rows: pa.RecordBatch, column: str, *words: str) -> Bool:
    """Return where a coded column has one of these words; a null has none."""
    coded = rows.column(column)
    is_meant = np.array([word in words for word in coded.dictionary.to_pylist()] + [False])
    return np.asarray(is_meant[coded.indices.fill_null(-1).to_numpy()])


def _until(records: Records, end: int) -> Records:
    """Return the records before offset ``end``."""
    count = sum(offset < end for offset in records.offsets)
    return Records(
        records.topic,
        records.partition,
        records.offsets[:count],
        records.timestamps_ms[:count],
        records.keys[:count],
        records.values[:count],
        min(records.next_offset, end),
    )
