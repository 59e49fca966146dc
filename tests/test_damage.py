"""A store whose bytes were changed: refused, then rebuilt from the log without a hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from tests.services.valkey import ValkeyServer
from tests.test_changed_features import certain, continued, log_of
from tests.worlds import drain, events, journal, settings, worker
from worker.contracts.settings import RedisSettings
from worker.stores import StateStore
from worker.stores.memory import MemoryStore
from worker.stores.redis import RedisStore

COUNT = 300
Damage = Callable[[str], int]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def damaged(request: pytest.FixtureRequest) -> Iterator[tuple[StateStore, Damage]]:
    """Return a store, and what flips a bit of every value whose key begins with some text."""
    if request.param == "memory":
        memory = MemoryStore()
        yield memory, lambda start: _damage_memory(memory, start)
        return
    with ValkeyServer(persistent=False) as server:
        url = SecretStr(server.url)
        store = RedisStore(RedisSettings.model_construct(url=url, timeout=5_000))
        yield store, lambda start: _damage_redis(redis.Redis.from_url(server.url), start)
        store.close()


def _flipped(value: bytes) -> bytes:
    middle = len(value) // 2
    return value[:middle] + bytes([value[middle] ^ 4]) + value[middle + 1 :]


def _damage_memory(store: MemoryStore, start: str) -> int:
    (space,) = store._spaces.values()
    keys = [key for key in space.values if key.startswith(start)]
    for key in keys:
        space.values[key] = _flipped(space.values[key])
    return len(keys)


def _damage_redis(client: redis.Redis, start: str) -> int:
    keys = client.keys(f"fs:*:{start}*")
    for key in keys:
        client.set(key, _flipped(client.get(key)))
    return len(keys)


def expected(stream: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    log = log_of(stream)
    drain(worker(log, MemoryStore()))
    return certain(journal(log))


@pytest.mark.parametrize("what", ["card:c3", "terminal:", "shard:", "pend~x:"])
def test_a_worker_that_finds_damage_rebuilds_the_shard_from_the_log(
    damaged: tuple[StateStore, Damage], what: str
) -> None:
    """After a restart: one bit of a card, of all terminals, of the shard's own, of all waiting."""
    store, damage = damaged
    stream = events(COUNT)
    log = log_of(stream[: COUNT // 2])
    drain(worker(log, store))
    assert damage(what) >= 1
    continued(log, log_of(stream))
    second = worker(log, store)
    drain(second)
    assert certain(journal(log)) == expected(stream)
    assert second.parts.telemetry.acquired._value.get() >= 1
    third = worker(log, store)  # what is stored now is whole again
    drain(third)
    assert [live.folded for live in third._live.values()] == [0]


def test_a_running_worker_that_finds_damage_rebuilds_it_too(
    damaged: tuple[StateStore, Damage],
) -> None:
    """With hardly any waiting event in memory, each label reads the store: all of it is damaged."""
    store, damage = damaged
    small = settings(labels={"topic": "labels", "horizon": "30d", "cached_max": 3})
    stream = events(COUNT)
    log = log_of(stream[: COUNT // 2])
    running = worker(log, store, config=small)
    drain(running)
    before = running.parts.telemetry.acquired._value.get()
    assert damage("pend~x:") > 100
    continued(log, log_of(stream))
    drain(running)
    assert certain(journal(log)) == expected(stream)
    assert running.parts.telemetry.acquired._value.get() > before


@pytest.mark.redis
def test_a_half_dropped_space_is_dropped_and_rebuilt() -> None:
    """Somebody's drop died in the middle: the next worker ends it."""
    stream = events(COUNT)
    log = log_of(stream[: COUNT // 2])
    with ValkeyServer(persistent=False) as server:
        url = SecretStr(server.url)
        store = RedisStore(RedisSettings.model_construct(url=url, timeout=5_000))
        client = redis.Redis.from_url(server.url)
        drain(worker(log, store))
        (meta,) = client.keys("fs:*:meta")
        client.set(meta, b"\x00")
        client.delete(*client.keys("fs:*:card:c1*"))
        continued(log, log_of(stream))
        drain(worker(log, store))
        store.close()
    assert certain(journal(log)) == expected(stream)


@pytest.mark.redis
def test_a_server_restarted_empty_under_load_changes_no_feature() -> None:
    """In the middle of a running worker, twice; it notices by itself."""
    with ValkeyServer(persistent=False) as server:
        url = SecretStr(server.url)
        store = RedisStore(RedisSettings.model_construct(url=url, timeout=5_000))
        stream = events(COUNT)
        log = log_of(stream)
        running = worker(log, store)
        for _ in range(2):
            for _ in range(3):
                running.step()
            server.restart(empty=True)
        drain(running)
        store.close()
    assert certain(journal(log)) == expected(stream)
