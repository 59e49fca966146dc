"""The join of labels with the events that wait for them: what becomes an example, and when.

An example is complete when both its event and its truth are there; ``before`` says how many events
of the batch were scored by then. So a label can change nothing before its own position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
import numpy as np

from worker.arrow import Examples
from worker.contracts.records import Bool, Int64, Label, LabelUpdates, unserved
from worker.maturity import Item
from worker.pending import Pending
from worker.waiting import Scored, Truth, Waiting, label_updates

FATES = (
    "matched", "revised", "repeated", "expired", "early", "unknown", "overflowed", "matured",
    "other_features",
)  # fmt: skip
"""What becomes of labels; docs/metrics.md says when."""


@dataclass(slots=True)
class Join:
    """Examples of one batch; ``rows`` says which scored event of the batch each is of, -1 for an
    earlier one.
    """

    examples: Examples
    rows: Int64
    counts: dict[str, int] = field(default_factory=dict)

    def fill(self, part: Scored) -> None:
        """Set how the examples were served whose event is in this batch."""
        here = self.rows >= 0
        self.examples.raw[here] = part.raw[self.rows[here]]
        self.examples.served[here] = part.served[self.rows[here]]


class _Known(msgspec.Struct):
    """One truth: of the event at ``row`` of the batch, or of one that waited as ``value``."""

    position: int
    event_id: str
    row: int
    value: bytes | None
    truth: Truth
    earlier: Truth | None
    teaches: bool


class Walk:
    """One walk along the merged events and labels of a batch.

    Positions count the valid events of the batch, duplicates included; what is at position p comes
    before event p is read. At one position go first the early label of the event just before it,
    then labels in their order, then what counts as negative by the time of event p.

    Parameters
    ----------
    time_ms
        Of all valid events of the batch.
    """

    def __init__(self, pending: Pending, time_ms: Int64) -> None:
        self.counts = dict.fromkeys(FATES, 0)
        self.clock_ms = np.maximum.accumulate(np.concatenate([[pending.clock_ms], time_ms]))
        self._clock_ms, self._time_ms = self.clock_ms.tolist(), time_ms.tolist()
        self._pending = pending
        self._rules = pending.rules
        self._known: list[_Known] = []
        self._here: dict[str, int] = {}
        self._known_early: list[int] = []
        self._told: dict[int, Truth] = {}  # of events here, by their row
        self._has_matured = False

    def go(self, labels: Sequence[Label], before: Int64, rows: Sequence[tuple[int, str]]) -> None:
        """Take labels, scored events that they may be about, and what matures, in one order.

        Parameters
        ----------
        before
            Per label its position; not decreasing.
        rows
            Place and id of each such event; see `concerned`.
        """
        due, at = self._due(), before.tolist()
        places = [[row + 1 for row, _ in rows], before, [position for position, _ in due]]
        position = np.concatenate([np.asarray(part, np.int64) for part in places])
        heard, matured = len(rows), len(rows) + len(labels)
        # Of one position in the order of the kinds, and of one kind in their own.
        for k in np.argsort(position, kind="stable").tolist():
            if k < heard:
                self._meet(*rows[k])
            elif k < matured:
                j = k - heard
                self._hear(at[j], labels[j])
            else:
                self._mature(*due[k - matured])

    def join(self, part: Scored) -> Join:
        """Return the examples; their scores are filled in when the events here are scored."""
        teaching = [(i, known) for i, known in enumerate(self._known) if known.teaches]
        places, known = [i for i, _ in teaching], [one for _, one in teaching]
        before = np.array([one.position for one in known], np.int64)
        row = np.array([one.row for one in known], np.int64)
        here = row >= 0
        rows = np.where(here, np.searchsorted(part.rows, row), -1).astype(np.int64)
        waited, of_waited = self._waited, self._waited_index[places][~here]
        examples = _blank([one.event_id for one in known], part)
        examples.y[:] = [one.truth.y for one in known]
        examples.weight[:] = [one.truth.learn_weight for one in known]
        examples.before[:] = np.searchsorted(part.rows, before, side="left")
        examples.X[here] = part.X[rows[here]]
        examples.X[~here] = waited.X[of_waited]
        examples.time_ms[here] = part.time_ms[rows[here]]
        examples.time_ms[~here] = waited.time_ms[of_waited]
        examples.raw[~here] = waited.raw[of_waited]
        examples.served[~here] = waited.served[of_waited]
        return Join(examples, rows, self.counts)

    def unlabelled(self, part: Scored) -> Bool:
        """Return which of the scored events here nothing was known of when they came."""
        if not self._known_early:
            return np.ones(len(part), np.bool_)
        return ~np.isin(part.rows, self._known_early)

    def truths(self, part: Scored) -> dict[int, Truth]:
        """Return what is known of the scored events here, by their place in ``part``."""
        places = np.searchsorted(part.rows, list(self._told)).tolist()
        return dict(zip(places, self._told.values(), strict=True))

    def updates(self) -> LabelUpdates:
        """Return what label features have to know, of events that waited."""
        chosen = [i for i, known in enumerate(self._known) if known.row < 0 and _changes(known)]
        known = [self._known[i] for i in chosen]
        return self._updates(known, _take(self._waited, self._waited_index[chosen]))

    def updates_here(self) -> LabelUpdates:
        """Return the same of events here, which were scored and added to `Pending` by now.

        They are to be folded on their own, before the next event.
        """
        known = [one for one in self._known if one.row >= 0]
        values = [self._pending.value(one.event_id) for one in known]
        updates = self._updates(known, self._pending.codec.unpack(values))
        updates.before[:] = 0
        return updates

    def finish(self) -> None:
        """Go on to the next batch."""
        number = self._pending.number + len(self._time_ms)
        self._pending.advance(self._clock_ms[-1], number)

    def _due(self) -> list[tuple[int, Item]]:
        """Return what matures in this batch; nothing when asked again."""
        if self._rules.maturity_ms is None or self._has_matured:
            return []
        self._has_matured = True
        first = self._pending.number - self._rules.waiting_max
        return self._pending.queue.take(self.clock_ms[1:], self._rules.maturity_ms, first)

    def _meet(self, row: int, event_id: str) -> None:
        """Pass an event: an early label for it is taken."""
        self._here[event_id] = row
        label = self._pending.early.pop(event_id, None)
        if label is None:
            return
        if self._pending.is_stale(label, self._clock_ms[row + 1]):
            self.counts["unknown"] += 1
        elif self._judge(row + 1, label, row, None):
            self._known_early.append(row)

    def _hear(self, position: int, label: Label) -> None:
        clock_ms, number = self._clock_ms[position], self._pending.number + position
        row = self._here.get(label.event_id)
        if row is not None and self._is_there(row, clock_ms, number):
            self._judge(position, label, row, None)
            return
        value = None
        if row is None:
            value = self._pending.waiting(label.event_id, clock_ms, number)
        if value is not None:
            self._judge(position, label, -1, value)
            return
        late, many = self._pending.park(label, clock_ms)
        self.counts["early"] += 1
        self.counts["unknown"] += late
        self.counts["overflowed"] += many

    def _is_there(self, row: int, clock_ms: int, number: int) -> bool:
        """Return whether an event here can be found; as `Pending.waiting` for earlier ones."""
        age_ms = clock_ms - self._clock_ms[row + 1]
        came = self._pending.number + row
        return age_ms <= self._rules.keep_ms and number - came <= self._rules.waiting_max

    def _judge(self, position: int, label: Label, row: int, value: bytes | None) -> bool:
        """Take what a label says of an event; return whether anything was learned."""
        if value is None:
            time_ms, earlier = self._time_ms[row], self._told.get(row)
        else:
            time_ms, earlier = self._pending.codec.place(value)[0], self._pending.codec.truth(value)
        if label.time_ms - time_ms > self._rules.horizon_ms:
            self.counts["expired"] += 1
            return False
        truth = Truth(label.y, *self._rules.weights(label))
        if truth == earlier:
            self.counts["repeated"] += 1
            return False
        fate = "matched" if earlier is None else "revised"
        if value is None:
            self._told[row] = truth
        else:
            self._pending.know(label.event_id, value, truth)
        self._note(position, label.event_id, row, value, truth, earlier, fate)
        return True

    def _mature(self, position: int, item: Item) -> None:
        """Let an event count as negative, unless something is known of it."""
        _, number, event_id = item
        clock_ms = self._clock_ms[position + 1]
        value = self._pending.waiting(event_id, clock_ms, self._pending.number + position)
        if value is None or self._pending.codec.place(value)[2] != number:
            return  # a later event has taken the id
        if self._pending.codec.truth(value) is None:
            weight = 1.0 / self._rules.negative_rate
            truth = Truth(0, weight, weight)
            self._pending.know(event_id, value, truth)
            self._note(position, event_id, -1, value, truth, None, "matured")

    def _note(
        self, position: int, event_id: str, row: int, value: bytes | None, truth: Truth,
        earlier: Truth | None, fate: str,
    ) -> None:  # fmt: skip
        teaches = value is None or self._pending.codec.has_same_features(value)
        self.counts[fate if teaches else "other_features"] += 1
        self._known.append(_Known(position, event_id, row, value, truth, earlier, teaches))

    @cached_property
    def _waited(self) -> Waiting:
        """Return the events that waited; `go` adds to them in its first call only."""
        return self._pending.codec.unpack([k.value for k in self._known if k.value is not None])

    @property
    def _waited_index(self) -> Int64:
        """Return per truth its place in `_waited`; meaningless for an event here."""
        return np.cumsum([known.row < 0 for known in self._known], dtype=np.int64) - 1

    def _updates(self, known: list[_Known], waiting: Waiting) -> LabelUpdates:
        earlier = [one.earlier for one in known]
        return label_updates(
            self._pending.codec.layout,
            waiting,
            [one.event_id for one in known],
            np.array([one.position for one in known], np.int64),
            (
                np.array([one.truth.y for one in known], np.int64),
                np.array([-1 if e is None else e.y for e in earlier], np.int64),
                np.array([one.truth.weight for one in known], np.float64),
                np.array([0.0 if e is None else e.weight for e in earlier], np.float64),
            ),
        )


def concerned(
    pending: Pending, labels: Sequence[Label], ids: Sequence[str], rows: Sequence[int] | None = None
) -> list[tuple[int, str]]:
    """Return place and id of the events that these labels, or early ones, may be about.

    ``ids`` are of the events at ``rows``, all of them by default.
    """
    if not labels and not pending.early:
        return []
    wanted = {label.event_id for label in labels} | pending.early.keys()
    places = range(len(ids)) if rows is None else rows
    return [(row, one) for row, one in zip(places, ids, strict=True) if one in wanted]


def with_observed(join: Join, part: Scored) -> Join:
    """Return the examples with every scored event as an unlabelled one too, complete once it is
    scored.

    At one position the observed event goes before labelled examples.
    """
    count, labelled = len(part), join.examples
    before = np.concatenate([np.arange(1, count + 1), labelled.before])
    order = np.argsort(before, kind="stable")
    ids = [*part.ids, *labelled.event_ids]
    X = np.empty((len(order), part.X.shape[1]))  # filled in place: rows are long
    place = np.argsort(order)
    X[place[:count]], X[place[count:]] = part.X, labelled.X
    examples = Examples(
        event_ids=[ids[i] for i in order.tolist()],
        X=X,
        y=np.concatenate([np.full(count, -1), labelled.y])[order],
        weight=np.concatenate([np.ones(count), labelled.weight])[order],
        raw=np.concatenate([part.raw, labelled.raw])[order],
        before=before[order],
        time_ms=np.concatenate([part.time_ms, labelled.time_ms])[order],
        served=np.concatenate([part.served, labelled.served])[order],
    )
    rows = np.concatenate([np.arange(count), join.rows])[order]
    return Join(examples, rows, join.counts)


def no_labels(part: Scored) -> Join:
    """Return no examples at all."""
    return Join(_blank([], part), np.empty(0, np.int64))


def _changes(known: _Known) -> bool:
    """Return whether label features see a difference, and not only models."""
    earlier = known.earlier
    return earlier is None or (earlier.y, earlier.weight) != (known.truth.y, known.truth.weight)


def _blank(event_ids: list[str], part: Scored) -> Examples:
    m, models = len(event_ids), part.raw.shape[1]
    return Examples(
        event_ids, np.empty((m, part.X.shape[1])), np.empty(m, np.int64), np.empty(m),
        np.full((m, models), np.nan), np.empty(m, np.int64), np.empty(m, np.int64),
        unserved(m, models),
    )  # fmt: skip


def _take(waiting: Waiting, index: Int64) -> Waiting:
    places = index.tolist()
    return Waiting(
        waiting.id_hash[index], waiting.time_ms[index],
        {name: [ids[i] for i in places] for name, ids in waiting.entity_ids.items()},
        waiting.fields[index], waiting.X[index], waiting.raw[index], waiting.served[index],
        waiting.same_features[index],
    )  # fmt: skip
