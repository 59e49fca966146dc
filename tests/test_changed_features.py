"""Another `features` section under the same name: what goes on, what is rebuilt, what is equal."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tests.chaos.verdict import judge
from tests.simulation.world import config, items
from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.arrow import read_stamps
from worker.contracts.settings import RedisSettings, Settings
from worker.errors import StateLostError
from worker.features.spec import compile_features
from worker.runner import Runner
from worker.stores import StateStore
from worker.stores.memory import MemoryStore
from worker.stores.redis import RedisStore
from worker.streams.memory import MemoryLog

COUNT = 400
BEFORE: dict[str, Any] = {
    "amount": "$amount",
    "card": {"count": ["1h", "1d"], "mean(amount)": ["1d"], "time_since_last": {}},
    "terminal": {"count": ["1d"], "std(amount)": ["1d"]},
}
SAME_STATE: dict[str, Any] = {
    "night": "is_night($time)",
    **BEFORE,
    "card": {"sum(amount)": ["1d", "1h"], "count": ["1h"], "time_since_last": {}},
}
OTHER_STATE: dict[str, Any] = {**BEFORE, "card": {"max(amount)": ["7d"], "time_since_last": {}}}


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def store(request: pytest.FixtureRequest) -> Iterator[StateStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = SecretStr(request.getfixturevalue("redis_url"))
    made = RedisStore(RedisSettings.model_construct(url=url, timeout=5_000))
    yield made
    made.close()


def log_of(stream: list[dict[str, Any]]) -> MemoryLog:
    log = new_log()
    fill(log, stream)
    return log


def continued(log: MemoryLog, whole: MemoryLog) -> None:
    """Append what the whole log has beyond the first."""
    for topic in ("transactions", "labels"):
        rest = whole.read(topic, 0, log.end(topic, 0), 10_000)
        for key, value, time_ms in zip(rest.keys, rest.values, rest.timestamps_ms, strict=True):
            log.append(topic, 0, value, key, time_ms)


def certain(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    keep = ("source_offset", "outcome", "event_id", "entity", "time_ms", "x")
    return [tuple(str(row[name]) for name in keep) for row in rows]


def name() -> str:
    return f"w{uuid.uuid4().hex[:8]}"


def test_features_that_need_no_new_state_go_on_from_the_stored_state(store: StateStore) -> None:
    """Nothing is folded again, and x is that of a run which had the new features all along."""
    stream, group = events(COUNT), name()
    log, whole = log_of(stream[: COUNT // 2]), log_of(stream)
    half = log.end("transactions", 0)
    drain(worker(log, store, config=settings(name=group)))
    continued(log, whole)
    wider = settings(name=group, features=SAME_STATE)
    assert compile_features(wider).spec_hash != compile_features(settings()).spec_hash
    second = worker(log, store, config=wider)
    second.step()
    assert [live.folded for live in second._live.values()] == [0]
    drain(second)
    drain(worker(whole, MemoryStore(), config=wider))
    assert certain(journal(log)[half:]) == certain(journal(whole)[half:])


def test_a_start_with_other_features_says_which_and_what_is_lost() -> None:
    """A warning a shard, with the hashes that `riverwatch check` prints; none without a change."""
    stream, log, store = events(COUNT), log_of(events(COUNT // 2)), MemoryStore()
    fields = {"id": "string", "card": "string", "terminal": "string", "amount": "float",
              "at": {"type": "timestamp", "unit": "ms"}}  # fmt: skip
    time = {"field": "at", "unit": "ms"}
    typed = {"topic": "transactions", "id": "id", "key": "card", "time": time, "fields": fields}
    features = {"amount": "$amount", "card": {"count": ["1h"]}}
    before, changed = settings(features=features), settings(features=features, events=typed)
    hashes = [compile_features(one).spec_hash for one in (before, changed)]

    def warned(config: Settings) -> list[Any]:
        with capture_logs() as said:
            drain(worker(log, store, config=config))
        return [one for one in said if one["event"] == "features_changed"]

    assert warned(before) == []
    assert warned(before) == []
    continued(log, log_of(stream))
    (one,) = warned(changed)
    assert (one["log_level"], one["partition"]) == ("warning", 0)
    assert [one["spec_was"], one["spec_is"]] == [spec[:12] for spec in hashes]
    assert "models" in one["discarded"]
    assert warned(changed) == []


def test_labels_of_events_scored_before_the_change_teach_nothing(store: StateStore) -> None:
    """Their x is of other features; each is counted, and none is taken for early."""
    stream, group = events(COUNT), name()
    log = log_of(stream[: COUNT // 2])
    drain(worker(log, store, config=settings(name=group)))
    continued(log, log_of(stream))
    second = worker(log, store, config=settings(name=group, features=SAME_STATE))
    drain(second)
    fates = {
        fate: second.parts.telemetry.labels.labels(fate)._value.get()
        for fate in ("other_features", "matched", "early")
    }
    assert 0 < fates["other_features"] <= 10
    assert fates["matched"] > 100
    broken = sum(i % 37 == 36 for i in range(COUNT // 2 - 10, COUNT - 10))
    assert fates["early"] == broken


@pytest.mark.parametrize("features", [SAME_STATE, OTHER_STATE], ids=["same", "other"])
def test_a_lost_store_is_rebuilt_though_the_journal_has_other_features(
    features: dict[str, Any], store: StateStore
) -> None:
    """The log has rows of two specs; what follows is as if there had only been the new one."""
    stream, group = events(COUNT), name()
    log = log_of(stream[: COUNT // 3])
    drain(worker(log, MemoryStore(), config=settings(name=group)))
    continued(log, log_of(stream[: 2 * COUNT // 3]))
    changed = settings(name=group, features=features)
    drain(worker(log, MemoryStore(), config=changed))
    done = log.end("transactions", 0)
    whole = log_of(stream)
    continued(log, whole)
    drain(worker(log, store, config=changed))
    drain(worker(whole, MemoryStore(), config=changed))
    assert certain(journal(log)[done:]) == certain(journal(whole)[done:])


def test_going_back_to_the_old_features_goes_on_too(store: StateStore) -> None:
    """There and back: the state never knew the difference."""
    stream, group = events(COUNT), name()
    log, whole = log_of(stream[: COUNT // 3]), log_of(stream)
    drain(worker(log, store, config=settings(name=group)))
    continued(log, log_of(stream[: 2 * COUNT // 3]))
    drain(worker(log, store, config=settings(name=group, features=SAME_STATE)))
    back = log.end("transactions", 0)
    continued(log, whole)
    drain(worker(log, store, config=settings(name=group)))
    drain(worker(whole, MemoryStore(), config=settings(name=group)))
    assert certain(journal(log)[back:]) == certain(journal(whole)[back:])


@pytest.mark.parametrize("version", [1, 2], ids=["same state", "other state"])
@pytest.mark.parametrize("seed", range(3))
def test_two_versions_at_once_do_not_mix(version: int, seed: int, store: StateStore) -> None:
    """A rolling deploy, taken back, and done again, in the middle of a stream, by two workers.

    Each row's x is of its own features, each score of a model that only examples of these taught.
    """
    draw, group, log = random.Random(seed), name(), new_log(4)
    left = items(draw, 4, 360, cards=24, terminals=24)
    running: dict[str, Runner] = {}
    there_and_back = [("0", 0), ("1", 0), ("1", version), ("0", version), ("1", 0), ("0", 0)]
    for slot, one in [*there_and_back, ("0", version), ("1", version)]:
        made = config(20, version=one).model_copy(update={"name": group})
        running[slot] = worker(log, store, slot=slot, config=made)
        for item in left[:80]:
            item.append_to(log)
        left = left[80:]
        for runner in draw.choices(list(running.values()), k=draw.randrange(4, 30)):
            with suppress(StateLostError):
                runner.step()
    drain(*running.values())
    verdict = judge(log, "transactions")
    assert verdict.good, verdict
    records = [value or b"" for p in range(4) for value in log.read("journal", p, 0, 10**9).values]
    specs = [read_stamps(value, "journal")["spec_hash"] for value in records]
    assert len(set(specs)) == 2
    assert sum(one != other for one, other in pairwise(specs)) > 6
