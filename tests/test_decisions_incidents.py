"""Incidents and suppressions: what opens one, what ends it, and what is kept of whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.decision_worlds import HOUR_MS, Stream, decider, of, words
from worker.decisions import Decided

MINUTE_MS = 60_000
INCIDENTS: dict[str, Any] = {"threshold": 0.5, "incidents": {"entity": "card", "quiet": "1h"}}


def test_an_incident_is_opened_updated_and_closed_by_event_time() -> None:
    """Alerts at most an hour apart share it; the first later event of the shard ends it."""
    made = decider(
        threshold=0.5,
        incidents={"entity": "card", "quiet": "1h"},
        suppress={"entity": "card", "within": "10m"},
    )
    times = [0, 60_000, HOUR_MS, 2 * HOUR_MS, 2 * HOUR_MS + 1, 2 * HOUR_MS + 2]
    scores = [0.9, 0.8, 0.95, 0.0, 0.0, 0.7]
    decided = made.decide(of(scores, time_ms=times, card=list("aaabba")).scores())
    facts = [(f.incident_id, f.incident_state) for f in decided.facts]
    assert words(decided)[:3] == ["alert", "suppressed", "alert"]
    assert facts == [("t-0-0", "opened"), ("t-0-0", "updated"), ("t-0-5", "opened")]
    [(before, at_ms, incident)] = decided.closed
    assert (before, at_ms) == (2, 2 * HOUR_MS + 1)
    assert (incident.alerts, incident.suppressed, incident.score_max) == (2, 1, 0.95)
    assert (incident.opened_ms, incident.last_ms, incident.key) == (0, HOUR_MS, "a")


def test_a_suppressed_event_opens_no_incident() -> None:
    """Nobody would be told of it: the next alert does, under its own id."""
    made = decider(
        threshold=0.5,
        incidents={"entity": "card", "quiet": "10m"},
        suppress={"entity": "card", "within": "1h"},
    )
    times = [minutes * MINUTE_MS for minutes in (0, 30, 65, 90)]
    decided = made.decide(of([0.9, 0.9, 0.9, 0.0], time_ms=times).scores())
    assert words(decided) == ["alert", "suppressed", "alert", "pass"]
    assert told(decided) == [("t-0-0", "opened", 0), ("t-0-2", "opened", 1)]
    assert [(one.incident_id, one.alerts, one.suppressed) for _, _, one in decided.closed] == [
        ("t-0-0", 1, 0), ("t-0-2", 1, 0),
    ]  # fmt: skip


def test_the_first_alert_of_an_incident_says_so_where_another_entity_suppresses() -> None:
    """Card b is suppressed because of its terminal; its first alert opens, its next updates."""
    made = decider(
        threshold=0.5,
        incidents={"entity": "card", "quiet": "1h"},
        suppress={"entity": "terminal", "within": "1h"},
    )
    stream = of([0.9] * 5, card=list("abbbb"), terminal=["t1", "t1", "t2", "t1", "t3"])
    decided = made.decide(stream.scores())
    assert words(decided) == ["alert", "suppressed", "alert", "suppressed", "alert"]
    assert told(decided) == [
        ("t-0-0", "opened", 0), ("t-0-2", "opened", 0), ("t-0-2", "updated", 0),
    ]  # fmt: skip
    later = of([0.0] * 2, time_ms=[0, 3 * HOUR_MS])
    closed = [one for _, _, one in made.decide(later.scores()).closed]
    assert [(one.incident_id, one.alerts, one.suppressed) for one in closed] == [
        ("t-0-0", 1, 0), ("t-0-2", 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", range(6))
def test_an_incident_that_is_over_when_it_opens_ends_with_the_next_event(cut: int) -> None:
    """Wherever a batch ends: no event before the one that opened it may end it."""
    times = [hours * HOUR_MS for hours in (0, 10, 11, 5, 12)]
    stream, made = of([0.0, 0.0, 0.0, 0.9, 0.0], time_ms=times), decider(**INCIDENTS)
    parts = [made.decide(stream.scores(*part)) for part in ((0, cut), (cut, 5))]
    [(before, at_ms, incident)] = Decided.joined(parts).closed
    assert (before, at_ms, incident.incident_id) == (1, 12 * HOUR_MS, "t-0-3")


@pytest.mark.parametrize(("now", "word"), [("card", "suppressed"), ("terminal", "alert")])
def test_suppressions_of_another_entity_are_forgotten(now: str, word: str) -> None:
    """Terminal 7 has not alerted because card 7 has."""
    old = decider(threshold=0.5, suppress={"entity": "card", "within": "1h"})
    old.decide(seven("card").scores())
    made = decider(threshold=0.5, suppress={"entity": now, "within": "1h"})
    made.restore(old.to_bytes())
    assert words(made.decide(seven(now).scores())) == [word]


@pytest.mark.parametrize(("now", "state"), [("card", "updated"), ("terminal", "opened")])
def test_incidents_of_another_entity_are_forgotten(now: str, state: str) -> None:
    """Neither joined nor closed."""
    old = decider(**INCIDENTS)
    old.decide(seven("card").scores())
    made = decider(threshold=0.5, incidents={"entity": now, "quiet": "1h"})
    made.restore(old.to_bytes())
    assert [f.incident_state for f in made.decide(seven(now).scores()).facts] == [state]
    assert len(made.decide(of([0.0], time_ms=[3 * HOUR_MS]).scores()).closed) == 1


def test_a_state_that_does_not_say_of_which_entity_it_is_is_taken() -> None:
    """As versions before wrote it; an incident of suppressed events alone is not, for nobody knows
    of it.
    """
    settings = INCIDENTS | {"suppress": {"entity": "card", "within": "1m"}}
    old = decider(**settings)
    old.decide(of([0.9, 0.9], card=["a", "b"]).scores())
    state = msgspec.msgpack.decode(old.to_bytes())[:6]
    state[4][1][5:7] = 0, 1  # card b's: alerts and suppressed
    made = decider(**settings)
    made.restore(msgspec.msgpack.encode(state))
    times = np.array([MINUTE_MS, 2 * MINUTE_MS + 1])
    again = made.decide(of([0.9, 0.9], card=["a", "b"], time_ms=times).scores())
    assert words(again) == ["suppressed", "alert"]
    assert told(again) == [("t-0-1", "opened", 0)]


def seven(entity: str) -> Stream:
    """Return one alert of the entity's id 7."""
    return replace(of([0.9]), **{entity: ["7"]})


def told(decided: Decided) -> list[tuple[str | None, str | None, int]]:
    """Return what every alert says beside its event."""
    return [(f.incident_id, f.incident_state, f.suppressed_count) for f in decided.facts]
