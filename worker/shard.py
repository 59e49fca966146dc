"""One shard: partition p of events and labels, and everything derived from them. Pure: no I/O, no
clock.

The runner calls, per batch: `Shard.prepare` (decode), `supply` (state the shard does not hold),
`process` (features, scores, decisions, what to write). On recovery `fold` takes the place of
`process`: it builds the same state and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.contracts.clock import EventClock
from worker.contracts.needs import Needs
from worker.contracts.records import (
    Bool,
    Decoded,
    Events,
    Float64,
    Int64,
    Labels,
    Records,
    Rejected,
)  # fmt: skip
from worker.contracts.settings import Settings
from worker.decisions import Decided, Decider
from worker.decode import Decoder
from worker.errors import FatalError
from worker.features.spec import FeatureSpec
from worker.features.table import FeatureTables, TableRows
from worker.labels import decode_labels
from worker.learning import Join, Walk, no_labels, with_observed
from worker.models.attribution import Attribution
from worker.models.catalogue import ModelSet
from worker.models.reasons import FeatureStatistics, Measure, Snapshot
from worker.models.series_table import OwnPast, series_tables
from worker.pending import Pending, PendingState, rules_of
from worker.segments import Part, apart, label_cuts, maturity_cuts, merged, parts_of, slice_of
from worker.serving import Recorded, Serving
from worker.waiting import Layout, Scored, scored_events

SHARD, _STATE = "shard", "state"
SHARD_KEY = f"{SHARD}:{_STATE}"


@dataclass(slots=True)
class Batch:
    """Records of one shard after decoding.

    ``record_before`` says per label record, ``label_before`` per valid label, how many of the event
    records come before it. ``clock`` is the shard's when it has processed the batch.
    """

    clock: EventClock
    records: Records
    decoded: Decoded
    label_records: Records
    record_before: Int64
    labels: Labels
    label_before: Int64
    rejected_labels: list[Rejected]


@dataclass(slots=True)
class Result:
    """What became of a batch, as columns over its valid events (n) and scored events (s).

    ``scored`` indexes the scored events; ``raw`` and ``calibrated`` have shape (s, n_models),
    ``score`` is the champion's calibrated one. ``snapshot`` has statistics, ``contributions`` what
    features did and ``levels`` the primary entity's own (NaN where it has none), per alert;
    ``versions`` the model version that scored each event.
    """

    batch: Batch
    X: Float64
    scored: NDArray[np.intp]
    duplicate: Bool
    raw: Float64
    calibrated: Float64
    score: Float64
    decided: Decided
    versions: Int64
    snapshot: Snapshot
    contributions: Float64
    levels: Float64
    measure: Measure
    join: Join


class Shard:
    """The state of one partition pair.

    Parameters
    ----------
    models
        The worker's models: shared by its shards, changed by the training log only.
    learns_inline
        True where `process` itself teaches the models (the embedded run: one shard, zero lag).
    foreign
        Entity types whose state is kept elsewhere, see `worker.secondary`; whoever brings it in
        may set ``stamps``, which every journal record then carries.
    """

    def __init__(
        self,
        settings: Settings,
        spec: FeatureSpec,
        models: ModelSet,
        partition: int,
        learns_inline: bool,
        foreign: Collection[str] = (),
        partitions: int = 1,
    ) -> None:
        self.partition = partition
        self.stamps: dict[str, str] = {}
        self.degraded = 0  # what to leave out, see `worker.degrading`
        self.events_next = 0
        self.labels_next = 0
        self.notices_next = 0  # partition 0 publishes what befell models, each notice once
        self.clock = EventClock(settings.events.ahead_max)
        self.partitions = partitions
        self.decider = Decider(settings, spec.names, partition, partitions)
        series = series_tables(settings, spec)
        self._own_past = OwnPast(series)
        self.tables = FeatureTables(
            spec, settings.primary_entity, settings.runner.entities_max, foreign, series
        )
        self.statistics = FeatureStatistics(len(spec.names))
        self._layout = Layout(
            spec.spec_hash, len(spec.names), models.names,
            spec.label_entities, spec.label_fields, spec.label_scores, spec.filters,
            settings.primary_entity if settings.labels else "",
        )  # fmt: skip
        self.pending = None
        if settings.labels is not None:
            self.pending = Pending(rules_of(settings.labels), self._layout)
        self._decoder = Decoder(settings)
        self._models = models
        self._features = spec.features if settings.decision.reasons_max else ()
        self._learns_inline = learns_inline
        self._serving = Serving(
            models, self.decider, self._layout.scores, partition, learns_inline=learns_inline
        )

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the names of the models, in the order of the columns of ``raw``."""
        return self._layout.models

    def prepare(self, events: Records, labels: Records, label_before: Int64) -> Batch:
        """Decode a batch; the shard is as before. ``label_before`` says, per label record, how many
        event records come before it.
        """
        clock = self.clock.copy()
        decoded = self._decoder.decode(events, clock)
        valid, index, bad = decode_labels(labels)
        if self.pending is None:
            valid, index = valid.slice(0, 0), index[:0]
        before = label_before[index]
        return Batch(clock, events, decoded, labels, label_before, valid, before, bad)

    def supply(self, batch: Batch, *, is_new: bool = False) -> Needs[None]:
        """Bring in what `process` or `fold` needs of the store and memory lacks.

        It may ask again: what is a duplicate of a stored event, and which entities a label is
        about, is known when their states are there. A store that ``is_new`` is not asked.
        """
        events, pending = batch.decoded.events, self.pending
        states = self.tables.missing(events)
        if pending is None:
            yield from self._load(states, [], is_new)
            return
        clock_ms = int(events.time_ms.max(initial=-1))

        def waiting(ids: list[str]) -> list[str]:
            return [] if is_new else pending.missing(ids, clock_ms, len(events))

        asked, here = apart(events, batch.labels, batch.label_before)
        yield from self._load(states, waiting(asked), is_new)
        if not is_new and (held := self.tables.held(events, here)):
            again = [events.ids[i] for i in held]
            yield from self._load([], waiting(again), is_new)
            asked += again
        if self._layout.entities:
            ids = pending.entity_ids(asked, clock_ms, len(events))
            yield from self._load(self.tables.missing_labelled(ids), [], is_new)

    def _load(self, states: list[tuple[str, str]], waiting: list[str], is_new: bool) -> Needs[None]:
        if is_new:
            self.tables.load(states, [None] * len(states))
            return
        keys = [*map(":".join, states), *waiting]
        values = (yield keys) if keys else []
        self.tables.load(states, values[: len(states)])
        if self.pending is not None:
            self.pending.load(waiting, values[len(states) :])

    def process(self, batch: Batch, version: int) -> Result:
        """Score a batch and update the shard; event i sees every update by what came before it."""
        attribution = Attribution(self._models, is_inline=self._learns_inline)
        part = merged(list(self._parts(batch, None)))
        scored, join, decided = part.scored, part.join, part.decided
        alerts = np.flatnonzero(decided.alert)
        snapshot = self.statistics.update(scored.X, alerts)
        contributions = attribution.explained(
            self._features, scored.X, scored.raw, alerts, snapshot.mean, join.examples
        )
        past = part.past[alerts]
        levels = self._own_past.explain(self._models.champion_name, past, contributions)
        self._advance(batch)
        return Result(
            batch, part.X, scored.rows, part.duplicate, scored.raw, scored.calibrated, scored.score,
            decided, self._versions(version, len(scored), join), snapshot, contributions, levels,
            attribution.measure, join,
        )  # fmt: skip

    def fold(self, batch: Batch, recorded: Recorded, *, tells: bool = False) -> TableRows:
        """Redo a committed batch without a word: same state, no scores, no output.

        Returns its rows of entities that are kept elsewhere, if it ``tells`` them.

        Columns of entities that are kept elsewhere are taken from the journal as they are.

        Raises
        ------
        FatalError
            The features differ from the recorded ones: log, journal and code contradict each other.
        """
        part = merged(list(self._parts(batch, recorded)))
        if recorded.X is not None or not self.tables.has_foreign:
            self.statistics.update(part.scored.X, np.empty(0, np.int64))
        self._advance(batch)
        if not tells:
            self.tables.tell_nobody()
            return {}
        return self.tables.foreign_rows(batch.decoded.events, part.duplicate)

    @property
    def dirty_count(self) -> int:
        """Return how many keys differ from the store."""
        return self.tables.dirty_count + (self.pending.dirty_count if self.pending else 0)

    def take_writes(self) -> list[tuple[str, list[str], Sequence[bytes | None]]]:
        """Return kind, names and values of all that has changed, the shard's own last, and call it
        clean.

        A value of None is to be deleted.
        """
        pending = [] if self.pending is None else self.pending.take_dirty()
        own = (SHARD, [_STATE], [self.to_bytes()])
        return [*self.tables.take_dirty(), *pending, own]

    def evict(self) -> None:
        """Bring memory back within bounds. Only when the store has everything that was taken."""
        self.tables.evict()
        if self.pending is not None:
            self.pending.evict()

    def to_bytes(self) -> bytes:
        """Return the state that belongs to the shard as a whole: clock, decisions, statistics,
        early labels.
        """
        return msgspec.msgpack.encode(
            {
                "clock": self.clock.to_tuple(),
                "decider": self.decider.to_bytes(),
                "spec": self._layout.spec_hash,
                "statistics": self.statistics.to_bytes(),
                "learned": self.tables.learned.to_state(),
                "pending": None if self.pending is None else self.pending.to_state(),
                "notices": self.notices_next,
            }
        )

    def restore(self, state: bytes, load: Callable[[list[str]], list[bytes | None]]) -> None:
        """Take a state made by `to_bytes`; statistics of other features are left, to begin anew."""
        fields = msgspec.msgpack.decode(state)
        self.clock = EventClock.from_tuple(self.clock.ahead_max_ms, fields["clock"])
        self.decider.restore(fields["decider"])
        self.notices_next = fields["notices"]
        self.tables.learned.restore(fields["learned"])
        if fields["spec"] == self._layout.spec_hash:
            self.statistics = FeatureStatistics.from_bytes(fields["statistics"])
        if self.pending is not None and fields["pending"] is not None:
            self.pending.restore(msgspec.convert(fields["pending"], PendingState))
            owed = self.pending.owed()
            self.pending.load(owed, load(owed) if owed else [])

    def _parts(self, batch: Batch, recorded: Recorded | None) -> Iterator[Part]:
        """Process a batch part by part; usually it is one."""
        events = batch.decoded.events
        before = np.searchsorted(events.index, batch.label_before, side="left").astype(np.int64)
        done = 0
        cuts = self._cuts(events, batch.labels, before)
        for start, some, labels, places in parts_of(events, batch.labels, before, *cuts):
            said = None
            if recorded is not None:
                scored = recorded.scored[start : start + len(some)]
                known = slice(done, done + int(scored.sum()))
                X = None if recorded.X is None else recorded.X[known]
                served, raw = recorded.served[known], recorded.raw[known]
                said = Recorded(scored, served, raw, X, recorded.champion)
                done = known.stop
            yield self._part(batch.records.topic, some, labels, places, said)

    def _cuts(
        self, events: Events, labels: Labels, before: Int64
    ) -> tuple[list[int], Iterator[int]]:
        fixed: list[int] = []
        told: Iterator[int] = iter(())
        if self.pending is None:
            return fixed, told
        remembers = bool(self._layout.entities)
        if self.pending.rules.maturity_ms is not None:
            fixed = maturity_cuts(self.pending, events, remembers=remembers)
        if remembers:
            told = label_cuts(self.pending, events.ids, labels, before)
        return fixed, told

    def _part(
        self, topic: str, events: Events, labels: Labels, before: Int64,
        recorded: Recorded | None,
    ) -> Part:  # fmt: skip
        walk = None if self.pending is None else Walk(self.pending, events.time_ms)
        updates = None
        if walk is not None and self._layout.entities:
            walk.go(labels, before)  # of no event here: the batch was cut
            labels, before, updates = labels.slice(0, 0), before[:0], walk.updates()
        if recorded is None:
            X, duplicate = self.tables.process(events, updates)
        else:
            X, duplicate = self.tables.process_own(events, updates)
            self._agree(X, duplicate, recorded)
        rows = np.flatnonzero(~duplicate)
        past = self._own_past.of(rows)
        scored = scored_events(self._layout, events, rows, X[rows])
        if self.pending is None or walk is None:
            join = no_labels(scored)
        else:
            walk.go(labels, before, scored.ids, rows)
            # What was learned is in the training log: who folds makes no examples.
            join = walk.join(scored) if recorded is None else no_labels(scored)
        if self._models.learns_from_events and len(scored) and recorded is None:
            join = with_observed(join, scored)
        if recorded is None:
            decided = self._serving.serve(topic, events, scored, join, self.degraded)
        else:
            decided = self._serving.redo(topic, events, scored, recorded)
        # What other shards' events made of an x is in the journal only: without it, it is unknown.
        is_known = recorded is None or recorded.X is not None or not self.tables.has_foreign
        if walk is not None:
            self._wait(walk, scored, events, teaches=is_known)
        return Part(X, duplicate, scored, join, decided, past)

    def _agree(self, X: Float64, duplicate: Bool, recorded: Recorded) -> None:
        """Hold what was computed again against the journal, and take from it what is not."""
        same = np.array_equal(~duplicate, recorded.scored)
        if recorded.X is not None:
            own = self.tables.own_columns
            same = same and np.array_equal(X[~duplicate][:, own], recorded.X[:, own])
        if not same:
            raise FatalError(
                f"partition {self.partition}, events after {self.events_next}",
                "features as the journal has them", "others",
                "the log, the journal or the features' code has changed; see docs/operations.md",
            )  # fmt: skip
        if recorded.X is not None:
            X[~duplicate] = recorded.X

    def _wait(self, walk: Walk, scored: Scored, events: Events, *, teaches: bool) -> None:
        """Let the scored events wait for their labels; label features get those that were early."""
        assert self.pending is not None, "a walk is along pending events"
        number, clock_ms = self.pending.number + scored.rows, walk.clock_ms[scored.rows + 1]
        told = walk.unlabelled(scored), walk.truths(scored)
        self.pending.add(scored, clock_ms, number, *told, teaches=teaches)
        if self._layout.entities:
            updates = walk.updates_here()
            if len(updates):
                self.tables.process(slice_of(events, len(events), len(events)), updates)
        walk.finish()

    def _versions(self, version: int, count: int, join: Join) -> Int64:
        """Return the model version of each event; it counts examples where learning is inline."""
        if not self._learns_inline:
            return np.full(count, version, np.int64)
        learned = np.searchsorted(join.examples.before, np.arange(count), side="right")
        return version + learned.astype(np.int64)

    def _advance(self, batch: Batch) -> None:
        self.clock = batch.clock
        self.events_next = max(self.events_next, batch.records.next_offset)
        self.labels_next = max(self.labels_next, batch.label_records.next_offset)
