"""What becomes known of events in a walk along labels, as columns; plain labels all at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from worker.contracts.records import Bool, Int64, Labels
from worker.pending import Pending
from worker.waiting import Truths, no_truths


@dataclass(slots=True)
class Known:
    """Truths about m events as columns, in the order in which they became known.

    ``position`` says before which event of the batch, ``rank`` in which order at one position.
    ``row`` is the event's place in the batch, -1 for one that waited as ``values`` (else None).
    ``earlier`` is what was known before. Only what ``teaches`` makes an example: not an event
    whose features were others.
    """

    position: Int64
    rank: Int64
    row: Int64
    event_ids: list[str]
    values: list[bytes | None]
    truth: Truths
    earlier: Truths
    teaches: Bool

    def __len__(self) -> int:
        return len(self.event_ids)

    @property
    def changes(self) -> Bool:
        """Return of which truths label features see a difference, and not only models."""
        names = ["y", "weight"]
        return np.asarray(self.truth[names] != self.earlier[names], np.bool_)

    def take(self, index: Int64) -> Known:
        """Return the truths at these places, in their order."""
        places = index.tolist()
        return Known(
            self.position[index], self.rank[index], self.row[index],
            [self.event_ids[i] for i in places], [self.values[i] for i in places],
            self.truth[index], self.earlier[index], self.teaches[index],
        )  # fmt: skip

    def in_order(self) -> Known:
        """Return the truths by position, and of one position by rank."""
        return self.take(np.lexsort((self.rank, self.position)))

    @staticmethod
    def joined(parts: Sequence[Known]) -> Known:
        """Return all truths, each part after those before it."""
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        return Known(
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.rank for part in parts]),
            np.concatenate([part.row for part in parts]),
            [one for part in parts for one in part.event_ids],
            [one for part in parts for one in part.values],
            np.concatenate([part.truth for part in parts]),
            np.concatenate([part.earlier for part in parts]),
            np.concatenate([part.teaches for part in parts]),
        )


def nothing_known() -> Known:
    """Return no truths."""
    nothing, truths = np.empty(0, np.int64), no_truths(0)
    return Known(nothing, nothing, nothing, [], [], truths, truths, np.empty(0, np.bool_))


@dataclass(slots=True)
class Heard:
    """Which labels were plain, and what came of these."""

    is_plain: Bool
    known: Known
    expired: int
    repeated: int


def hear_plain(
    pending: Pending,
    clock_ms: Int64,
    time_ms: Int64,
    labels: Labels,
    before: Int64,
    here: Mapping[str, int],
    others: Collection[str],
) -> Heard:
    """Take the plain labels, all at once: those that meet an event which nothing else meets.

    Its event is there before it, here or among those that wait, and can be found. So nothing of a
    plain label depends on any other label, nor on what becomes of them.

    Parameters
    ----------
    clock_ms
        The shard's event time before the first event of the batch, and with each.
    time_ms
        Of all events of the batch.
    before
        Per label its position.
    here
        Rows of the scored events of the batch, by their ids; of several of an id the last.
    others
        Ids that several labels, or anything else, are about.
    """
    codec, count = pending.codec, len(labels)
    if not count:
        return Heard(np.empty(0, np.bool_), nothing_known(), 0, 0)
    row = np.fromiter(map(here.get, labels.event_ids, repeat(-1)), np.int64, count)
    is_here = row >= 0
    values = pending.values_of(
        [one if r < 0 else None for one, r in zip(labels.event_ids, row.tolist(), strict=True)]
    )
    waiting = [value for value in values if value is not None]
    waits = np.fromiter((value is not None for value in values), np.bool_, count)
    event_ms, came_ms, number = np.zeros((3, count), np.int64)
    event_ms[is_here], came_ms[is_here] = time_ms[row[is_here]], clock_ms[row[is_here] + 1]
    number[is_here] = pending.number + row[is_here]
    event_ms[waits], came_ms[waits], number[waits] = codec.places(waiting).T
    is_plain = (waits | (is_here & (row < before))) & pending.rules.can_be_found(
        clock_ms[before] - came_ms, pending.number + before - number
    )
    if others:
        is_plain &= np.array([one not in others for one in labels.event_ids], np.bool_)
    truth, earlier = pending.rules.truths(labels), no_truths(count)
    earlier[waits] = codec.truths(waiting)
    teaches = is_here.copy()
    teaches[waits] = [codec.has_same_features(value) for value in waiting]
    is_late = is_plain & (labels.time_ms - event_ms > pending.rules.horizon_ms)
    is_same = is_plain & ~is_late & (truth == earlier)
    new = np.flatnonzero(is_plain & ~is_late & ~is_same)
    all_ = Known(
        before, np.arange(1, count + 1), row, labels.event_ids, values, truth, earlier, teaches
    )
    known = all_ if len(new) == count else all_.take(new)
    return Heard(is_plain, known, int(is_late.sum()), int(is_same.sum()))
