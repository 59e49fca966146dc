"""Real servers for the stores, and both stores as parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.services.valkey import ValkeyServer
from worker.contracts.settings import RedisSettings
from worker.stores import StateStore, redis
from worker.stores.memory import MemoryStore
from worker.stores.redis import RedisStore


def redis_store(url: str, timeout_ms: int = 5_000, *, cluster: bool = False) -> RedisStore:
    """Return a store on a server, or on a cluster."""
    return RedisStore(
        RedisSettings.model_construct(url=SecretStr(url), timeout=timeout_ms, cluster=cluster)
    )


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ValkeyServer]]:
    """Return a function that starts a server of the test's own with some options."""
    started: list[ValkeyServer] = []

    def start(*options: str) -> ValkeyServer:
        directory = tmp_path / f"server-{len(started)}"
        started.append(ValkeyServer(directory=directory, persistent=False, options=options))
        return started[-1].start()

    yield start
    for server in started:
        server.close()


_REDIS = [pytest.param(kind, marks=pytest.mark.redis) for kind in ("redis", "script", "cluster")]


@pytest.fixture(params=["memory", *_REDIS])
def open_store(request: pytest.FixtureRequest) -> Iterator[Callable[[], StateStore]]:
    """Return a function that opens one more store on the same state."""
    if request.param == "memory":
        memory = MemoryStore()
        yield lambda: memory
        return
    cluster = request.param == "cluster"
    value = request.getfixturevalue
    if request.param == "script":  # as before Valkey 9.1 and Redis 8.4
        value("monkeypatch").setattr(redis, "has_msetex", lambda server: False)
    url = value("redis_cluster").url if cluster else value("redis_url")
    opened: list[RedisStore] = []

    def open_one() -> StateStore:
        opened.append(redis_store(url, cluster=cluster))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], StateStore]) -> StateStore:
    """Return one store of either kind."""
    return open_store()


@pytest.fixture
def space(store: StateStore) -> Iterator[str]:
    """Return a space of its own, dropped after the test."""
    name = f"cards.{os.urandom(8).hex()}.0"
    yield name
    store.drop(name)
