"""The join of labels with the events that wait for them: what becomes an example, and when.

An example is complete when both its event and its label are there; ``before`` says how many events
of the batch were scored by then. So a label can change nothing before its own position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.arrow import Examples
from worker.contracts.records import Float64, Int64, Label
from worker.pending import Pending, Waiting

COUNTS = ("matched", "repeated", "expired", "early", "other_features")
"""What becomes of labels; ``other_features``: the event was scored before the features changed."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The events of a batch that are to be scored, in order: columns of length n, and X of shape
    (n, f). ``models`` of them will give a raw score.
    """

    ids: list[str]
    time_ms: Int64
    X: Float64
    models: int


@dataclass(slots=True)
class Join:
    """Examples of one batch; ``rows`` says which event of the batch each is of, -1 for an earlier
    one.
    """

    examples: Examples
    rows: Int64
    counts: dict[str, int] = field(default_factory=dict)

    def fill_raw(self, raw: Float64) -> None:
        """Set the raw scores of the examples whose event is in this batch."""
        here = self.rows >= 0
        self.examples.raw[here] = raw[self.rows[here]]

    def fill_score(self, score: Float64) -> None:
        """Set the score served of the examples whose event is in this batch."""
        here = self.rows >= 0
        self.examples.score[here] = score[self.rows[here]]


@dataclass(slots=True)
class _Found:
    """Labelled examples while they are collected: each one's label, position and row of the batch.

    ``waiting`` has, by index of the example, the event of an earlier batch (its row is -1).
    """

    labels: list[Label] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    waiting: dict[int, Waiting] = field(default_factory=dict)

    def append(self, label: Label, before: int, row: int) -> None:
        self.labels.append(label)
        self.before.append(before)
        self.rows.append(row)


def join_labels(
    pending: Pending, scored: Scored, labels: Sequence[Label], before: Int64
) -> tuple[Join, set[int]]:
    """Return the labelled examples of a batch, in the order of learning, and the rows that got
    their label.

    Parameters
    ----------
    before
        Per label, how many of the scored events come before it; non-decreasing.

    Notes
    -----
    An early label makes an example right after its event; of several early ones the last counts.
    The rows returned need not wait any more.
    """
    found = _Found()
    counts = dict.fromkeys(COUNTS, 0)
    rows_of = {i: r for r, i in enumerate(scored.ids)} if labels or pending.early else {}
    rows = [rows_of.get(label.event_id) for label in labels]
    timed = list(zip(labels, before.tolist(), rows, strict=True))
    early = {rows_of[i]: pending.early.pop(i) for i in list(pending.early) if i in rows_of}
    early |= {row: label for label, p, row in timed if row is not None and p <= row}
    labelled = dict(early)
    for here, label in early.items():
        found.append(label, here + 1, here)
    for label, position, row in timed:
        if row is None:
            counts[_match_pending(found, pending, label, position)] += 1
        elif row in labelled:
            counts["repeated"] += labelled[row] is not label
        else:
            labelled[row] = label
            found.append(label, position, row)
    counts["matched"] += len(labelled)
    times_ms = scored.time_ms[list(labelled)].tolist()
    for label, time_ms in zip(labelled.values(), times_ms, strict=True):
        pending.mark(label.event_id, time_ms, label.y)
    return _in_order(found, counts, scored), set(labelled)


def _match_pending(found: _Found, pending: Pending, label: Label, position: int) -> str:
    event = pending.waiting(label.event_id)
    if event is None:
        if pending.is_labelled(label.event_id):
            return "repeated"
        pending.park(label)
        return "early"
    if label.time_ms - event.time_ms > pending.horizon_ms:
        return "expired"
    if event.x is None:
        pending.mark(label.event_id, event.time_ms, label.y)
        return "other_features"
    found.waiting[len(found.labels)] = event
    found.append(label, position, -1)
    pending.mark(label.event_id, event.time_ms, label.y)
    return "matched"


def _in_order(found: _Found, counts: dict[str, int], scored: Scored) -> Join:
    """Sort by position; at one position an event's own early label goes first."""
    before = np.array(found.before, np.int64)
    order = np.argsort(before, kind="stable")
    rows = np.array(found.rows, np.int64)[order]
    X = np.empty((len(order), scored.X.shape[1]))
    score = np.full(len(order), np.nan)
    raw = np.full((len(order), scored.models), np.nan)
    here = np.flatnonzero(rows >= 0)
    X[here] = scored.X[rows[here]]
    for i in np.flatnonzero(rows < 0).tolist():
        event = found.waiting[int(order[i])]
        X[i], score[i], raw[i] = event.x, event.score, event.raw
    labels = [found.labels[i] for i in order.tolist()]
    examples = Examples(
        event_ids=[label.event_id for label in labels],
        X=X,
        y=np.array([label.y for label in labels], np.int64),
        weight=np.array([label.weight for label in labels], np.float64),
        score=score,
        raw=raw,
        before=before[order],
    )
    return Join(examples, rows, counts)


def with_observed(join: Join, scored: Scored) -> Join:
    """Return the examples with every scored event as an unlabelled one too, complete once it is
    scored.

    At one position the observed event goes before labelled examples.
    """
    count = len(scored.ids)
    labelled = join.examples
    before = np.concatenate([np.arange(1, count + 1), labelled.before])
    order = np.argsort(before, kind="stable")
    ids = [*scored.ids, *labelled.event_ids]
    X = np.empty((len(order), scored.X.shape[1]))  # filled in place: rows are long
    place = np.argsort(order)
    X[place[:count]], X[place[count:]] = scored.X, labelled.X
    examples = Examples(
        event_ids=[ids[i] for i in order.tolist()],
        X=X,
        y=np.concatenate([np.full(count, -1), labelled.y])[order],
        weight=np.concatenate([np.ones(count), labelled.weight])[order],
        score=np.concatenate([np.full(count, np.nan), labelled.score])[order],
        raw=np.concatenate([np.full((count, scored.models), np.nan), labelled.raw])[order],
        before=before[order],
    )
    rows = np.concatenate([np.arange(count), join.rows])[order]
    return Join(examples, rows, join.counts)
