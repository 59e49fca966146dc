"""The store in Redis against a real server: lost writes, refusals, and what is said about them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from tests.services.valkey import ValkeyServer
from tests.stores.reading import read
from worker.contracts.settings import RedisSettings
from worker.errors import (
    ConfigError,
    FatalError,
    StateDamagedError,
    StateLostError,
    TransientError,
    UnknownLayoutError,
)
from worker.stores import Meta, Writes, redis_flush
from worker.stores.redis import WRITES_MAX, RedisStore

pytestmark = pytest.mark.redis

_SPACE = "cards.0123456789abcdef.0"
_FIRST = Meta(b"v1", 10, 4, 3)
_SECOND = Meta(b"v2", 20, 5, 6)
_WRITES = [Writes.of("card:1", b"one"), Writes.of("card:2", b"two", 60_000)]


def _open(url: str, timeout_ms: int = 5_000) -> RedisStore:
    return RedisStore(RedisSettings.model_construct(url=SecretStr(url), timeout=timeout_ms))


def _client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def _path(server: ValkeyServer) -> str:
    return server.url.removeprefix("unix://")


def test_keys_have_the_names_of_the_design(start_server: Callable) -> None:
    """Other programs find ``fs:{space}:key``, all in one slot of a cluster."""
    server = start_server()
    _open(server.url).flush(_SPACE, None, _FIRST, _WRITES)
    assert sorted(_client(server).keys()) == [
        b"fs:{cards.0123456789abcdef.0}:" + name for name in (b"card:1", b"card:2", b"meta")
    ]


def test_ends_of_life_are_the_servers(start_server: Callable) -> None:
    """A TTL is set where given, removed by a later write without one, and never set on meta."""
    server = start_server()
    store, client, prefix = _open(server.url), _client(server), f"fs:{{{_SPACE}}}:"
    store.flush(_SPACE, None, _FIRST, _WRITES)
    assert client.pttl(prefix + "card:1") == client.pttl(prefix + "meta") == -1
    assert 50_000 < client.pttl(prefix + "card:2") <= 60_000
    store.flush(_SPACE, b"v1", _SECOND, [Writes.of("card:2", b"two")])
    assert client.pttl(prefix + "card:2") == -1


def test_a_value_past_its_end_is_gone(start_server: Callable) -> None:
    """After its TTL of 20 ms a value is not read any more; the space stays valid."""
    store = _open(start_server().url)
    store.flush(
        _SPACE, None, _FIRST, [Writes.of("card:1", b"one", 20), Writes.of("card:2", b"two")]
    )
    end_s = time.monotonic() + 10
    while read(store, _SPACE, b"v1", ["card:1"]) != [None]:
        assert time.monotonic() < end_s
    assert read(store, _SPACE, b"v1", ["card:2"]) == [b"two"]


def test_an_older_meta_is_noticed(start_server: Callable) -> None:
    """A failover that lost the last writes shows another version: load and flush refuse."""
    server = start_server()
    store, client, meta = _open(server.url), _client(server), f"fs:{{{_SPACE}}}:meta"
    store.flush(_SPACE, None, _FIRST, _WRITES)
    before = client.get(meta)
    store.flush(_SPACE, b"v1", _SECOND, [Writes.of("card:1", b"later")])
    client.set(meta, before)
    with pytest.raises(StateLostError):
        read(store, _SPACE, b"v2", ["card:1"])
    with pytest.raises(StateLostError):
        store.flush(_SPACE, b"v2", Meta(b"v3", 30, 6, 7), [Writes.of("card:3", b"three")])
    assert store.meta(_SPACE) == _FIRST
    assert read(store, _SPACE, b"v1", ["card:3"]) == [None]


def test_flushall_is_noticed(start_server: Callable) -> None:
    """Whoever held the space before it was emptied must acquire it again."""
    server = start_server()
    store = _open(server.url)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    _client(server).flushall()
    with pytest.raises(StateLostError):
        read(store, _SPACE, b"v1", ["card:1"])
    with pytest.raises(StateLostError):
        store.flush(_SPACE, b"v1", _SECOND, _WRITES)
    assert _client(server).dbsize() == 0
    assert store.meta(_SPACE) is None


def test_a_killed_server_is_waited_for_and_its_loss_noticed(start_server: Callable) -> None:
    """While it is away calls are transient; back and empty (its script too), it is usable."""
    server = start_server()
    store = _open(server.url)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    server.kill()
    for call in (
        lambda: store.meta(_SPACE),
        lambda: read(store, _SPACE, b"v1", ["card:1"]),
        lambda: store.flush(_SPACE, b"v1", _SECOND, _WRITES),
    ):
        with pytest.raises(TransientError, match="unix://"):
            call()
    server.restart(empty=True)
    with pytest.raises(StateLostError):
        store.flush(_SPACE, b"v1", _SECOND, _WRITES)
    store.flush(_SPACE, None, _SECOND, _WRITES)
    assert read(store, _SPACE, b"v2", ["card:2"]) == [b"two"]


def _relay_without_answers(listener: socket.socket, server_path: str) -> None:
    """Pass commands on to the server; once it has answered a flush, hang up on the client."""
    client, _ = listener.accept()
    with client, socket.socket(socket.AF_UNIX) as upstream:
        upstream.connect(server_path)
        while request := client.recv(1 << 20):
            upstream.sendall(request)
            answer = upstream.recv(1 << 20)
            if b"EXEC" in request:
                return
            client.sendall(answer)


def test_a_flush_whose_answer_was_lost_can_be_repeated(
    start_server: Callable, tmp_path: Path
) -> None:
    """The connection dies after the flush was applied: nothing is sent twice by the client itself,
    the error is transient, and the caller's repetition succeeds.
    """
    server = start_server()
    direct = _open(server.url)
    direct.flush(_SPACE, None, _FIRST, _WRITES)
    flush = (_SPACE, b"v1", _SECOND, [Writes.of("card:1", b"later")])
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(tmp_path / "relay.sock"))
        listener.listen()
        relay = pool.submit(_relay_without_answers, listener, _path(server))
        with pytest.raises(TransientError, match="ConnectionError"):
            _open(f"unix://{tmp_path}/relay.sock", 500).flush(*flush)
        relay.result(10)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert direct.meta(_SPACE) == _SECOND
    direct.flush(*flush)
    assert read(direct, _SPACE, b"v2", ["card:1"]) == [b"later"]


def _while_it_is_watched(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act between what the next transaction looks at and what it sends."""
    commands = redis_flush._commands

    def acted(*asked: Any) -> Any:
        monkeypatch.setattr(redis_flush, "_commands", commands)
        act()
        return commands(*asked)

    monkeypatch.setattr(redis_flush, "_commands", acted)


