"""Which server holds a key: one for all of them, or the primaries of a cluster by hash slot.

redis-py knows the map of a cluster, and `Cluster` asks it. Commands go to the plain client of a
node, so nothing is ever sent twice: `redis.RedisCluster` itself would repeat what failed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, chain
from typing import Any

from redis import Connection, ConnectionPool, Redis, RedisCluster
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from worker.contracts.settings import RedisSettings
from worker.errors import ConfigError, FatalError, RiverwatchError, StoreAwayError

# Replies that say "not now". From inside a script older servers put the word into the middle.
_NOT_NOW = re.compile(
    r"\b(LOADING|READONLY|OOM|BUSY|MISCONF|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|NOREPLICAS|UNKILLABLE)\b"
)
_WAITS = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    redis_errors.ClusterDownError,  # MasterDownError too
    redis_errors.TryAgainError,
)
_REFUSALS = (redis_errors.AuthenticationError, redis_errors.AuthorizationError,
             redis_errors.NoPermissionError)  # fmt: skip
_ELSEWHERE = (redis_errors.AskError, redis_errors.ClusterCrossSlotError)  # MovedError too
_NO_CLUSTER = "cluster support disabled"
_NOT_ALLOWED = re.compile(r"run the '([a-z|]+)' command")
_NO_DATABASE = re.compile("DB index", re.IGNORECASE)  # is out of range, or invalid


class OneServer:
    """A server that holds everything, or what shows itself as one; connects at the first use."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        options = client.connection_pool.connection_kwargs
        self.where, self.database = place_of(options), options.get("db", 0)

    def of(self, prefix: bytes) -> Redis:
        """Return the server of the keys of a space."""
        return self._client

    def mget(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """Return the values of groups of keys, all of one moment, by one command."""
        if not groups:
            return []
        values = self.send("MGET", *chain.from_iterable(groups))
        ends = accumulate(len(group) for group in groups)
        return [values[end - len(group) : end] for group, end in zip(groups, ends, strict=True)]

    def send(self, *command: bytes | str) -> Any:  # Any: replies have no types
        """Send one command; return the reply."""
        return self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    def renew(self) -> None:
        """Do nothing: an address has no map that could be out of date."""

    def close(self) -> None:
        """Give back the sockets. Idempotent."""
        self._client.close()
        self._client.connection_pool.disconnect()


class Cluster:
    """The primaries of a cluster, each for the hash slots it has.

    Parameters
    ----------
    open_client
        Makes the client at the first use; it connects.
    where
        For messages: where the cluster was said to be.
    first
        Host and port that are asked for the map too, if no node that is known answers.
    """

    def __init__(
        self, open_client: Callable[[], RedisCluster], where: str, *first: tuple[str, int]
    ) -> None:
        self.where = where
        self._open, self._first = open_client, list(first)
        self._client: RedisCluster | None = None
        self._known = False
        self._lock = threading.Lock()

    def of(self, prefix: bytes) -> Redis:
        """Return the primary of a space's slot."""
        cluster = self._mapped()
        return cluster.get_redis_connection(cluster.get_node_from_key(prefix))  # type: ignore[no-untyped-call]

    def mget(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """Return the values of groups of keys, a group of one slot and moment, in one round trip.

        Where a slot has moved everything is read once more.
        """
        try:
            return self._mget(groups)
        except redis_errors.MovedError:
            self.renew()
            return self._mget(groups)

    def renew(self) -> None:
        """Ask for the map again before the next command."""
        self._known = False

    def close(self) -> None:
        """Give back the sockets. Idempotent."""
        if self._client is not None:
            self._client.close()
            self._client.disconnect_connection_pools()  # type: ignore[no-untyped-call]

    def _mapped(self) -> RedisCluster:
        """Return the client, its map no older than the last `renew`."""
        if not self._known or self._client is None:
            with self._lock:
                try:
                    if self._client is None:
                        self._client = self._open()
                    elif not self._known:
                        self._client.nodes_manager.initialize(self._first)
                except IndexError as error:  # redis-py: no slot has a server yet
                    raise redis_errors.ClusterDownError("CLUSTERDOWN") from error
                self._known = True
        return self._client

    def _mget(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """Send to all servers before the first answer is read."""
        places: dict[Redis, list[int]] = {}
        for place, names in enumerate(groups):
            places.setdefault(self.of(names[0]), []).append(place)
        found: list[list[bytes | None]] = [[] for _ in groups]
        with connections(places) as opened:
            for connection, asked in zip(opened, places.values(), strict=True):
                commands = [("MGET", *groups[place]) for place in asked]
                connection.send_packed_command(connection.pack_commands(commands))  # type: ignore[no-untyped-call]
            for connection, asked in zip(opened, places.values(), strict=True):
                for place in asked:
                    found[place] = connection.read_response()
        return found


Servers = OneServer | Cluster


def declared_servers(settings: RedisSettings) -> Servers:
    """Return what a configuration names; nothing connects yet.

    Raises
    ------
    ConfigError
        The URL is none, or none of a cluster's.
    """
    url = settings.url.get_secret_value()
    waits = {
        "socket_timeout": settings.timeout / 1000,
        "socket_connect_timeout": settings.timeout / 1000,
    }
    try:
        options = parse_url(url)  # type: ignore[no-untyped-call]
        pool = ConnectionPool.from_url(url, protocol=2, **waits)
    except ValueError as error:
        raise ConfigError(
            "store.url", expected="redis://, rediss:// or unix://", got="another text",
            hint="for example redis://localhost:6379/0",
        ) from error  # fmt: skip
    # These two must hold whatever options the URL carries after its "?".
    pool.connection_kwargs.update(retry=Retry(NoBackoff(), 0), decode_responses=False)
    if not settings.cluster:
        return OneServer(Redis(connection_pool=pool))
    if "path" in options or options.get("db") or options.get("decode_responses"):
        raise ConfigError(
            "store.url", expected="redis:// or rediss:// and no database but 0, in a cluster",
            got="another URL", hint="for example redis://localhost:6379",
        )  # fmt: skip
    return Cluster(
        # Whether a cluster answers while slots lack a server is said by its own configuration.
        lambda: RedisCluster.from_url(url, protocol=2, require_full_coverage=False, **waits),
        place_of(options),
        (options.get("host", "localhost"), options.get("port", 6379)),
    )


@contextmanager
def translated(servers: Servers) -> Iterator[None]:
    """Raise the errors of redis-py as ours."""
    try:
        yield
    except (redis_errors.RedisError, redis_errors.RedisClusterException) as error:
        if isinstance(servers, OneServer) and _NO_DATABASE.search(str(error)):
            raise FatalError(
                servers.where, "a database of the server", f"index {servers.database}",
                "store.url names it; a server has 0 to 15 unless its `databases` says more",
            ) from error  # fmt: skip
        raise _translate(servers.where, error, isinstance(servers, Cluster)) from error


def place_of(connection: dict[str, Any]) -> str:
    """Return the server's address without user and password."""
    if "path" in connection:
        return f"unix://{connection['path']}"
    return f"redis://{connection.get('host', 'localhost')}:{connection.get('port', 6379)}"


@contextmanager
def connections(servers: Iterable[Redis]) -> Iterator[list[Connection]]:
    """Lend a connection to each server; none is used again if an answer may still be under way."""
    opened: list[Connection] = []
    with ExitStack() as lent:
        for server in servers:
            connection = server.connection_pool.get_connection()
            lent.callback(server.connection_pool.release, connection)
            opened.append(connection)
        try:
            yield opened
        except BaseException:
            for connection in opened:
                connection.disconnect()  # type: ignore[no-untyped-call]
            raise


def _translate(where: str, error: BaseException, cluster: bool) -> RiverwatchError:
    if isinstance(error, redis_errors.RedisClusterException):
        # What redis-py says of a map that it could not get hides what a server had answered.
        below = error.__cause__ or error.__context__
        if below is None:
            return StoreAwayError(where, "a server for every slot", type(error).__name__)
        return _translate(where, below, cluster)
    text = str(error)
    command = _NOT_ALLOWED.search(text)  # never the text itself, which may quote a key
    if command is not None:
        return FatalError(
            where, f"the right to run {command[1]}", type(error).__name__,
            "see the user's ACL, and docs/operations.md for the rights that are needed",
        )  # fmt: skip
    if isinstance(error, _REFUSALS) or "NOAUTH" in text:
        return FatalError(
            where, "access", type(error).__name__,
            "check user and password in store.url, and the user's ACL",
        )  # fmt: skip
    if isinstance(error, _ELSEWHERE) and not cluster:
        return FatalError(
            where, "one server", "a cluster",
            "set store.cluster: true; a Reader takes a redis.RedisCluster",
        )  # fmt: skip
    if _NO_CLUSTER in text:
        return FatalError(where, "a cluster", "one server", "set store.cluster: false")
    if isinstance(error, (*_WAITS, redis_errors.AskError)) or _NOT_NOW.search(text):
        return StoreAwayError(where, "an answer", _reason(error))
    return FatalError(where, "an answer", _reason(error), "is this Redis or Valkey >= 6")


def _reason(error: BaseException) -> str:
    """Return the kind of an error; never its text, which may quote a key."""
    word = _NOT_NOW.search(str(error))
    return type(error).__name__ + (f" {word[1]}" if word else "")
