"""The decision about each scored event of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.contracts.decisions import ALERTS, DECISIONS, Decision
from worker.contracts.records import Bool, Events, Float64, Int64
from worker.contracts.settings import Settings
from worker.decisions.incidents import Incident, Incidents, Suppression
from worker.decisions.lists import Lists
from worker.decisions.thresholds import DAY_MS, Threshold

CODE = {decision: code for code, decision in enumerate(DECISIONS)}
_IS_ALERT = np.array([decision in ALERTS for decision in DECISIONS])


@dataclass(frozen=True, slots=True)
class Scores:
    """What is decided about: the scored rows (s,) of a batch's events, their scores and x (s, f).

    ``place`` names the partition: with an offset it is the id of an alert or incident.
    ``champion`` is the model whose scores these are.
    """

    events: Events
    rows: NDArray[np.intp]
    score: Float64
    X: Float64
    place: str
    champion: str = ""


@dataclass(slots=True)
class AlertFacts:
    """What an alert tells beside its event: its incident, and what was suppressed before it."""

    incident_id: str | None = None
    incident_state: str | None = None
    suppressed_count: int = 0


@dataclass(slots=True)
class Decided:
    """Decisions of a batch: a code and the threshold in force per scored event.

    ``facts`` has an entry per alert, in order; ``closed`` the incidents that ended, each with how
    many alerts of the batch come before, and the event time that ended it.
    """

    code: NDArray[np.int8]
    threshold: Float64
    facts: list[AlertFacts] = field(default_factory=list)
    closed: list[tuple[int, int, Incident]] = field(default_factory=list)

    @property
    def alert(self) -> Bool:
        """Return which events are published as alerts."""
        return _IS_ALERT[self.code]

    @staticmethod
    def joined(parts: Sequence[Decided]) -> Decided:
        """Return the decisions of a batch from those of its parts, in order."""
        if len(parts) == 1:
            return parts[0]
        facts: list[AlertFacts] = []
        closed: list[tuple[int, int, Incident]] = []
        for one in parts:
            closed += [(len(facts) + before, at_ms, gone) for before, at_ms, gone in one.closed]
            facts += one.facts
        codes, thresholds = ([getattr(p, n) for p in parts] for n in ("code", "threshold"))
        return Decided(np.concatenate(codes), np.concatenate(thresholds), facts, closed)


class Decider:
    """Decisions of one shard. An event that reaches the threshold, or is on a block list, is

    1. ``allowed`` if it is on an allow list and on no block list;
    2. ``cold`` if the declared evidence is missing (unless blocked);
    3. ``suppressed`` if its entity had an alert shortly before;
    4. ``over_budget`` if as many alerts as a day may have were published (unless blocked);
    5. else an alert: ``blocked`` or ``alert``.

    Days are UTC, of the latest event time so far. Of a daily budget every partition has its share.
    """

    def __init__(
        self,
        settings: Settings,
        feature_names: Sequence[str],
        partition: int = 0,
        partitions: int = 1,
    ) -> None:
        decision = settings.decision
        self._settings, self._primary = decision, settings.primary_entity
        self._place = partition, partitions
        self._threshold = Threshold(decision, partitions)
        self._allow = Lists(decision.allow, settings)
        self._block = Lists(decision.block, settings)
        evidence = decision.evidence
        self._evidence = None if evidence is None else feature_names.index(evidence.feature)
        suppress, incidents = decision.suppress, decision.incidents
        self._suppression = None if suppress is None else Suppression(suppress.within)
        self._incidents = None if incidents is None else Incidents(incidents.quiet)
        # Whose ids suppression and incidents remember.
        self._entities = [None if one is None else one.entity for one in (suppress, incidents)]
        self._now_ms, self._day, self._today = -1, -1, 0
        self._champion = ""

    def decide(self, scores: Scores) -> Decided:
        """Return the decisions, and remember what they follow from."""
        events, rows = scores.events, scores.rows
        if len(rows) and scores.champion != self._champion:
            if self._champion:
                self._threshold.begin_anew()
            self._champion = scores.champion
        time_ms = events.time_ms[rows]
        reached, thresholds = self._threshold.reached(scores.score, time_ms)
        decided = Decided(np.zeros(len(rows), np.int8), thresholds)
        blocked = self._block.on(events, rows) if self._block else None
        chosen = np.flatnonzero(reached if blocked is None else reached | blocked)
        if len(rows):
            now_ms = np.maximum.accumulate(time_ms)
            np.maximum(now_ms, self._now_ms, out=now_ms)
            first = 0
            for row in chosen.tolist():
                self._close(decided, now_ms, first, row)
                first = row + 1
                is_blocked = blocked is not None and bool(blocked[row])
                self._one(decided, scores, row, int(now_ms[row]), is_blocked)
            self._close(decided, now_ms, first, len(rows) - 1)
            self._now_ms = int(now_ms[-1])
        return decided

    def severity(self, score: float) -> str:
        """Return the highest declared severity that the score reaches; ``medium`` where none is
        declared.
        """
        reached = [
            (bound, level) for level, bound in self._settings.severity.items() if score >= bound
        ]
        if not self._settings.severity:
            return "medium"
        return max(reached)[1] if reached else "low"

    def blocked_by(self, events: Events, row: int) -> str | None:
        """Return the entity or field that has an event on a block list."""
        return self._block.field_of(events, row)

    def to_bytes(self) -> bytes:
        """Return the state."""
        sketch, pace = self._threshold.to_bytes()
        suppression = None if self._suppression is None else self._suppression.to_state()
        incidents = None if self._incidents is None else self._incidents.to_state()
        days = [self._now_ms, self._day, self._today]
        return msgspec.msgpack.encode(
            [sketch, pace, days, suppression, incidents, self._champion, self._entities]
        )

    def restore(self, state: bytes) -> None:
        """Take a state made by `to_bytes`; what is not configured any more is dropped.

        So is what is of another entity; a state that does not say of which is taken as it is.
        """
        fields = msgspec.msgpack.decode(state)
        sketch, pace, days, suppression, incidents, self._champion, *rest = fields
        suppressed, grouped = rest[0] if rest else self._entities
        self._threshold.restore(sketch, pace)
        self._now_ms, self._day, self._today = days
        if self._suppression is not None:
            is_same = suppressed == self._entities[0]
            self._suppression.restore((is_same and suppression) or [])
        if self._incidents is not None:
            is_same = grouped == self._entities[1]
            self._incidents.restore((is_same and incidents) or [])

    def _one(
        self, decided: Decided, scores: Scores, row: int, now_ms: int, is_blocked: bool
    ) -> None:
        """Decide about one event that reached the threshold or is blocked."""
        decision = self._decision(scores, row, now_ms, is_blocked)
        decided.code[row] = CODE[decision]
        is_alert = decision in ALERTS
        if not (is_alert or decision == Decision.SUPPRESSED):
            return
        facts = AlertFacts()
        if is_alert:
            self._today += 1
            if self._suppression is not None and self._settings.suppress is not None:
                id_, time_ms = self._entity(scores, row, self._settings.suppress.entity)
                if id_:  # an event may be without an optional entity
                    facts.suppressed_count = self._suppression.alerted(id_, time_ms, now_ms)
        if self._incidents is not None:
            self._join(decided, facts, scores, row, now_ms, is_alert)
        if is_alert:
            decided.facts.append(facts)

    def _decision(self, scores: Scores, row: int, now_ms: int, is_blocked: bool) -> Decision:
        i = scores.rows[row : row + 1]
        if not is_blocked and self._allow and bool(self._allow.on(scores.events, i)[0]):
            return Decision.ALLOWED
        if not is_blocked and self._is_cold(scores, row):
            return Decision.COLD
        suppress = self._settings.suppress
        if self._suppression is not None and suppress is not None:
            entity_id, time_ms = self._entity(scores, row, suppress.entity)
            if entity_id and self._suppression.is_suppressed(entity_id, time_ms):
                return Decision.SUPPRESSED
        if now_ms // DAY_MS > self._day:
            self._day, self._today = now_ms // DAY_MS, 0
        if is_blocked:
            return Decision.BLOCKED
        budget = self._settings.alerts_per_day
        is_spent = budget is not None and self._today >= share_of(budget, self._day, *self._place)
        return Decision.OVER_BUDGET if is_spent else Decision.ALERT

    def _is_cold(self, scores: Scores, row: int) -> bool:
        evidence = self._settings.evidence
        if evidence is None or self._evidence is None:
            return False
        if scores.X[row, self._evidence] >= evidence.at_least:
            return False
        return evidence.threshold is None or bool(scores.score[row] < evidence.threshold)

    def _join(
        self, decided: Decided, facts: AlertFacts, scores: Scores, row: int, now_ms: int,
        is_alert: bool,
    ) -> None:  # fmt: skip
        assert self._incidents is not None and self._settings.incidents is not None
        i = int(scores.rows[row])
        entity_id, time_ms = self._entity(scores, row, self._settings.incidents.entity)
        if not (entity_id and (is_alert or self._incidents.is_open(entity_id))):
            return
        name = f"{scores.place}-{int(scores.events.offsets[i])}"
        key = scores.events.entity_ids[self._primary][i]
        score = float(scores.score[row])
        incident, facts.incident_state, forced = self._incidents.join(
            entity_id, name, key, time_ms, score, is_alert=is_alert
        )
        facts.incident_id = incident.incident_id
        decided.closed += [(len(decided.facts), now_ms, one) for one in forced]

    def _close(self, decided: Decided, now_ms: Int64, first: int, last: int) -> None:
        """Close the incidents that end by the rows ``first`` to ``last``, each at its own row.

        A late alert may open one that is over already: the row after it is the first to end it.
        """
        if self._incidents is None or first > last:
            return
        while (due_ms := self._incidents.due_ms) is not None and due_ms < now_ms[last]:
            row = max(first, int(np.searchsorted(now_ms, due_ms, side="right")))
            at_ms = int(now_ms[row])
            ended = self._incidents.close_before(at_ms)
            decided.closed += [(len(decided.facts), at_ms, one) for one in ended]

    def _entity(self, scores: Scores, row: int, entity: str) -> tuple[str, int]:
        i = int(scores.rows[row])
        return scores.events.entity_ids[entity][i], int(scores.events.time_ms[i])


def share_of(budget: int, day: int, partition: int, partitions: int) -> int:
    """Return how many of a day's alerts a partition may publish: in sum exactly the budget.

    What does not divide evenly goes to other partitions every day.

    >>> [share_of(6, day=0, partition=p, partitions=4) for p in range(4)]
    [2, 2, 1, 1]
    """
    whole, rest = divmod(budget, partitions)
    return whole + ((partition + day) % partitions < rest)
