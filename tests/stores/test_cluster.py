"""The store in a real cluster: where keys go, slots that move, and what is said meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisCluster

from tests.services.process import free_port
from tests.services.valkey import ValkeyCluster, ValkeyServer
from tests.stores.conftest import redis_store
from tests.stores.reading import read
from worker.errors import ConfigError, FatalError, StateLostError, TransientError
from worker.stores import Meta, Writes
from worker.stores.redis import RedisStore
from worker.stores.redis_view import RedisView

pytestmark = pytest.mark.redis

_FIRST = Meta(b"v1", 10, 4, 3)
_SECOND = Meta(b"v2", 20, 5, 6)
_WRITES = [Writes.of("card:1", b"one"), Writes.of("card:2", b"two", 60_000)]


@pytest.fixture
def open_one(redis_cluster: ValkeyCluster) -> Iterator[Callable[..., RedisStore]]:
    """Return a function that opens one more store on the emptied cluster."""
    opened: list[RedisStore] = []
    for client in clients(redis_cluster):
        client.flushall()

    def open_store(timeout_ms: int = 5_000, login: str = "") -> RedisStore:
        url = redis_cluster.url.replace("//", f"//{login}")
        opened.append(redis_store(url, timeout_ms, cluster=True))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def clients(cluster: ValkeyCluster) -> list[Redis]:
    return [Redis(port=port) for port in cluster.ports]


def slot_of(cluster: ValkeyCluster, space: str) -> int:
    return int(cluster.tell(0, "KEYSLOT", f"fs:{{{space}}}:meta"))


def space_on(cluster: ValkeyCluster, server: int, name: str = "cards") -> str:
    """Return a space whose slot a server of the three was given."""
    names = (f"{name}.{i}" for i in range(1_000))
    return next(name for name in names if slot_of(cluster, name) * 3 // 16_384 == server)


def begin_move(cluster: ValkeyCluster, slot: int, origin: int, target: int) -> None:
    cluster.tell(target, "SETSLOT", slot, "IMPORTING", cluster.tell(origin, "MYID"))
    cluster.tell(origin, "SETSLOT", slot, "MIGRATING", cluster.tell(target, "MYID"))


def carry(cluster: ValkeyCluster, origin: int, target: int, *keys: str) -> None:
    migrate = ("MIGRATE", "127.0.0.1", cluster.ports[target], "", 0, 5_000, "KEYS", *keys)
    Redis(port=cluster.ports[origin]).execute_command(*migrate)


def end_move(cluster: ValkeyCluster, slot: int, *servers: int) -> None:
    """Give a slot to the first of the servers, who is the last to know it."""
    owner = cluster.tell(servers[0], "MYID")
    for server in servers:
        cluster.tell(server, "SETSLOT", slot, "NODE", owner)


@pytest.fixture
def moving(
    redis_cluster: ValkeyCluster, open_one: Callable[..., RedisStore], request: Any
) -> tuple[RedisStore, str]:
    """Return a store and its space of two keys, whose slot is half way from server 0 to 1."""
    store, space = open_one(), space_on(redis_cluster, 0, request.node.name)
    store.flush(space, None, _FIRST, _WRITES)
    begin_move(redis_cluster, slot_of(redis_cluster, space), 0, 1)
    carry(redis_cluster, 0, 1, f"fs:{{{space}}}:card:1")
    return store, space


def finish(cluster: ValkeyCluster, space: str) -> None:
    """End what `moving` has begun."""
    carry(cluster, 0, 1, f"fs:{{{space}}}:card:2", f"fs:{{{space}}}:meta")
    end_move(cluster, slot_of(cluster, space), 1, 0, 2)


def test_spaces_of_all_servers_are_loaded_with_one_command_each(
    redis_cluster: ValkeyCluster, open_one: Callable[..., RedisStore]
) -> None:
    """Thirty spaces on three servers come back in their order; a view reads what the store does."""
    store = open_one()
    for i in range(30):
        store.flush(f"s{i}", None, Meta(b"v%d" % i, i, 0, 0), [Writes.of("card:1", b"%d" % i)])
    sizes = [client.dbsize() for client in clients(redis_cluster)]
    assert sum(sizes) == 60
    assert min(sizes) > 0
    asked = [(f"s{i}", ["card:1", "card:2"]) for i in range(29, -1, -1)]
    expected = [(Meta(b"v%d" % i, i, 0, 0), [b"%d" % i, None]) for i in range(29, -1, -1)]
    before = calls(redis_cluster, "mget")
    assert store.load(asked) == expected
    assert calls(redis_cluster, "mget") == before + 30
    view = RedisView(RedisCluster.from_url(redis_cluster.url))
    assert view.load(asked) == expected


def calls(cluster: ValkeyCluster, command: str) -> int:
    stats = [client.info("commandstats") for client in clients(cluster)]
    return sum(one.get(f"cmdstat_{command}", {"calls": 0})["calls"] for one in stats)


def test_a_slot_that_has_moved_is_followed(
    redis_cluster: ValkeyCluster, moving: tuple[RedisStore, str]
) -> None:
    """Readers at once; the worker is told to try again, and then finds and writes it there."""
    store, space = moving
    view = RedisView(RedisCluster.from_url(redis_cluster.url))
    finish(redis_cluster, space)
    assert view.load([(space, ["card:1"])]) == [(_FIRST, [b"one"])]
    with pytest.raises(TransientError, match="MovedError"):
        store.flush(space, b"v1", _SECOND, [Writes.of("card:3", b"three")])
    store.flush(space, b"v1", _SECOND, [Writes.of("card:3", b"three")])
    assert read(store, space, b"v2", ["card:1", "card:2", "card:3"]) == [b"one", b"two", b"three"]
    assert Redis(port=redis_cluster.ports[1]).dbsize() == 4


def test_a_store_waits_while_its_slot_is_moved_key_by_key(
    redis_cluster: ValkeyCluster, moving: tuple[RedisStore, str]
) -> None:
    """Half of a space is never taken for all of it, nor written to."""
    store, space = moving
    for ask in (
        lambda: read(store, space, b"v1", ["card:1", "card:2"]),
        lambda: store.load([(space, ["card:1"])]),
        lambda: store.flush(space, b"v1", _SECOND, [Writes.of("card:3", b"three")]),
    ):
        with pytest.raises(TransientError, match="TryAgain"):
            ask()
    assert store.meta(space) == _FIRST
    assert calls(redis_cluster, "asking") == 0
    finish(redis_cluster, space)
    with pytest.raises(TransientError, match="MovedError"):
        store.meta(space)
    assert read(store, space, b"v1", ["card:1", "card:2", "card:3"]) == [b"one", b"two", None]


def test_a_space_is_not_dropped_by_halves_while_its_slot_moves(
    redis_cluster: ValkeyCluster, moving: tuple[RedisStore, str]
) -> None:
    """Keys that have gone ahead would be the next owner's: the mark stays until all are gone."""
    store, space = moving
    with pytest.raises(TransientError, match="TryAgain"):
        store.drop(space)
    carry(redis_cluster, 0, 1, f"fs:{{{space}}}:meta")
    end_move(redis_cluster, slot_of(redis_cluster, space), 1, 0, 2)
    assert store.drop(space) == 2
    assert [client.dbsize() for client in clients(redis_cluster)] == [0, 0, 0]


