"""Events that wait for their label, the truths known of them, and labels that came too soon.

Everything here is a fold of the events and labels of one shard in their merged order, however the
stream is cut into batches: what a label finds is told by rules over its position, never by what
happens to be in memory. An event *waits* under `EVENTS`, with all that was said of it and what is
known of it. A label whose event has not been seen is *early*: such labels are few, and live in
memory and in the shard's own state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from worker.contracts.records import Bool, Int64, Label, Labels, UInt64
from worker.contracts.settings import LabelSettings, SourceSettings
from worker.maturity import MaturityQueue
from worker.waiting import Layout, Scored, Truth, Truths, no_truths
from worker.waiting_codec import WaitingCodec

EARLY_MAX = 10_000
"""Early labels kept per shard; beyond it the oldest is dropped and counted."""

PREFIX = "pend~"
EVENTS, QUEUE = f"{PREFIX}x", f"{PREFIX}q"
"""First parts of the store's keys. No entity can be called so."""

_SAMPLE_SALT = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying mixes the bits, Knuth's hashing
_EVICT_TO = 15 / 16  # of the bound, so that finding the oldest is paid once for many


@dataclass(frozen=True, slots=True)
class Rules:
    """What becomes of labels, from the section ``labels``."""

    horizon_ms: int
    waiting_max: int
    cached_max: int
    learns: bool
    maturity_ms: int | None
    negative_rate: float
    sources: dict[str, SourceSettings]

    @property
    def keep_ms(self) -> int:
        """Return how long an event can be found: an eighth longer than the horizon.

        So that a label which is a little late is called expired, and not unknown.
        """
        return self.horizon_ms + self.horizon_ms // 8

    def can_be_found(self, age_ms: int | Int64, number: int | Int64) -> bool | Bool:
        """Return whether an event can be found, or which of many.

        Not when the shard's event time is further than `keep_ms` beyond that at which it came, and
        not when its ``number``, counted back from now, is beyond ``waiting_max``.
        """
        return (age_ms <= self.keep_ms) & (number <= self.waiting_max)

    def truth(self, label: Label) -> Truth:
        """Return what a label says, as `truths` does."""
        factor, most, learns = self._weighing(label.source)
        weight = min(label.weight * factor, most)
        return Truth(label.y, weight, weight if learns else 0.0)

    def truths(self, labels: Labels) -> Truths:
        """Return what labels say: the weight after the source's multiplier and cap, and that for
        learning.

        The second is 0.0 where nobody learns from it.
        """
        truths = no_truths(len(labels))
        sources = labels.sources if self.sources else [""]  # one way for all of them
        told = np.array([self._weighing(one) for one in sources], np.float64)
        factor, most, learns = told.reshape(-1, 3).T
        weight = np.minimum(labels.weight * factor, most)
        truths["y"], truths["weight"] = labels.y, weight
        truths["learn_weight"] = np.where(learns, weight, 0.0)
        return truths

    def _weighing(self, source: str) -> tuple[float, float, bool]:
        """Return factor and cap of a source's weights, and whether models learn from it."""
        if not self.sources:
            return 1.0, np.inf, self.learns
        one = self.sources.get(source) or self.sources.get("default") or SourceSettings()
        return one.weight, one.weight_max, self.learns and one.learn

    def samples(self, id_hash: UInt64) -> Bool:
        """Return which events count as negative when nobody labels them: told by their ids."""
        mixed = (id_hash ^ (id_hash >> np.uint64(32))) * _SAMPLE_SALT
        return (mixed >> np.uint64(11)).astype(np.float64) < self.negative_rate * 2.0**53


def rules_of(labels: LabelSettings) -> Rules:
    """Return the rules that a configuration declares."""
    return Rules(
        labels.horizon, labels.pending_max, labels.cached_max, labels.mode != "none",
        labels.maturity if labels.mode == "positives_only" else None, labels.negative_rate,
        dict(labels.sources),
    )  # fmt: skip