def test_a_worker_that_writes_while_another_looks_is_not_overwritten(
    start_server: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction of the slower one changes nothing."""
    server = start_server()
    store, other = _open(server.url), _open(server.url)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    others = (_SPACE, b"v1", _SECOND, [Writes.of("card:1", b"other")])
    _while_it_is_watched(monkeypatch, lambda: other.flush(*others))
    with pytest.raises(StateLostError):
        store.flush(_SPACE, b"v1", Meta(b"v3", 30, 6, 7), [Writes.of("card:1", b"mine")])
    assert read(store, _SPACE, b"v2", ["card:1"]) == [b"other"]


def test_a_flush_that_comes_late_while_it_is_repeated_is_applied(
    start_server: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stalled server runs what a given up connection had sent between the repetition's parts."""
    server = start_server()
    store, before = _open(server.url), _open(server.url)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    flush = (_SPACE, b"v1", _SECOND, [Writes.of("card:1", b"later")])
    _while_it_is_watched(monkeypatch, lambda: before.flush(*flush))
    store.flush(*flush)
    assert read(store, _SPACE, b"v2", ["card:1"]) == [b"later"]


def test_a_server_that_does_not_answer_in_time_is_transient(start_server: Callable) -> None:
    """While the server accepts writes but does not run them, a call ends after its timeout."""
    server = start_server()
    store, client = _open(server.url, 100), _client(server)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    flush = (_SPACE, b"v1", _SECOND, [Writes.of("card:1", b"later")])
    with pytest.raises(TransientError, match="TimeoutError"):
        store.flush(*flush)
    client.execute_command("CLIENT", "UNPAUSE")
    _open(server.url).flush(*flush)
    assert read(store, _SPACE, b"v2", ["card:1"]) == [b"later"]


def test_a_replica_is_transient_and_not_written(start_server: Callable) -> None:
    """During a failover the address may lead to a replica: wait, do not stop."""
    replica = start_server()
    store = _open(replica.url)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    _client(replica).execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(TransientError, match="ReadOnly"):
        store.flush(_SPACE, b"v1", _SECOND, [Writes.of("card:3", b"three")])
    assert read(store, _SPACE, b"v1", ["card:3"]) == [None]


def test_a_full_server_is_transient_and_nothing_is_half_written(start_server: Callable) -> None:
    """Out of memory before the flush: refused whole. Within the flush: applied whole."""
    server = start_server("--maxmemory-policy", "noeviction")
    store, client = _open(server.url), _client(server)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    client.config_set("maxmemory", 1)
    with pytest.raises(TransientError, match="OutOfMemory"):
        store.flush(_SPACE, b"v1", _SECOND, [Writes.of("card:1", None), Writes.of("card:3", b"x")])
    assert read(store, _SPACE, b"v1", ["card:1", "card:3"]) == [b"one", None]
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 3_000_000)
    writes = [Writes.of(f"card:{i}", bytes(1_000), 60_000) for i in range(10_000)]
    try:
        store.flush(_SPACE, b"v1", _SECOND, writes)
        applied = True
    except TransientError:
        applied = False
    client.config_set("maxmemory", 0)
    assert store.meta(_SPACE) == (_SECOND if applied else _FIRST)
    assert client.dbsize() == (10_001 if applied else 3)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused(start_server: Callable, policy: str) -> None:
    """A cache that throws keys away when full would lose state silently."""
    server = start_server("--maxmemory-policy", policy, "--maxmemory", "100mb")
    with pytest.raises(FatalError, match=f"noeviction, got {policy}"):
        _open(server.url).meta(_SPACE)


