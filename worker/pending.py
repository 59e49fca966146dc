"""Events that wait for their label, and labels that came before their event.

The state is a join of the events and labels seen: it depends on their positions only, never on how
the two topics interleaved. An event is *waiting* (its x and served score are kept), then *labelled*
(only a marker is kept, so that a second label is seen as such) until the horizon has passed. A
label whose event has not been seen yet is *early*; early labels are few and live in memory and in
the shard's own blob.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.contracts.records import Float64, Int64, Label

EARLY_MAX = 10_000
"""Early labels kept per shard; beyond it the oldest is dropped and counted."""

_HEAD = struct.Struct("<BqdH8s")  # kind, time, score served, raw scores, whose x it is
_WAITING, _LABELLED = 1, 2


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is kept of an event until its label comes: also what every model said of it.

    ``x`` is None where the event was scored with the features of another spec: such an x teaches
    nothing.
    """

    time_ms: int
    score: float
    raw: Float64
    x: Float64 | None


class Pending:
    """Pending events of one shard: a write-back cache of at most ``entries_max`` over the store.

    Parameters
    ----------
    horizon_ms
        A label that became known later than this after its event teaches nothing.
    spec_hash
        Names the features of every x that is added.
    """

    def __init__(self, horizon_ms: int, entries_max: int, spec_hash: str = "") -> None:
        self.horizon_ms = horizon_ms
        self._tag = spec_hash[:8].encode().ljust(8, b"-")
        self.entries_max = entries_max
        self.early: dict[str, Label] = {}
        self.dropped_early = 0
        self._entries: dict[str, bytes | None] = {}  # None: known to be absent from the store
        self._dirty: dict[str, None] = {}  # a dict for its order

    def missing(self, event_ids: Sequence[str]) -> list[str]:
        """Return the ids, each once, whose entry is not in memory."""
        return [i for i in dict.fromkeys(event_ids) if i not in self._entries]

    def load(self, event_ids: Sequence[str], values: Sequence[bytes | None]) -> None:
        """Take what the store holds of ids named by `missing`."""
        for event_id, value in zip(event_ids, values, strict=True):
            self._entries.setdefault(event_id, value)

    def add(
        self, event_ids: Sequence[str], time_ms: Int64, score: Float64, raw: Float64, X: Float64
    ) -> None:
        """Make scored events wait; a later one of the same id takes the place of the earlier."""
        models = raw.shape[1]
        rows = np.concatenate([raw, X], axis=1)
        for i, event_id in enumerate(event_ids):
            head = _HEAD.pack(_WAITING, int(time_ms[i]), float(score[i]), models, self._tag)
            self._put(event_id, head + rows[i].tobytes())

    def waiting(self, event_id: str) -> Waiting | None:
        """Return the event's entry if it waits for a label."""
        value = self._entries.get(event_id)
        if value is None or value[0] != _WAITING:
            return None
        _, time_ms, score, models, tag = _HEAD.unpack_from(value)
        numbers = np.frombuffer(value, np.float64, offset=_HEAD.size)
        x = numbers[models:] if tag == self._tag else None
        return Waiting(time_ms, score, numbers[:models], x)

    def is_labelled(self, event_id: str) -> bool:
        """Return whether the event has had its label."""
        value = self._entries.get(event_id)
        return value is not None and value[0] == _LABELLED

    def mark(self, event_id: str, time_ms: int, y: int) -> None:
        """Note that an event has had its label; its x is forgotten."""
        self._put(event_id, _HEAD.pack(_LABELLED, time_ms, float(y), 0, self._tag))

    def park(self, label: Label) -> None:
        """Keep an early label; a second one for the same event takes the place of the first."""
        self.early.pop(label.event_id, None)
        self.early[label.event_id] = label
        if len(self.early) > EARLY_MAX:
            del self.early[next(iter(self.early))]
            self.dropped_early += 1

    def forget_before(self, time_ms: int) -> None:
        """Drop early labels that became known before ``time_ms``."""
        for event_id in [i for i, label in self.early.items() if label.time_ms < time_ms]:
            del self.early[event_id]
            self.dropped_early += 1

    @property
    def dirty_count(self) -> int:
        """Return how many entries the store does not have yet."""
        return len(self._dirty)

    def take_dirty(self) -> list[tuple[str, bytes]]:
        """Return the changed entries in order of change and call them clean."""
        taken = [(i, v) for i in self._dirty if (v := self._entries[i]) is not None]
        self._dirty.clear()
        return taken

    def evict(self) -> None:
        """Hold at most ``entries_max`` entries; only clean ones go, oldest first.

        Call it only when everything taken by `take_dirty` is in the store.
        """
        excess = len(self._entries) - self.entries_max
        if excess > 0:
            clean = (i for i in list(self._entries) if i not in self._dirty)
            for event_id, _ in zip(clean, range(excess), strict=False):
                del self._entries[event_id]

    def _put(self, event_id: str, value: bytes) -> None:
        self._entries[event_id] = value
        self._dirty[event_id] = None
