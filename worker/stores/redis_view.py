"""Spaces in Redis or Valkey as others see them: read, never written, and owned by somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.errors import TransientError
from worker.stores import Meta
from worker.stores.redis import load
from worker.stores.redis_servers import servers_of, translated


class RedisView:
    """Reads values of several spaces in one round trip.

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
        self._servers = servers_of(client)

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