def test_a_policy_without_a_limit_is_accepted(start_server: Callable) -> None:
    """Without maxmemory nothing is ever evicted."""
    server = start_server("--maxmemory-policy", "allkeys-lru")
    assert _open(server.url).meta(_SPACE) is None


@pytest.mark.parametrize(
    ("rights", "used"),
    [
        (["+evalsha"], "evalsha"),
        (["+watch", "+unwatch", "+multi", "+exec", "+mset", "+msetex"], "exec"),
    ],
)
def test_a_server_that_hides_its_policy_is_accepted(
    start_server: Callable, rights: list[str], used: str
) -> None:
    """Managed servers forbid INFO; the worker needs only what it uses, one way or the other."""
    server = start_server()
    every = "+get", "+mget", "+set", "+unlink", "+eval", "+scan", *rights
    user = ("worker", "on", ">pw", "~fs:*", "-@all")
    _client(server).execute_command("ACL", "SETUSER", *user, *every)
    store = _open(f"unix://worker:pw@{_path(server)}")
    store.flush(_SPACE, None, _FIRST, _WRITES)
    store.flush(_SPACE, b"v1", _SECOND, [Writes.of("card:1", None), Writes.of("card:3", b"three")])
    assert read(store, _SPACE, b"v2", ["card:1", "card:2", "card:3"]) == [None, b"two", b"three"]
    assert f"cmdstat_{used}" in _client(server).info("commandstats")
    with pytest.raises(StateLostError):
        store.flush(_SPACE, b"v1", Meta(b"v3", 1, 1, 1), _WRITES)
    assert store.drop(_SPACE) == 3


