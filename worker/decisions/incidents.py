"""What is remembered of entities that alerted: for suppression, and alerts grouped to incidents.

Both are bounded: beyond `ENTITIES_MAX` entities the one that has been there longest goes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

ENTITIES_MAX = 10_000
"""Entities that are remembered at a time, per shard."""


class Suppression:
    """One alert per entity and time: what comes within ``within_ms`` after it is counted in it."""

    def __init__(self, within_ms: int) -> None:
        self._within_ms = within_ms
        self._alerts: dict[str, list[int]] = {}  # entity id: time of its alert, suppressed since

    def is_suppressed(self, entity_id: str, time_ms: int) -> bool:
        """Return whether an alert at ``time_ms`` would be one too many; if so, it is counted.

        Late events count too: all at or before the alert's time plus ``within_ms``.
        """
        last = self._alerts.get(entity_id)
        if last is None or time_ms > last[0] + self._within_ms:
            return False
        last[1] += 1
        return True

    def alerted(self, entity_id: str, time_ms: int, now_ms: int) -> int:
        """Note an alert; return how many were suppressed since the entity's previous one.

        What ended longer than ``within_ms`` ago is forgotten, with its count.
        """
        before = self._alerts.pop(entity_id, None)
        self._alerts[entity_id] = [time_ms, 0]
        # A late alert may be over itself, and then be the last one to go.
        while self._alerts and (
            len(self._alerts) > ENTITIES_MAX or self._is_over(next(iter(self._alerts)), now_ms)
        ):
            del self._alerts[next(iter(self._alerts))]
        return before[1] if before and now_ms <= before[0] + 2 * self._within_ms else 0

    def to_state(self) -> list[list[object]]:
        """Return what is remembered, in order."""
        return [[entity_id, *rest] for entity_id, rest in self._alerts.items()]

    def restore(self, state: list[list[object]]) -> None:
        """Take what `to_state` gave."""
        self._alerts = {str(row[0]): [int(str(x)) for x in row[1:]] for row in state}

    def _is_over(self, entity_id: str, now_ms: int) -> bool:
        return now_ms > self._alerts[entity_id][0] + 2 * self._within_ms


@dataclass(slots=True)
class Incident:
    """Alerts of one entity that follow each other; ``key`` is the first one's primary entity."""

    incident_id: str
    entity_id: str
    key: str
    opened_ms: int
    last_ms: int
    alerts: int
    suppressed: int
    score_max: float


class Incidents:
    """Groups alerts of an entity that are at most ``quiet_ms`` apart, by event time.

    A suppressed event joins the open incident of its entity and opens none: nobody is told of it.
    An incident is closed by the first event of the shard that is later than its last alert by more
    than ``quiet_ms``.
    """

    def __init__(self, quiet_ms: int) -> None:
        self._quiet_ms = quiet_ms
        self._open: dict[str, Incident] = {}
        self._deadlines: list[tuple[int, str]] = []  # a heap; an entry may be out of date: earlier

    @property
    def due_ms(self) -> int | None:
        """Return a time at or before which nothing has to be closed; None for never."""
        return self._deadlines[0][0] if self._deadlines else None

    def is_open(self, entity_id: str) -> bool:
        """Return whether the entity has an incident that a suppressed event may join."""
        return entity_id in self._open

    def join(
        self, entity_id: str, incident_id: str, key: str, time_ms: int, score: float, *,
        is_alert: bool,
    ) -> tuple[Incident, str, list[Incident]]:  # fmt: skip
        """Return the incident of an alert or suppressed event, its state and what had to go.

        ``incident_id`` and ``key`` name a new one, which only an alert opens.
        """
        state, forced = "updated", []
        incident = self._open.get(entity_id)
        if incident is None:
            assert is_alert
            state = "opened"
            incident = Incident(incident_id, entity_id, key, time_ms, time_ms, 0, 0, score)
            self._open[entity_id] = incident
            heapq.heappush(self._deadlines, (time_ms + self._quiet_ms, entity_id))
            if len(self._open) > ENTITIES_MAX:
                forced.append(self._open.pop(next(iter(self._open))))
        incident.last_ms = max(incident.last_ms, time_ms)
        incident.score_max = max(incident.score_max, score)
        incident.alerts += is_alert
        incident.suppressed += not is_alert
        return incident, state, forced

    def close_before(self, now_ms: int) -> list[Incident]:
        """Return the incidents that are over at ``now_ms``, those first that ended first."""
        closed = []
        while self._deadlines and self._deadlines[0][0] < now_ms:
            deadline_ms, entity_id = heapq.heappop(self._deadlines)
            incident = self._open.get(entity_id)
            if incident is None:
                continue
            if incident.last_ms + self._quiet_ms > deadline_ms:
                heapq.heappush(self._deadlines, (incident.last_ms + self._quiet_ms, entity_id))
            else:
                closed.append(self._open.pop(entity_id))
        return closed

    def to_state(self) -> list[list[object]]:
        """Return the open incidents, in order."""
        names = Incident.__slots__
        return [[getattr(one, name) for name in names] for one in self._open.values()]

    def restore(self, state: list[list[object]]) -> None:
        """Take what `to_state` gave.

        Without those that suppressed events opened, as older states have them: nobody was told.
        """
        incidents = [Incident(*row) for row in state]  # type: ignore[arg-type]  # as written
        incidents = [one for one in incidents if one.alerts]
        self._open = {one.entity_id: one for one in incidents}
        self._deadlines = [(one.last_ms + self._quiet_ms, one.entity_id) for one in incidents]
        heapq.heapify(self._deadlines)