def test_a_flush_without_an_answer_was_sent_once(
    redis_cluster: ValkeyCluster, open_one: Callable[..., RedisStore]
) -> None:
    """A frozen server finds nothing twice when it goes on; the caller's repetition succeeds."""
    store, space = open_one(200), space_on(redis_cluster, 2)
    store.flush(space, None, _FIRST, _WRITES)
    before = calls(redis_cluster, "watch")
    redis_cluster.servers[2].freeze()
    try:
        with pytest.raises(TransientError, match="Timeout"):
            store.flush(space, b"v1", _SECOND, [])
    finally:
        redis_cluster.servers[2].thaw()
    Redis(port=redis_cluster.ports[2]).ping()
    assert calls(redis_cluster, "watch") == before + 1
    store.flush(space, b"v1", _SECOND, [])
    assert store.meta(space) == _SECOND


def test_answers_that_were_not_waited_for_are_never_taken_for_others(
    redis_cluster: ValkeyCluster, moving: tuple[RedisStore, str]
) -> None:
    """One server refuses while another has not answered yet: that answer belongs to nobody."""
    store, refused = moving
    late, frozen = space_on(redis_cluster, 2), redis_cluster.servers[2]
    store.flush(late, None, _FIRST, _WRITES)
    with ThreadPoolExecutor(1) as pool:
        frozen.freeze()
        try:
            with pytest.raises(TransientError, match="TryAgain"):
                store.load([(refused, ["card:1"]), (late, ["card:1"])])
            asked = pool.submit(store._servers.mget, [[f"fs:{{{late}}}:card:2".encode()]])
            time.sleep(0.05)
        finally:
            frozen.thaw()
        assert asked.result(10) == [[b"two"]]
    finish(redis_cluster, refused)


def test_every_server_that_is_used_must_not_evict(
    redis_cluster: ValkeyCluster, open_one: Callable[..., RedisStore]
) -> None:
    """One of three has another policy: its spaces are refused, those of others are not."""
    store, client = open_one(), Redis(port=redis_cluster.ports[1])
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert store.meta(space_on(redis_cluster, 0)) is None
        with pytest.raises(FatalError, match="noeviction, got allkeys-lru"):
            store.meta(space_on(redis_cluster, 1))
        with pytest.raises(FatalError, match="noeviction, got allkeys-lru"):
            store.load([(space_on(redis_cluster, 0), []), (space_on(redis_cluster, 1), [])])
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


