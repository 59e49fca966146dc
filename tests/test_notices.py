"""What befell models reaches the alerts topic once, whatever dies in between."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from tests.worlds import START_MS, drain, events, fill, new_log, settings, worker
from worker.arrow import order_record
from worker.contracts.settings import DriftSettings
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog


def notices(log: MemoryLog, partitions: int = 1) -> list[dict[str, Any]]:
    """Return the notices of the alerts topic, in order."""
    found = []
    for partition in range(partitions):
        for value in log.read("alerts", partition, 0, 10**6).values:
            message = msgspec.json.decode(value or b"")
            if message["kind"] == "model_notice":
                found.append(message)
    return found


def order(log: MemoryLog, action: str, model: str = "") -> None:
    log.append("training", 0, order_record(action, model), None, 0)


def test_an_order_of_the_training_log_is_followed_and_said_once() -> None:
    """The champion changes for all that is scored behind it; the notice names both."""
    log, stream = new_log(), events(200)
    fill(log, stream[:100])
    one = worker(log, MemoryStore())
    drain(one)
    order(log, "promote", "odd")
    fill(log, stream[100:])
    drain(one)
    assert one.parts.models.champion_name == "odd"
    (notice,) = notices(log)
    assert (notice["cause"], notice["model"], notice["action"]) == ("order", "odd", "promote")
    assert "odd decides in the place of fraud" in notice["text"]


@pytest.mark.parametrize("keep_store", [True, False])
def test_a_restart_does_not_say_it_again(keep_store: bool) -> None:
    """The journal's stamp tells how far notices went out, also where the store was lost."""
    log, stream, store = new_log(), events(300), MemoryStore()
    fill(log, stream[:100])
    order(log, "freeze", "odd")
    drain(worker(log, store))
    order(log, "thaw", "odd")
    fill(log, stream[100:200])
    second = worker(log, store if keep_store else MemoryStore())
    drain(second)
    fill(log, stream[200:])
    drain(worker(log, store if keep_store else MemoryStore()))
    assert [(n["number"], n["action"]) for n in notices(log)] == [(0, "freeze"), (1, "thaw")]


def test_two_workers_say_it_once() -> None:
    """Only the owner of partition 0 publishes."""
    log, store = new_log(partitions=2), MemoryStore()
    workers = [worker(log, store, slot=slot) for slot in "01"]
    fill(log, events(100))
    order(log, "freeze", "fraud")
    drain(*workers)
    fill(log, events(200)[100:])
    drain(*workers)
    assert len(notices(log, 2)) == 1


def turned(count: int) -> MemoryLog:
    """Return a log on which what is a fraud turns round half way."""
    log = new_log(partitions=2)
    for i, event in enumerate(events(count)):
        p, key, time_ms = int(event["card"][1:]) % 2, event["card"].encode(), START_MS + 600_000 * i
        y = (event["amount"] > 450) != (i > count // 2)
        label = {"event_id": event["id"], "label": int(y)}
        log.append("transactions", p, msgspec.json.encode(event), key, time_ms)
        log.append("labels", p, msgspec.json.encode(label), key, time_ms)
    return log


@pytest.mark.parametrize("action", get_args(DriftSettings.model_fields["do"].annotation))
def test_every_worker_does_the_same_about_a_drift_and_says_so(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was there, and one that comes later and learns the log; once in the alerts."""
    drift = [{"on": "error", "model": "fraud", "do": action, "params": {"delta": 0.05}}]
    log, config = turned(1_200), settings(drift=drift)
    first = worker(log, MemoryStore(), slot="0", config=config)
    drain(first)
    second = worker(log, MemoryStore(), slot="1", config=config)
    drain(first, second)
    one, other = (runner.parts.models for runner in (first, second))
    assert one.state_hash() == other.state_hash()
    done = [notice.action for notice in one.steward.notices]
    assert action in done
    assert [(n["cause"], n["action"]) for n in notices(log, 2)] == [("drift", a) for a in done]
    assert f"action={action}" in capsys.readouterr().out
    assert (one.rates[0] == 0.0) == (action == "freeze")


def test_drift_is_said_in_the_alerts() -> None:
    """Declared as alert: features that moved are named."""
    log = new_log()
    drift = [{"on": "features", "window": 100, "threshold": 0.05}]
    fill(log, events(800))
    drain(worker(log, MemoryStore(), config=settings(drift=drift)))
    found = notices(log)
    assert found and all(n["cause"] == "drift" and "PSI" in n["text"] for n in found)