class PendingState(msgspec.Struct):
    """What `Pending` keeps in the shard's own value."""

    clock_ms: int
    number: int
    queue: tuple[int, int]
    early: list[tuple[str, int, int, float, str]]


class Pending:
    """Pending events of one shard: a write-back cache over the store.

    ``clock_ms`` is the largest event time, ``number`` the count of events processed so far,
    duplicates included.
    """

    def __init__(self, rules: Rules, layout: Layout) -> None:
        self.rules = rules
        self.codec = WaitingCodec(layout)
        self.clock_ms = -1
        self.number = 0
        self.early: dict[str, Label] = {}
        self.queue = MaturityQueue(QUEUE)
        self._events = _Cache(EVENTS)

    def missing(self, event_ids: Sequence[str], clock_ms: int, events: int) -> list[str]:
        """Return the store's keys that labels of these events need and memory lacks, each once.

        Also of the events that will count as negative until ``clock_ms``, within ``events`` more.
        """
        return self._events.missing(self._asked(event_ids, clock_ms, events))

    def entity_ids(
        self, event_ids: Sequence[str], clock_ms: int, events: int
    ) -> dict[str, list[str]]:
        """Return the ids of the entities that the events named as for `missing` are of."""
        asked = self._asked(event_ids, clock_ms, events)
        found = [value for i in asked if (value := self._events.values.get(i)) is not None]
        return self.codec.unpack(found).entity_ids

    def load(self, keys: Sequence[str], values: Sequence[bytes | None]) -> None:
        """Take what the store holds of keys named by `missing` or `owed`."""
        places: dict[str, Callable[[str, bytes | None], object]] = {
            EVENTS: self._events.values.setdefault,
            QUEUE: self.queue.load,
        }
        for key, value in zip(keys, values, strict=True):
            kind, _, name = key.partition(":")
            places[kind](name, value)

    def _asked(self, event_ids: Sequence[str], clock_ms: int, events: int) -> dict[str, None]:
        asked = dict.fromkeys(event_ids)
        if self.rules.maturity_ms is not None:
            due_ms = max(clock_ms, self.clock_ms) - self.rules.maturity_ms
            asked |= dict.fromkeys(self.queue.until(due_ms, events))
        return asked

    def waiting(self, event_id: str, clock_ms: int, number: int) -> bytes | None:
        """Return the event of this id, as packed, if it can still be found (`Rules`)."""
        value = self._events.values.get(event_id)
        if value is None:
            return None
        _, came_ms, came = self.codec.place(value)
        return value if self.rules.can_be_found(clock_ms - came_ms, number - came) else None

    def values_of(self, event_ids: Iterable[str | None]) -> list[bytes | None]:
        """Return the events of these ids, as packed; None for one that memory does not have."""
        values: Mapping[str | None, bytes | None] = self._events.values  # type: ignore[assignment]
        return list(map(values.get, event_ids))

    def value(self, event_id: str) -> bytes:
        """Return the event of this id, which was just added."""
        value = self._events.values[event_id]
        assert value is not None, "an event that was added"
        return value

    def know(self, event_id: str, value: bytes, truth: Truth) -> None:
        """Note the truth about an event that waits as ``value``."""
        self._events.values[event_id] = self.codec.with_truth(value, truth)
        self._events.dirty[event_id] = None

    def add(
        self, part: Scored, clock_ms: Int64, number: Int64, unlabelled: Bool,
        truths: Truths, *, teaches: bool = True,
    ) -> None:  # fmt: skip
        """Make scored events wait; a later one of the same id takes the place of the earlier.

        The columns are parallel to ``part``; those ``unlabelled`` may come to count as negative.
        ``truths`` are what is known already. Where x is not known it ``teaches`` nothing; label
        features hear of these events too.
        """
        values = self.codec.pack(part, clock_ms, number, truths, teaches=teaches)
        self._events.put(part.ids, values)
        if self.rules.maturity_ms is not None:
            for i in np.flatnonzero(self.rules.samples(part.id_hash) & unlabelled).tolist():
                self.queue.append(int(clock_ms[i]), int(number[i]), part.ids[i])

    def advance(self, clock_ms: int, number: int) -> None:
        """Go on to the next batch."""
        self.clock_ms, self.number = clock_ms, number
        self.queue.forget(number - self.rules.waiting_max)

    def park(self, label: Label, clock_ms: int) -> tuple[int, int]:
        """Keep an early label; a second one for the same event takes the place of the first.

        Return how many were dropped: because their event did not come in time, and because there
        are too many. An event that comes when they are older than the horizon does not take them.
        """
        late = 0
        while self.early and self.is_stale(next(iter(self.early.values())), clock_ms):
            del self.early[next(iter(self.early))]
            late += 1
        self.early.pop(label.event_id, None)
        self.early[label.event_id] = label
        if len(self.early) <= EARLY_MAX:
            return late, 0
        del self.early[next(iter(self.early))]
        return late, 1

    def is_stale(self, label: Label, clock_ms: int) -> bool:
        """Return whether an early label is older than the horizon at an event time."""
        return clock_ms - label.time_ms > self.rules.horizon_ms

    @property
    def dirty_count(self) -> int:
        """Return how many entries the store does not have yet."""
        return len(self._events.dirty) + self.queue.dirty_count

    def take_dirty(self) -> list[tuple[str, list[str], list[bytes | None]]]:
        """Return kind, names and values of all that has changed, and call it clean.

        A value of None is to be deleted.
        """
        taken = [(EVENTS, *self._events.take_dirty()), (QUEUE, *self.queue.take_dirty())]
        return [part for part in taken if part[1]]

    def evict(self) -> None:
        """Drop what can no longer be found, and the oldest clean entries beyond ``cached_max``.

        Call it only when everything taken by `take_dirty` is in the store.
        """
        oldest_ms = self.clock_ms - self.rules.keep_ms
        self._events.evict(self.rules.cached_max, oldest_ms)

    def to_state(self) -> PendingState:
        """Return what belongs to the shard's own value: few numbers and the early labels."""
        early = [(e.event_id, e.y, e.time_ms, e.weight, e.source) for e in self.early.values()]
        return PendingState(self.clock_ms, self.number, self.queue.ends, early)

    def restore(self, state: PendingState) -> None:
        """Take a state made by `to_state`; then load what is `owed`."""
        self.clock_ms, self.number = state.clock_ms, state.number
        self.queue = MaturityQueue(QUEUE, state.queue)
        self.early = {words[0]: Label(*words) for words in state.early}

    def owed(self) -> list[str]:
        """Return the keys to be loaded after `restore`."""
        return self.queue.owed()


class _Cache:
    """Values of one kind of keys; None is known to be absent from the store."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.values: dict[str, bytes | None] = {}
        self.dirty: dict[str, None] = {}  # a dict for its order

    def missing(self, names: dict[str, None]) -> list[str]:
        return [f"{self._kind}:{name}" for name in names if name not in self.values]

    def put(self, names: Sequence[str], values: Sequence[bytes]) -> None:
        self.values.update(zip(names, values, strict=True))
        self.dirty.update(dict.fromkeys(names))

    def take_dirty(self) -> tuple[list[str], list[bytes | None]]:
        names = list(self.dirty)
        self.dirty.clear()
        return names, [self.values[name] for name in names]

    def evict(self, most: int, oldest_ms: int) -> None:
        """Drop clean values, oldest first: those beyond the bound, and what came earlier."""
        excess = len(self.values) - int(most * _EVICT_TO) if len(self.values) > most else 0
        gone: list[str] = []
        dirty, place = self.dirty, WaitingCodec.place
        for name, value in self.values.items():
            if name in dirty:
                continue
            if len(gone) >= excess and value is not None and place(value)[1] >= oldest_ms:
                break
            gone.append(name)
        for name in gone:
            del self.values[name]