def test_rights_that_are_enough(
    redis_cluster: ValkeyCluster, open_one: Callable[..., RedisStore]
) -> None:
    """Those of one server, and two for the map; a wrong password is no reason to wait."""
    commands = "+get", "+mget", "+set", "+unlink", "+evalsha", "+eval", "+scan"
    rights = (*commands, "+command", "+cluster|slots")
    for client in clients(redis_cluster):
        client.execute_command("ACL", "SETUSER", "worker", "on", ">pw", "~fs:*", "-@all", *rights)
    store, space = open_one(login="worker:pw@"), space_on(redis_cluster, 1)
    store.flush(space, None, _FIRST, _WRITES)
    assert read(store, space, b"v1", ["card:1"]) == [b"one"]
    assert store.drop(space) == 3
    with pytest.raises(FatalError, match="user's ACL") as caught:
        open_one(login="worker:secret@").meta(space)
    assert "secret" not in str(caught.value)


def test_the_other_kind_of_servers_is_told_with_the_setting_that_is_wrong(
    redis_cluster: ValkeyCluster, start_server: Callable[..., ValkeyServer]
) -> None:
    """A cluster where one server was declared, and the reverse."""
    plain = redis_store(redis_cluster.url)
    with pytest.raises(FatalError, match=r"got a cluster \(set store\.cluster: true"):
        plain.meta(space_on(redis_cluster, 2))
    plain.close()
    start_server("--port", str(port := free_port()))
    with pytest.raises(FatalError, match=r"got one server \(set store\.cluster: false"):
        redis_store(f"redis://127.0.0.1:{port}", cluster=True).meta("cards.0")


@pytest.mark.parametrize("url", ["unix:///run/valkey.sock", "redis://localhost:1/3", "http://x"])
def test_urls_that_no_cluster_has(url: str) -> None:
    """A socket and a numbered database are refused before anything connects."""
    with pytest.raises(ConfigError, match=r"store\.url"):
        redis_store(url, cluster=True)


def test_a_cluster_that_is_away_or_not_yet_one_is_waited_for(
    start_server: Callable[..., ValkeyServer],
) -> None:
    """Nobody at the address; a server that knows of no slot."""
    port = free_port()
    store = redis_store(f"redis://127.0.0.1:{port}", cluster=True)
    with pytest.raises(TransientError, match=f"redis://127.0.0.1:{port}"):
        store.meta("cards.0")
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    start_server("--port", str(port), *options)
    for _ in range(2):
        with pytest.raises(TransientError, match="CLUSTERDOWN"):
            store.load([("cards.0", [])])


def test_a_promoted_replica_that_lacks_the_last_writes_is_noticed(tmp_path: Path) -> None:
    """A flush was acknowledged by a primary that died: its replica is found, and is at another
    version; who acquires the shard goes on from there.
    """
    with ValkeyCluster(1, tmp_path, replicas=1) as cluster:
        store, (primary, replica) = redis_store(cluster.url, cluster=True), cluster.servers
        store.flush("cards.0", None, _FIRST, _WRITES)
        client = Redis(port=cluster.ports[0])
        assert client.wait(1, 10_000) == 1
        replica.freeze()
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        store.flush("cards.0", b"v1", _SECOND, [Writes.of("card:1", b"later")])
        primary.kill()
        replica.thaw()
        with pytest.raises(TransientError):
            read(store, "cards.0", b"v2", ["card:1"])
        cluster.tell(1, "FAILOVER", "TAKEOVER")
        with pytest.raises(StateLostError):
            insist(lambda: read(store, "cards.0", b"v2", ["card:1"]))
        assert store.meta("cards.0") == _FIRST
        store.flush("cards.0", b"v1", Meta(b"v3", 20, 5, 6), [Writes.of("card:1", b"again")])
        assert read(store, "cards.0", b"v3", ["card:1", "card:2"]) == [b"again", b"two"]
        store.close()


def test_a_cluster_with_new_addresses_is_found_at_the_one_declared(tmp_path: Path) -> None:
    """No server answers where it was known to be: the URL still leads to one."""
    with ValkeyCluster(1, tmp_path) as cluster:
        client = Redis(port=cluster.ports[0])
        store = redis_store(cluster.url, cluster=True)
        assert store.meta("cards.0") is None
        client.config_set("cluster-announce-ip", "127.0.0.2")  # nobody listens there
        store._servers.renew()
        with pytest.raises(TransientError, match="ConnectionError"):
            store.meta("cards.0")
        client.config_set("cluster-announce-ip", "127.0.0.1")
        assert store.meta("cards.0") is None
        store.close()


def insist(call: Callable[[], object]) -> None:
    """Repeat a call while the store is away, as the worker does."""
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        with suppress(TransientError):
            call()
            return
        time.sleep(0.02)
    pytest.fail("the store stayed away")
