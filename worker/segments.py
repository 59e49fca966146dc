"""Cutting a batch where a label is about an event of it, so that its features know what was said.

Label features remember what an event recorded: whether it was scored at all, and its scores. Both
are known when the event has been processed. So a batch is cut between an event and its label, and
between an event and its turning negative; the result does not depend on the cuts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import repeat
from typing import Any, TypeVar

import numpy as np

from worker.arrow import Examples
from worker.contracts.records import Bool, Events, Float64, Int64, Labels
from worker.decisions import Decided
from worker.learning import Join
from worker.pending import Pending
from worker.waiting import Scored

T = TypeVar("T", Scored, Examples)


@dataclass(slots=True)
class Part:
    """What became of a part of a batch: columns over its valid events, those that were scored,
    their examples, what was decided, and what `worker.models.series_table.OwnPast` says.
    """

    X: Float64
    duplicate: Bool
    scored: Scored
    join: Join
    decided: Decided
    past: Float64


def apart(events: Events, labels: Labels, before: Int64) -> tuple[list[str], list[int]]:
    """Return what labels are about: ids of events before the batch, places of those in it.

    A label finds an event of the batch that comes before it, unless that is a duplicate. ``before``
    says per label how many event records come before it.
    """
    if not len(labels):
        return [], []
    places = range(len(events) - 1, -1, -1)  # of several of an id the first stays
    first = dict(zip(reversed(events.ids), places, strict=True))
    place = np.fromiter(map(first.get, labels.event_ids, repeat(-1)), np.int64, len(labels))
    here = place >= 0
    here[here] = events.index[place[here]] < before[here]
    elsewhere = [labels.event_ids[j] for j in np.flatnonzero(~here).tolist()]
    return elsewhere, place[here].tolist()


def label_cuts(
    pending: Pending, ids: Sequence[str], labels: Labels, before: Int64
) -> Iterator[int]:
    """Yield where to cut so that no event is in the same part as its label: as late as possible.

    Ask for the next cut when everything before the last one was processed: which labels are early
    is known then. An event whose label is there before it ends its part. So does one whose label
    came in the same part, for the walk alone knows whether that met an earlier event of the id.
    """
    start = 0
    here: dict[str, int] = {}
    heard: dict[str, int] = {}  # in this part, with their places
    early = pending.early
    wanted = {*labels.event_ids, *early}
    events = [(row + 1, 0, row) for row, one in enumerate(ids) if one in wanted] if wanted else []
    items = [*events, *((p, 1, j) for j, p in enumerate(before.tolist()))]
    for position, is_label, j in sorted(items):
        one = labels.event_ids[j] if is_label else ids[j]
        if is_label:
            is_cut = here.get(one, -1) >= start
            heard[one] = position
        else:
            is_cut = one in heard or one in early
            here[one] = j
        if is_cut:
            yield position
            start = position
            heard = {id_: place for id_, place in heard.items() if place == start}


def maturity_cuts(pending: Pending, events: Events, *, remembers: bool) -> list[int]:
    """Return where to cut so that no event matures in its own part.

    Where label features remember, neither in a part in which a later event of its id came before:
    only when that was processed is it known whether it has taken the id.
    """
    maturity_ms, times_ms = pending.rules.maturity_ms, events.time_ms
    if maturity_ms is None or not len(times_ms):
        return []
    clock_ms = np.maximum.accumulate(np.maximum(times_ms, pending.clock_ms))
    cuts: list[int] = []
    start = 0
    while start < len(clock_ms):
        start = int(clock_ms.searchsorted(clock_ms[start] + maturity_ms))
        if start < len(clock_ms):
            cuts.append(start)
    if not remembers:
        return cuts
    may_mature = set(pending.queue.until(int(clock_ms[-1]) - maturity_ms, len(events)))
    if may_mature or len(set(events.ids)) < len(events):
        for row, one in enumerate(events.ids):
            if one in may_mature:
                cuts.append(row + 1)
            may_mature.add(one)
    return sorted(set(cuts))


def parts_of(
    events: Events, labels: Labels, before: Int64, fixed: Sequence[int], told: Iterator[int]
) -> Iterator[tuple[int, Events, Labels, Int64]]:
    """Yield the parts of a batch: first event, events, labels and per label its place in the part.

    ``fixed`` are cuts, in order; so are those ``told``, each asked for when the part before the
    last one was processed. A label at a cut goes with what follows, if only labels follow.
    """
    start, first = 0, 0
    cut = next(told, None)
    while True:
        if cut is not None and cut <= start:
            cut = next(told, None)
        later = [*fixed[(i := bisect_right(fixed, start)) : i + 1], *([cut] if cut else [])]
        end = min(later, default=len(events))
        last = int(np.searchsorted(before, end)) if later else len(labels)
        yield (
            start,
            slice_of(events, start, end),
            labels.slice(first, last),
            before[first:last] - start,
        )
        if not later:
            return
        start, first = end, last


def slice_of(events: Events, start: int, end: int) -> Events:
    """Return events [start, end) without copying numbers."""
    if (start, end) == (0, len(events)):
        return events
    part = slice(start, end)
    return Events(
        events.index[part], events.offsets[part], events.time_ms[part], events.ids[part],
        events.id_hash[part], {name: ids[part] for name, ids in events.entity_ids.items()},
        {name: column[part] for name, column in events.columns.items()},
    )  # fmt: skip


def merged(parts: Sequence[Part]) -> Part:
    """Return the parts of a batch as one."""
    if len(parts) == 1:
        return parts[0]
    scored = [part.scored for part in parts]
    joins = [part.join for part in parts]
    starts = np.cumsum([0, *[len(part.duplicate) for part in parts]])
    first = np.cumsum([0, *[len(part) for part in scored]])
    shifted = [_shifted(join, start) for join, start in zip(joins, first.tolist(), strict=False)]
    counts = joins[0].counts
    for join in joins[1:]:
        counts = {fate: count + join.counts[fate] for fate, count in counts.items()}
    whole = _concatenated(Scored, scored)
    whole.rows = np.concatenate([p.rows + s for p, s in zip(scored, starts, strict=False)])
    return Part(
        np.concatenate([part.X for part in parts]),
        np.concatenate([part.duplicate for part in parts]),
        whole,
        Join(
            _concatenated(Examples, [join.examples for join in shifted]),
            np.concatenate([join.rows for join in shifted]),
            counts,
        ),
        Decided.joined([part.decided for part in parts]),
        np.concatenate([part.past for part in parts]),
    )


def _shifted(join: Join, start: int) -> Join:
    """Return a join whose positions count from ``start`` scored events before its own."""
    rows = np.where(join.rows >= 0, join.rows + start, -1)
    examples = replace(join.examples, before=join.examples.before + start)
    return Join(examples, rows, join.counts)


def _concatenated(kind: type[T], parts: Sequence[T]) -> T:
    """Return columns one after the other: arrays, lists, and dicts of lists."""
    columns: dict[str, Any] = {}  # Any: each field has a type of its own
    for f in fields(kind):
        some = [getattr(part, f.name) for part in parts]
        if isinstance(some[0], dict):
            columns[f.name] = {n: [i for one in some for i in one[n]] for n in some[0]}
        elif isinstance(some[0], list):
            columns[f.name] = [i for one in some for i in one]
        else:
            columns[f.name] = np.concatenate(some)
    return kind(**columns)