def test_a_server_that_breaks_a_transaction_loses_the_space(
    start_server: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it took of a flush is not taken for the whole: the space is dropped and rebuilt."""
    server = start_server()
    store = _open(server.url)
    store.flush(_SPACE, None, _FIRST, _WRITES)
    prefix = f"fs:{{{_SPACE}}}:"
    broken = [("MSET", f"{prefix}card:1", "later"), ("MSETEX", 1, f"{prefix}x", "y", "PX", 0)]
    monkeypatch.setattr(redis_flush, "_commands", lambda prefix, writes: broken)
    with pytest.raises(StateDamagedError, match="a part of it"):
        store.flush(_SPACE, b"v1", _SECOND, _WRITES)
    assert store.meta(_SPACE) is None
    assert _client(server).dbsize() == 0


def test_a_user_without_rights_is_told(start_server: Callable) -> None:
    """A missing permission is no reason to wait; who only reads is told before anything is read."""
    server = start_server()
    rights = "-@all", "+get", "+mget", "+info"
    _client(server).execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", *rights)
    store = _open(f"unix://reader:pw@{_path(server)}")
    for use in (lambda: store.meta(_SPACE), lambda: store.load([(_SPACE, ["card:1"])])):
        with pytest.raises(FatalError, match=r"ACL") as caught:
            use()
        assert "expected the right to run unlink, got NoPermissionError" in str(caught.value)


def test_a_database_that_the_server_does_not_have_is_named(start_server: Callable) -> None:
    """Where, what was expected, what came, and what helps; it is no question of the version."""
    place = f"unix://{_path(start_server())}"
    with pytest.raises(FatalError) as caught:
        _open(f"{place}?db=9999").meta(_SPACE)
    assert str(caught.value) == (
        f"{place}: expected a database of the server, got index 9999"
        " (store.url names it; a server has 0 to 15 unless its `databases` says more)"
    )


@pytest.mark.parametrize("login", ["", ":wrong-secret@"])
def test_a_wrong_or_missing_password_stops_with_a_hint(start_server: Callable, login: str) -> None:
    """The error names the place and the remedy, and no secret."""
    server = start_server()
    _client(server).config_set("requirepass", "right-secret")
    with pytest.raises(FatalError, match=r"check user and password in store\.url") as caught:
        _open(f"unix://{login}{_path(server)}").meta(_SPACE)
    assert "secret" not in str(caught.value)
    assert _open(f"unix://:right-secret@{_path(server)}").meta(_SPACE) is None


def test_nobody_at_the_address_is_transient() -> None:
    """A server that is not there yet is waited for."""
    with pytest.raises(TransientError, match=r"redis://127\.0\.0\.1:1: "):
        _open("redis://:secret@127.0.0.1:1/0").meta(_SPACE)


def test_a_url_of_another_kind_is_a_mistake_in_the_configuration() -> None:
    """The message shows what a URL looks like, not what was written."""
    with pytest.raises(ConfigError, match="redis://localhost") as caught:
        _open("http://user:secret@host")
    assert "secret" not in str(caught.value)


def test_options_in_the_url_cannot_change_bytes_to_text(start_server: Callable) -> None:
    """Values stay bytes whatever the URL asks for."""
    store = _open(start_server().url + "?decode_responses=true")
    store.flush(_SPACE, None, _FIRST, [Writes.of("card:1", b"\xff\x00")])
    assert read(store, _SPACE, b"v1", ["card:1"]) == [b"\xff\x00"]


def test_a_half_dropped_space_is_refused_until_it_is_dropped_again(start_server: Callable) -> None:
    """A drop that died in the middle leaves a space that nobody takes for whole or for empty."""
    server = start_server()
    store, client, prefix = _open(server.url), _client(server), f"fs:{{{_SPACE}}}:"
    store.flush(_SPACE, None, _FIRST, _WRITES)
    client.set(prefix + "meta", b"\x00")
    client.delete(prefix + "card:1")
    for version in (None, b"v1"):
        with pytest.raises(StateDamagedError, match="drop it again"):
            store.load([(_SPACE, ["card:2"])])
        with pytest.raises(StateLostError):
            store.flush(_SPACE, version, _SECOND, _WRITES)
    assert store.drop(_SPACE) == 2
    assert store.meta(_SPACE) is None
    assert client.dbsize() == 0


def test_a_meta_of_unknown_layout_is_refused(start_server: Callable) -> None:
    """Bytes of another version are never read as positions; they are dropped where told to."""
    server = start_server()
    _client(server).set(f"fs:{{{_SPACE}}}:meta", b"\x01\x02v1" + bytes(24))
    store = _open(server.url)
    with pytest.raises(UnknownLayoutError, match="drop the space"):
        store.meta(_SPACE)
    with pytest.raises(StateLostError):
        store.drop(_SPACE, b"v1")
    assert store.drop(_SPACE) == 1
    assert store.meta(_SPACE) is None


def test_more_writes_than_a_command_can_hold_name_the_setting() -> None:
    """The bound is told before anything is sent."""
    keys = [f"card:{i}" for i in range(WRITES_MAX + 1)]
    writes = [Writes(keys, [b"x"] * len(keys))]
    with pytest.raises(FatalError, match=r"lower runner\.dirty_max"):
        _open("redis://127.0.0.1:1").flush(_SPACE, None, _FIRST, writes)


def test_a_drop_leaves_what_a_new_owner_wrote_meanwhile(start_server: Callable) -> None:
    """A slow dropper, overtaken by another that ended the drop, deletes no new key."""
    server = start_server()
    slow, other = _open(server.url), _open(server.url)
    slow.flush(_SPACE, None, _FIRST, _WRITES)
    unlink = slow._unlink

    def overtaken(server: redis.Redis, prefix: bytes) -> int:
        other.drop(_SPACE)
        other.flush(_SPACE, None, _SECOND, _WRITES)
        return unlink(server, prefix)

    slow._unlink = overtaken  # type: ignore[method-assign]
    slow.drop(_SPACE)
    assert other.meta(_SPACE) == _SECOND
    assert read(other, _SPACE, b"v2", ["card:1", "card:2"]) == [b"one", b"two"]
