"""One shard: partition p of events and labels, and everything derived from them. Pure: no I/O, no
clock.

The runner calls, per batch: `Shard.prepare` (decode), `missing` and `load` (state the shard does
not hold), `process` (features, scores, decisions, what to write). On recovery `fold` and
`fold_labels` take the place of `process`: they build the same state and write nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.contracts.clock import EventClock
from worker.contracts.records import Bool, Decoded, Events, Float64, Int64, Label, Records, Rejected
from worker.contracts.settings import Settings
from worker.decisions import Decided, Decider, Scores
from worker.decode import Decoder
from worker.errors import FatalError
from worker.features.spec import FeatureSpec
from worker.features.table import FeatureTables
from worker.labels import decode_labels
from worker.learning import Join, Scored, join_labels, with_observed
from worker.models.advance import advance
from worker.models.catalogue import ModelSet
from worker.models.reasons import FeatureStatistics, Snapshot
from worker.pending import Pending

PENDING_PREFIX = "pend"
SHARD_KEY = "shard"


@dataclass(slots=True)
class Batch:
    """Records of one shard after decoding.

    ``record_before`` says per label record, ``label_before`` per valid label, how many of the event
    records come before it.
    """

    records: Records
    decoded: Decoded
    label_records: Records
    record_before: Int64
    labels: list[Label]
    label_before: Int64
    rejected_labels: list[Rejected]


@dataclass(slots=True)
class Result:
    """What became of a batch, as columns over its valid events (n) and scored events (s).

    ``scored`` indexes the scored events; ``raw`` and ``calibrated`` have shape (s, n_models),
    ``score`` is the champion's calibrated one. ``snapshot`` has the statistics before each alert,
    in order, ``versions`` the model version that scored each event.
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
    ) -> None:
        self.partition = partition
        self.stamps: dict[str, str] = {}
        self.events_next = 0
        self.labels_next = 0
        self.clock = EventClock(settings.events.ahead_max)
        self.decider = Decider(settings, spec.names)
        self.tables = FeatureTables(
            spec, settings.primary_entity, settings.runner.entities_max, foreign
        )
        self.statistics = FeatureStatistics(len(spec.names))
        self.pending = _pending(settings, spec.spec_hash)
        self._spec_hash = spec.spec_hash
        self._decoder = Decoder(settings)
        self._models = models
        self._learns_inline = learns_inline

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the names of the models, in the order of the columns of ``raw``."""
        return self._models.names

    def prepare(self, events: Records, labels: Records, label_before: Int64) -> Batch:
        """Decode a batch. ``label_before`` says, per label record, how many event records come
        before it.
        """
        decoded = self._decoder.decode(events, self.clock)
        valid, index, rejected = decode_labels(labels)
        if self.pending is None:
            valid, index = [], []
        return Batch(events, decoded, labels, label_before, valid, label_before[index], rejected)

    def missing(self, batch: Batch) -> list[str]:
        """Return the store's keys, each once, that `process` or `fold` needs and memory lacks."""
        keys = [f"{entity}:{id_}" for entity, id_ in self.tables.missing(batch.decoded.events)]
        if self.pending is not None and batch.labels:
            # Also those of this batch's events: one may be a duplicate of an event long gone.
            asked = [label.event_id for label in batch.labels]
            keys += [f"{PENDING_PREFIX}:{i}" for i in self.pending.missing(asked)]
        return keys

    def load(self, keys: Sequence[str], values: Sequence[bytes | None]) -> None:
        """Take the values of keys named by `missing`."""
        split = [key.split(":", 1) for key in keys]
        waiting = [i for i, (kind, _) in enumerate(split) if kind == PENDING_PREFIX]
        states = [i for i, (kind, _) in enumerate(split) if kind != PENDING_PREFIX]
        self.tables.load([(split[i][0], split[i][1]) for i in states], [values[i] for i in states])
        if self.pending is not None:
            self.pending.load([split[i][1] for i in waiting], [values[i] for i in waiting])

    def process(self, batch: Batch, version: int) -> Result:
        """Score a batch and update the shard; event i sees every update by what came before it."""
        events = batch.decoded.events
        X, duplicate = self.tables.process(events)
        scored = np.flatnonzero(~duplicate)
        part = self._part(events, scored, X[scored])
        join, labelled = self._join(batch, part, events.index[scored])
        raw, calibrated = self._score(part.X, join)
        score = np.ascontiguousarray(calibrated[:, self._models.champion])
        join.fill_score(score)
        decided = self._decide(batch, scored, score, part.X)
        snapshot = self.statistics.update(part.X, np.flatnonzero(decided.alert))
        self._wait_for_labels(part, score, raw, labelled)
        self._advance(batch.records, batch.label_records)
        return Result(
            batch, X, scored, duplicate, raw, calibrated, score, decided,
            self._versions(version, len(scored), join), snapshot, join,
        )  # fmt: skip

    def fold(
        self, batch: Batch, recorded: Bool, scores: Float64, raw: Float64, X: Float64 | None
    ) -> None:
        """Redo a committed batch of events without a word: same state, no scores, no output.

        Parameters
        ----------
        recorded
            Per valid event, whether the journal says it was scored.
        scores, raw, X
            The deciding model's score, every model's and the features of the scored ones, from the
            journal; X is None where its rows are of another feature spec. Columns of entities that
            are kept elsewhere are taken from there as they are.

        Raises
        ------
        FatalError
            The features differ from the recorded ones: log, journal and code contradict each other.
        """
        events = batch.decoded.events
        again, duplicate = self.tables.process_own(events)
        scored = np.flatnonzero(~duplicate)
        own = self.tables.own_columns
        same = np.array_equal(~duplicate, recorded)
        if X is not None:
            same = same and np.array_equal(again[scored][:, own], X[:, own])
        if not same:
            raise FatalError(
                f"partition {self.partition}, events up to {batch.records.next_offset}",
                "features as the journal has them",
                "others",
                "the log, the journal or the features' code has changed; see docs/operations.md",
            )
        is_other = X is None and self.tables.has_foreign
        X = again[scored] if X is None else X
        self._decide(batch, scored, scores, X)
        if is_other:
            # What other shards' events made of it is not known: it teaches nothing.
            self._advance(batch.records, batch.label_records)
            return
        self.statistics.update(X, np.empty(0, np.int64))
        part = self._part(events, scored, X)
        early: set[int] = set()
        if self.pending is not None and self.pending.early:
            early = join_labels(self.pending, part, [], np.empty(0, np.int64))[1]
        self._wait_for_labels(part, scores, raw, early)
        self._advance(batch.records, batch.label_records)

    def fold_labels(self, batch: Batch) -> None:
        """Redo committed labels: events stop waiting; their examples are in the training log
        already.
        """
        nothing = self._part(batch.decoded.events, np.empty(0, np.intp), self._no_features())
        self._join(batch, nothing, np.empty(0, np.int64))
        self._advance(batch.records, batch.label_records)

    @property
    def dirty_count(self) -> int:
        """Return how many keys differ from the store."""
        return self.tables.dirty_count + (self.pending.dirty_count if self.pending else 0)

    def take_writes(self) -> list[tuple[str, bytes]]:
        """Return all changed keys with their values, the shard's own last, and call them clean."""
        writes = [(f"{entity}:{id_}", blob) for entity, id_, blob in self.tables.take_dirty()]
        if self.pending is not None:
            writes += [(f"{PENDING_PREFIX}:{i}", v) for i, v in self.pending.take_dirty()]
        return [*writes, (SHARD_KEY, self.to_bytes())]

    def evict(self) -> None:
        """Bring memory back within bounds. Only when the store has everything that was taken."""
        self.tables.evict()
        if self.pending is not None:
            self.pending.evict()

    def to_bytes(self) -> bytes:
        """Return the state that belongs to the shard as a whole: clock, decisions, statistics,
        early labels.
        """
        early = [] if self.pending is None else list(self.pending.early.values())
        return msgspec.msgpack.encode(
            {
                "clock": self.clock.to_tuple(),
                "decider": self.decider.to_bytes(),
                "spec": self._spec_hash,
                "statistics": self.statistics.to_bytes(),
                "learned": self.tables.learned.to_state(),
                "early": [[e.event_id, e.y, e.time_ms, e.weight, e.source] for e in early],
            }
        )

    def restore(self, state: bytes) -> None:
        """Take a state made by `to_bytes`; statistics of other features are left, to begin anew."""
        fields = msgspec.msgpack.decode(state)
        self.clock = EventClock.from_tuple(self.clock.ahead_max_ms, fields["clock"])
        self.decider.restore(fields["decider"])
        self.tables.learned.restore(fields["learned"])
        if fields["spec"] == self._spec_hash:
            self.statistics = FeatureStatistics.from_bytes(fields["statistics"])
        if self.pending is not None:
            for words in fields["early"]:
                self.pending.park(Label(*words))

    def _score(self, X: Float64, join: Join) -> tuple[Float64, Float64]:
        """Return raw and calibrated scores, each (n, n_models); the embedded run learns in between.

        Calibrators learn from raw scores as they were served, those of this batch included.
        """
        if self._learns_inline:
            return advance(self._models, X, join.examples, join.rows)
        raw = self._models.score(X)
        join.fill_raw(raw)
        return raw, self._models.calibrate(raw)

    def _join(self, batch: Batch, part: Scored, record_index: Int64) -> tuple[Join, set[int]]:
        if self.pending is None:
            join, labelled = _no_labels(part)
        else:
            before = np.searchsorted(record_index, batch.label_before, side="left")
            join, labelled = join_labels(self.pending, part, batch.labels, before.astype(np.int64))
        if self._models.learns_from_events and len(part.ids):
            join = with_observed(join, part)
        return join, labelled

    def _decide(
        self, batch: Batch, scored: NDArray[np.intp], score: Float64, X: Float64
    ) -> Decided:
        place = f"{batch.records.topic}-{self.partition}"
        return self.decider.decide(Scores(batch.decoded.events, scored, score, X, place))

    def _versions(self, version: int, count: int, join: Join) -> Int64:
        """Return the model version of each event: constant, or counting examples where learning is
        inline.
        """
        if not self._learns_inline:
            return np.full(count, version, np.int64)
        learned = np.searchsorted(join.examples.before, np.arange(count), side="right")
        return version + learned.astype(np.int64)

    def _part(self, events: Events, scored: NDArray[np.intp], X: Float64) -> Scored:
        ids = [events.ids[i] for i in scored.tolist()]
        return Scored(ids, events.time_ms[scored], X, len(self._models.names))

    def _no_features(self) -> Float64:
        return np.empty((0, self.statistics.feature_count))

    def _wait_for_labels(
        self, part: Scored, score: Float64, raw: Float64, labelled: Iterable[int]
    ) -> None:
        if self.pending is None:
            return
        keep = np.ones(len(part.ids), np.bool_)
        keep[list(labelled)] = False
        rows = np.flatnonzero(keep)
        ids = part.ids if len(rows) == len(part.ids) else [part.ids[i] for i in rows.tolist()]
        self.pending.add(ids, part.time_ms[rows], score[rows], raw[rows], part.X[rows])
        self.pending.forget_before(self.clock.now_ms - self.pending.horizon_ms)

    def _advance(self, events: Records, labels: Records) -> None:
        self.events_next = max(self.events_next, events.next_offset)
        self.labels_next = max(self.labels_next, labels.next_offset)


def _pending(settings: Settings, spec_hash: str) -> Pending | None:
    if settings.labels is None:
        return None
    return Pending(settings.labels.horizon, settings.labels.pending_max, spec_hash)


def _no_labels(part: Scored) -> tuple[Join, set[int]]:
    nothing = Pending(0, 1)
    return join_labels(nothing, part, [], np.empty(0, np.int64))


__all__ = ["PENDING_PREFIX", "SHARD_KEY", "Batch", "Events", "Result", "Shard"]
