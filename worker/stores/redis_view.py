"""Spaces in Redis or Valkey as others see them: read, never written, and owned by somebody else."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any

from redis import BlockingConnectionPool, Connection, ConnectionPool, Redis, RedisCluster
from redis import exceptions as redis_errors

from worker.errors import ConfigError, TransientError
from worker.stores import Meta
from worker.stores.redis import load
from worker.stores.redis_servers import Cluster, OneServer, Servers, place_of, translated

_PLAIN_POOLS = (ConnectionPool, BlockingConnectionPool)


class RedisView:
    """Reads values of several spaces in one round trip. Not for two threads.

    Parameters
    ----------
    client
        A `redis.Redis` or `redis.RedisCluster` of the caller's, which answers in bytes; the caller
        closes it.

    Raises
    ------
    ConfigError
        The client decodes answers to text: blobs are none.
    TransientError, FatalError
        From any method, as `worker.stores.redis.RedisStore`.
    """

    def __init__(self, client: Any) -> None:  # Any: redis-py has no types worth the name
        self._servers = _servers_of(client)

    def load(
        self, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[Meta | None, list[bytes | None]]]:
        """Return meta and values of each space; see `worker.stores.StateStore.load`."""
        try:
            with translated(self._servers):
                return load(self._servers, asked)
        except TransientError:
            self._servers.renew()
            raise


class KeptConnection(OneServer):
    """A server that one thread reads, by a connection of the client's pool that is kept.

    To lend a connection for each command, and to note how long it took, takes redis-py 11 us of the
    29 of an MGET of 8 keys. What else it does is done here too: a socket that the server closed is
    replaced, and what went wrong is repeated as the client says (`redis.retry.Retry`).
    """

    def __init__(self, client: Redis) -> None:
        super().__init__(client)
        self._connection: Connection | None = None

    def send(self, *command: bytes | str) -> Any:
        """Send one command that only reads; return the reply."""
        connection = self._kept()

        def ask() -> Any:
            try:
                connection.send_packed_command(connection.pack_command(*command))  # type: ignore[no-untyped-call]
                return connection.read_response()
            except BaseException:  # its answer may still come: it must not be the next one's
                connection.disconnect()  # type: ignore[no-untyped-call]
                raise

        return connection.retry.call_with_retry(ask, lambda error: None)

    def _kept(self) -> Connection:
        """Return the connection, another one in a process that was forked."""
        if self._connection is None or self._connection.pid != os.getpid():
            pool = self._client.connection_pool
            self._connection = pool.get_connection()
            weakref.finalize(self, pool.release, self._connection)
        elif _is_stale(self._connection):
            self._connection.disconnect()  # type: ignore[no-untyped-call]
        return self._connection


def _is_stale(connection: Connection) -> bool:
    """Return whether nothing may be asked: the server moves, closed it, or says what nobody waits
    for. One without a socket makes it when it is asked: to look at it here would make it, too.
    """
    try:
        return connection.is_connected and (
            connection.should_reconnect() or connection.can_read()  # type: ignore[no-untyped-call]
        )
    except (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError):
        return True


def _servers_of(client: Redis | RedisCluster | Servers) -> Servers:
    """Return where a client of a caller's leads to."""
    if isinstance(client, Servers):
        return client
    if isinstance(client, RedisCluster):
        options = client.get_connection_kwargs()  # type: ignore[no-untyped-call]
        found: Servers = Cluster(lambda: client, place_of(options))
    else:
        options, kind = client.connection_pool.connection_kwargs, type(client.connection_pool)
        # Pools of other classes, as Sentinel's, may lead elsewhere at the next command.
        found = (KeptConnection if kind in _PLAIN_POOLS else OneServer)(client)
    if options.get("decode_responses"):
        raise ConfigError("redis client", expected="decode_responses=False", got="True")
    return found
