"""The join of labels with the events that wait for them: what becomes an example, and when.

An example is complete when both its event and its truth are there; ``before`` says how many events
of the batch were scored by then. So a label can change nothing before its own position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
import numpy as np

from worker.arrow import Examples
from worker.contracts.records import Bool, Int64, Label, Labels, LabelUpdates, unserved
from worker.known import Heard, Known, hear_plain
from worker.maturity import Item
from worker.pending import Pending
from worker.waiting import (
    UNKNOWN,
    Scored,
    Truth,
    Truths,
    Waiting,
    label_updates,
    no_truths,
    truths_of,
)

FATES = (
    "matched", "revised", "repeated", "expired", "early", "unknown", "overflowed", "matured",
    "other_features",
)  # fmt: skip
"""What becomes of labels; docs/metrics.md says when."""
_NOWHERE = np.empty(0, np.int64)


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


Turn = tuple[int, int]
"""Where something becomes known: position and rank, see `worker.known.Known`."""


class _One(msgspec.Struct):
    """One truth: a row of `worker.known.Known`."""

    turn: Turn
    row: int
    event_id: str
    value: bytes | None
    truth: Truth
    earlier: Truth
    teaches: bool


class Walk:
    """One walk along the merged events and labels of a batch.

    Positions count the valid events of the batch, duplicates included; what is at position p comes
    before event p is read. At one position go first the early label of the event just before it,
    then labels in their order, then what counts as negative by the time of event p. Plain labels
    are taken all at once (`worker.known.hear_plain`), the others one by one.

    Parameters
    ----------
    time_ms
        Of all valid events of the batch.
    """

    def __init__(self, pending: Pending, time_ms: Int64) -> None:
        self.counts = dict.fromkeys(FATES, 0)
        self.clock_ms = np.maximum.accumulate(np.concatenate([[pending.clock_ms], time_ms]))
        self._time_ms = time_ms
        self._pending = pending
        self._rules = pending.rules
        self._parts: list[Known] = []
        self._ones: list[_One] = []
        self._here: dict[str, int] = {}
        self._known_early: list[int] = []
        self._told: dict[int, Truth] = {}  # of events here, by their row, if told one by one
        self._has_matured = False

    def go(
        self, labels: Labels, before: Int64, ids: Sequence[str] = (), rows: Int64 = _NOWHERE
    ) -> None:
        """Take labels, scored events that they may be about, and what matures, in one order.

        Parameters
        ----------
        before
            Per label its position; not decreasing.
        ids, rows
            Of the scored events of the batch, their ids and places.
        """
        due = self._due()
        early = self._pending.early
        here = dict(zip(ids, rows.tolist(), strict=True)) if len(labels) else {}
        others = {*early, *(event_id for _, (_, _, event_id) in due)}
        if len(set(labels.event_ids)) < len(labels):
            others.update(one for one, count in Counter(labels.event_ids).items() if count > 1)
        heard = hear_plain(
            self._pending, self.clock_ms, self._time_ms, labels, before, here, others
        )
        self._take(heard)
        self._one_by_one(labels, before, np.flatnonzero(~heard.is_plain).tolist(), ids, rows, due)
        parts = [heard.known, _columns(self._ones)] if self._ones else [heard.known]
        self._parts.append(Known.joined(parts).in_order() if self._ones else heard.known)
        self._ones = []

    def join(self, part: Scored) -> Join:
        """Return the examples; their scores are filled in when the events here are scored."""
        known, waited = self._known, self._waited
        places = np.flatnonzero(known.teaches)
        of_waited = (np.cumsum(known.row < 0) - 1)[places]
        known = known if len(places) == len(known) else known.take(places)
        here = known.row >= 0
        rows = np.where(here, np.searchsorted(part.rows, known.row), -1).astype(np.int64)
        of_waited = of_waited[~here]
        examples = _blank(known.event_ids, part)
        examples.y[:], examples.weight[:] = known.truth["y"], known.truth["learn_weight"]
        examples.before[:] = np.searchsorted(part.rows, known.position, side="left")
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

    def truths(self, part: Scored) -> Truths:
        """Return what is known of the scored events here."""
        truths, known = no_truths(len(part)), self._known
        here = np.flatnonzero(known.row >= 0)
        # Of several of one event the last counts: numpy assigns in order.
        truths[np.searchsorted(part.rows, known.row[here])] = known.truth[here]
        return truths

    def updates(self) -> LabelUpdates:
        """Return what label features have to know, of events that waited."""
        known = self._known
        waits = known.row < 0
        chosen = np.flatnonzero(waits & known.changes)
        return self._updates(
            known.take(chosen), _take(self._waited, (np.cumsum(waits) - 1)[chosen])
        )

    def updates_here(self) -> LabelUpdates:
        """Return the same of events here, which were scored and added to `Pending` by now.

        They are to be folded on their own, before the next event.
        """
        known = self._known.take(np.flatnonzero(self._known.row >= 0))
        values = [self._pending.value(one) for one in known.event_ids]
        updates = self._updates(known, self._pending.codec.unpack(values))
        updates.before[:] = 0
        return updates

    def finish(self) -> None:
        """Go on to the next batch."""
        number = self._pending.number + len(self._time_ms)
        self._pending.advance(int(self.clock_ms[-1]), number)

    def _due(self) -> list[tuple[int, Item]]:
        """Return what matures in this batch; nothing when asked again."""
        if self._rules.maturity_ms is None or self._has_matured:
            return []
        self._has_matured = True
        first = self._pending.number - self._rules.waiting_max
        return self._pending.queue.take(self.clock_ms[1:], self._rules.maturity_ms, first)

    def _take(self, heard: Heard) -> None:
        """Note what plain labels said."""
        known = heard.known
        self.counts["expired"] += heard.expired
        self.counts["repeated"] += heard.repeated
        if not len(known):
            return
        is_first = known.earlier["y"] < 0
        for fate, of in (
            ("matched", known.teaches & is_first), ("revised", known.teaches & ~is_first),
            ("other_features", ~known.teaches),
        ):  # fmt: skip
            self.counts[fate] += int(of.sum())
        waits = np.flatnonzero(known.row < 0)
        for i, truth in zip(waits.tolist(), known.truth[waits].tolist(), strict=True):
            value = known.values[i]
            assert value is not None, "an event that waits"
            self._pending.know(known.event_ids[i], value, Truth(*truth))

    def _one_by_one(
        self, labels: Labels, before: Int64, odd: Sequence[int], ids: Sequence[str], rows: Int64,
        due: Sequence[tuple[int, Item]],
    ) -> None:  # fmt: skip
        """Take the labels that are not plain, early ones, and what matures."""
        wanted = {labels.event_ids[j] for j in odd} | self._pending.early.keys()
        wanted |= {event_id for _, (_, _, event_id) in due}
        met = [i for i, one in enumerate(ids) if one in wanted] if wanted else []
        turns = [
            *(((int(rows[i]) + 1, 0), i) for i in met),
            *(((int(before[j]), 1 + j), j) for j in odd),
            *(((position, 1 + len(labels) + i), i) for i, (position, _) in enumerate(due)),
        ]
        for turn, i in sorted(turns):
            if turn[1] == 0:
                self._meet(turn, ids[i])
            elif turn[1] <= len(labels):
                self._hear(turn, labels.at(i))
            else:
                self._mature(turn, due[i][1])

    def _meet(self, turn: Turn, event_id: str) -> None:
        """Pass an event: an early label for it is taken."""
        row = turn[0] - 1
        self._here[event_id] = row
        label = self._pending.early.pop(event_id, None)
        if label is None:
            return
        if self._pending.is_stale(label, int(self.clock_ms[row + 1])):
            self.counts["unknown"] += 1
        elif self._judge(turn, label, row, None):
            self._known_early.append(row)

    def _hear(self, turn: Turn, label: Label) -> None:
        position, _ = turn
        clock_ms, number = int(self.clock_ms[position]), self._pending.number + position
        row = self._here.get(label.event_id)
        if row is not None and self._rules.can_be_found(
            clock_ms - int(self.clock_ms[row + 1]), position - row
        ):
            self._judge(turn, label, row, None)
            return
        value = None
        if row is None:
            value = self._pending.waiting(label.event_id, clock_ms, number)
        if value is not None:
            self._judge(turn, label, -1, value)
            return
        late, many = self._pending.park(label, clock_ms)
        self.counts["early"] += 1
        self.counts["unknown"] += late
        self.counts["overflowed"] += many

    def _judge(self, turn: Turn, label: Label, row: int, value: bytes | None) -> bool:
        """Take what a label says of an event; return whether anything was learned."""
        if value is None:
            time_ms, earlier = int(self._time_ms[row]), self._told.get(row, UNKNOWN)
        else:
            time_ms, earlier = self._pending.codec.place(value)[0], self._pending.codec.truth(value)
        if label.time_ms - time_ms > self._rules.horizon_ms:
            self.counts["expired"] += 1
            return False
        truth = self._rules.truth(label)
        if truth == earlier:
            self.counts["repeated"] += 1
            return False
        fate = "matched" if earlier == UNKNOWN else "revised"
        if value is None:
            self._told[row] = truth
        else:
            self._pending.know(label.event_id, value, truth)
        self._note(_One(turn, row, label.event_id, value, truth, earlier, True), fate)
        return True

    def _mature(self, turn: Turn, item: Item) -> None:
        """Let an event count as negative, unless something is known of it."""
        (position, _), (came_ms, number, event_id) = turn, item
        if event_id in self._here:
            return  # a later event has taken the id, in this part
        # However late it is: after a gap in the stream too.
        value = self._pending.waiting(event_id, came_ms, self._pending.number + position)
        if value is None or self._pending.codec.place(value)[2] != number:
            return  # a later event has taken the id
        if self._pending.codec.truth(value) == UNKNOWN:
            weight = 1.0 / self._rules.negative_rate
            truth = Truth(0, weight, weight)
            self._pending.know(event_id, value, truth)
            self._note(_One(turn, -1, event_id, value, truth, UNKNOWN, True), "matured")

    def _note(self, one: _One, fate: str) -> None:
        one.teaches = one.value is None or self._pending.codec.has_same_features(one.value)
        self.counts[fate if one.teaches else "other_features"] += 1
        self._ones.append(one)

    @property
    def _known(self) -> Known:
        if len(self._parts) > 1:
            self._parts = [Known.joined(self._parts)]
        return self._parts[0]

    @cached_property
    def _waited(self) -> Waiting:
        """Return the events that waited; `go` adds to them in its first call only."""
        return self._pending.codec.unpack([v for v in self._known.values if v is not None])

    def _updates(self, known: Known, waiting: Waiting) -> LabelUpdates:
        return label_updates(
            self._pending.codec.layout, waiting, known.event_ids, known.position.copy(),
            known.truth, known.earlier,
        )  # fmt: skip


def _columns(ones: Sequence[_One]) -> Known:
    return Known(
        np.array([one.turn[0] for one in ones], np.int64),
        np.array([one.turn[1] for one in ones], np.int64),
        np.array([one.row for one in ones], np.int64),
        [one.event_id for one in ones],
        [one.value for one in ones],
        truths_of([one.truth for one in ones]),
        truths_of([one.earlier for one in ones]),
        np.array([one.teaches for one in ones], np.bool_),
    )


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
