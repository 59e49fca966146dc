"""Views: over one kept connection, which is given back, replaced when it broke, never shared."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.connection import UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.services.process import free_port
from tests.services.valkey import ValkeyServer
from worker.contracts.settings import RedisSettings
from worker.errors import TransientError
from worker.stores import Meta, Writes
from worker.stores.redis import RedisStore
from worker.stores.redis_view import RedisView

pytestmark = pytest.mark.redis

_SPACE = "cards.0123456789abcdef.0"
_KEYS = ("card:1", "card:2")


def _filled(start_server: Callable[..., ValkeyServer]) -> ValkeyServer:
    server = start_server()
    store = RedisStore(RedisSettings.model_construct(url=SecretStr(server.url), timeout=5_000))
    writes = [Writes.of("card:1", b"one"), Writes.of("card:2", b"two")]
    store.flush(_SPACE, None, Meta(b"v1", 10, 4, 3), writes)
    store.close()
    return server


def _read(view: RedisView, key: str = "card:1") -> bytes | None:
    return view.load([(_SPACE, [key])])[0][1][0]


def _cut(server: ValkeyServer) -> None:
    """Close every other client's connection."""
    redis.Redis.from_url(server.url).execute_command("CLIENT", "KILL", "TYPE", "normal")


def test_one_connection_is_kept_and_given_back_with_the_view(start_server: Callable) -> None:
    """A pool of one connection serves one view after the other, and both of them many times."""
    pool = redis.ConnectionPool.from_url(_filled(start_server).url, max_connections=1)
    client = redis.Redis(connection_pool=pool)
    for _ in range(2):
        view = RedisView(client)
        assert [_read(view), _read(view, "card:2")] == [b"one", b"two"]
        with pytest.raises(redis.ConnectionError, match="Too many connections"):
            client.ping()
        del view
    assert client.ping()


def test_a_connection_that_the_server_closed_is_made_again(start_server: Callable) -> None:
    """A question does not see it, whether its client repeats or not."""
    server = _filled(start_server)
    for repeats in (0, 3):
        client = redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), repeats))
        view = RedisView(client)
        assert _read(view) == b"one"
        _cut(server)
        assert _read(view) == b"one"


def test_a_server_that_is_back_is_read_again(start_server: Callable) -> None:
    """While it is away a question says so; afterwards the same view answers."""
    server = _filled(start_server)
    view = RedisView(redis.Redis.from_url(server.url))
    assert _read(view) == b"one"
    server.kill()
    for _ in range(2):
        with pytest.raises(TransientError):
            _read(view)
    server.start()
    assert _read(view) is None


class _Counting(UnixDomainSocketConnection):
    """A connection that counts how often a socket is tried."""

    tried = 0

    def _connect(self) -> Any:
        type(self).tried += 1
        return super()._connect()


def test_a_server_that_is_away_is_tried_as_often_as_its_client_says(start_server: Callable) -> None:
    """Each try may last for the whole timeout."""
    server = _filled(start_server)
    pool = redis.ConnectionPool(
        connection_class=_Counting, path=server.url.removeprefix("unix://"),
        retry=Retry(NoBackoff(), 2),
    )  # fmt: skip
    view = RedisView(redis.Redis(connection_pool=pool))
    assert _read(view) == b"one"
    server.kill()
    for _ in range(3):
        _Counting.tried = 0
        with pytest.raises(TransientError):
            _read(view)
        assert _Counting.tried == 1 + 2


class _Interrupted(UnixDomainSocketConnection):
    """Somebody presses the keys after the question and before the answer."""

    interrupted = False

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        if self.interrupted:
            type(self).interrupted = False
            raise KeyboardInterrupt
        return super().read_response(*args, **kwargs)


def test_an_answer_that_was_not_waited_for_is_not_the_next_ones(start_server: Callable) -> None:
    """After an interrupt the next question gets its own answer."""
    path = _filled(start_server).url.removeprefix("unix://")
    pool = redis.ConnectionPool(connection_class=_Interrupted, path=path)
    view = RedisView(redis.Redis(connection_pool=pool))
    assert _read(view) == b"one"
    _Interrupted.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        _read(view)
    assert _read(view, "card:2") == b"two"


_FORKED = """
import os, sys, redis
from worker.stores.redis_view import RedisView
client = redis.Redis.from_url(sys.argv[1])
view = RedisView(client)
view.load([("s", ["1"])])
child = os.fork()  # while it has but one thread
if child:
    assert os.waitpid(child, 0)[1] == 0
view.load([("s", ["1"])])
if child:
    print(client.info("stats")["total_connections_received"])
"""


def test_a_forked_process_has_a_connection_of_its_own(start_server: Callable) -> None:
    """Two processes on one socket would read each other's answers."""
    server = _filled(start_server)
    before = redis.Redis.from_url(server.url).info("stats")["total_connections_received"]
    done = subprocess.run(
        [sys.executable, "-c", _FORKED, server.url], capture_output=True, text=True, check=True
    )
    received = int(done.stdout)
    assert received - before == 3  # the parent's, the child's, and the one that asked this


def test_a_pool_that_may_lead_elsewhere_lends_for_every_command() -> None:
    """Sentinel's pool looks who the primary is when a connection is given back."""
    with ValkeyServer(port := free_port(), persistent=False):

        class Primary(Sentinel):
            def discover_master(self, service_name: str) -> tuple[str, int]:
                return "127.0.0.1", port

        with Primary([]).master_for("cards") as client:
            view = RedisView(client)
            assert _read(view) is None
            assert not client.connection_pool._in_use_connections
