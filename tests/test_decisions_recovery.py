"""Decisions survive: a worker that starts in the middle decides as one that never stopped."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from tests import worlds
from worker.arrow import order_record
from worker.contracts.messages import Alert
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

DECISIONS: dict[str, dict[str, Any]] = {
    "everything": {
        "threshold": 0.3,
        "evidence": {"feature": "card_count_1d", "at_least": 3, "threshold": 0.9},
        "suppress": {"entity": "card", "within": "6h"},
        "incidents": {"entity": "card", "quiet": "12h"},
        "block": [{"field": "terminal", "values": ["t4"]}],
        "allow": [{"field": "card", "values": ["c3"]}],
        "severity": {"medium": 0.5, "high": 0.9},
    },
    "a day": {"alerts_per_day": 12, "suppress": {"entity": "terminal", "within": "1h"}},
}
EVENTS = 1_800


def run(decision: dict[str, Any], stops: list[int], *, keeps_store: bool) -> MemoryLog:
    """Return the log after workers in turn, each from scratch, have worked it off in parts."""
    config = worlds.settings(
        decision={"model": "fraud", **decision}, runner={"batch_records_max": 40}
    )
    log, store, stream = worlds.new_log(), MemoryStore(), worlds.events(EVENTS)
    worlds.fill(log, stream)
    for steps in [*stops, 0]:
        store = store if keeps_store else MemoryStore()
        worker = worlds.worker(log, store, config=config)
        if steps:
            for _ in range(steps):
                worker.step()
        else:
            worlds.drain(worker)
    return log


def alerts(log: MemoryLog) -> list[dict[str, Any]]:
    values = log.read("alerts", 0, 0, 10**9).values
    messages = [json.loads(value or b"") for value in values]
    for message in messages:
        message.pop("model_version", None)  # in another worker batches may end elsewhere
    return messages


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("keeps_store", [True, False])
def test_a_restart_changes_no_decision(name: str, keeps_store: bool) -> None:
    """With the store, or from the logs alone, every row and alert equals the run without stops."""
    decision = {**DECISIONS[name], "reasons_max": 0}
    whole = run(decision, [], keeps_store=True)
    parts = run(decision, [7, 1, 16], keeps_store=keeps_store)
    rows, again = worlds.journal(whole), worlds.journal(parts)
    assert [(r["decision"], r["threshold"]) for r in again] == [
        (r["decision"], r["threshold"]) for r in rows
    ]
    assert alerts(parts) == alerts(whole)
    assert len({r["decision"] for r in rows}) > 3


@pytest.mark.parametrize(
    ("entity", "within"), [("card", "6h"), ("card", "13h"), ("terminal", "1h")]
)
def test_incidents_are_published_from_opening_to_closing(entity: str, within: str) -> None:
    """On the alerts topic each closed incident was opened once, and counts its alerts; whichever
    entity suppresses, and for longer than an incident is open too.
    """
    suppress = {"entity": entity, "within": within}
    decision = {**DECISIONS["everything"], "suppress": suppress, "reasons_max": 0}
    messages = alerts(run(decision, [], keeps_store=True))
    closed = [m for m in messages if m["kind"] == "incident_closed"]
    assert len(closed) > 10
    for end in closed:
        place = messages.index(end)
        mine = [m for m in messages[:place] if m.get("incident_id") == end["incident_id"]]
        assert [m["incident_state"] for m in mine] == ["opened", *["updated"] * (len(mine) - 1)]
        assert (len(mine), max(m["score"] for m in mine) <= end["score"]) == (end["alerts"], True)
        assert end["entity_id"] == mine[0]["entities"]["card"]
        assert end["incident_id"] == mine[0]["alert_id"]


def test_an_alert_before_there_is_a_threshold_is_valid_by_its_contract() -> None:
    """Of a block list, while a budget has too few scores: it says that there is none."""
    decision = {"alert_rate": 0.01, "block": DECISIONS["everything"]["block"]}
    values = run(decision, [], keeps_store=True).read("alerts", 0, 0, 10**9).values
    first = Alert.model_validate_json(values[0] or b"")
    assert first.threshold is None
    assert first.model_dump_json().encode() == values[0]
    last = Alert.model_validate_json(values[-1] or b"")
    assert last.threshold is not None  # by now there is one


@pytest.mark.parametrize("keeps_store", [True, False])
def test_a_restart_begins_the_threshold_anew_where_the_champion_changed(keeps_store: bool) -> None:
    """An order between batches: each worker, also one that folds the log, follows the journal."""
    config = worlds.settings(
        decision={"model": "fraud", "alert_rate": 0.1, "reasons_max": 0},
        runner={"batch_records_max": 40},
    )
    rows = []
    for stops in (False, True):
        log, store = worlds.new_log(), MemoryStore()
        worker, stream = worlds.worker(log, store, config=config), worlds.events(2_600)
        for start in (0, 1_300, 2_500):
            if start == 1_300:
                log.append("training", 0, order_record("promote", "odd"), None, 0)
            worlds.fill(log, stream[start : start + 1_300][: 1_200 if start else None])
            worlds.drain(worker)
            if stops:
                store = store if keeps_store else MemoryStore()
                worker = worlds.worker(log, store, config=config)
        rows.append([(r["decision"], r["threshold"]) for r in worlds.journal(log)])
    assert rows[1] == rows[0]
    thresholds = [threshold for _, threshold in rows[0]]
    finite = [i for i, one in enumerate(thresholds) if one is not None and one != float("inf")]
    gaps = [b - a for a, b in pairwise(finite)]
    assert max(gaps) > 1_000  # found, lost with the champion, found anew
