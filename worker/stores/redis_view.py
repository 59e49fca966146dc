"""Spaces in Redis or Valkey as others see them: read, never written, and owned by somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.errors import ConfigError
from worker.stores import Meta
from worker.stores.redis import place_of, prefix_of, translated, unpack_meta


class RedisView:
    """Reads values of several spaces by one MGET.

    Parameters
    ----------
    client
        A `redis.Redis` of the caller's, which answers in bytes; the caller closes it.

    Raises
    ------
    ConfigError
        The client decodes answers to text: blobs are none.
    TransientError, FatalError
        From any method, as `worker.stores.redis.RedisStore`.
    """

    def __init__(self, client: Any) -> None:  # Any: redis-py has no types worth the name
        options = client.connection_pool.connection_kwargs
        if options.get("decode_responses"):
            raise ConfigError("redis client", expected="decode_responses=False", got="True")
        self._client = client
        self._where = place_of(options)

    def metas(self, spaces: Sequence[str]) -> list[Meta | None]:
        """Return where each space stands, None where nothing is stored."""
        return self.read(spaces, [])[0]

    def read(
        self, spaces: Sequence[str], places: Sequence[tuple[int, str]]
    ) -> tuple[list[Meta | None], list[bytes | None]]:
        """Return where each space stands, and the values of (index of a space, key), of one moment.

        One round trip. The spaces must be in one server.
        """
        prefixes = [prefix_of(space) for space in spaces]
        names = [prefix + b"meta" for prefix in prefixes]
        names += [prefixes[s] + key.encode() for s, key in places]
        with translated(self._where):
            values: list[bytes | None] = self._client.execute_command("MGET", *names)
        found = values[: len(spaces)]
        metas = [unpack_meta(space, value) for space, value in zip(spaces, found, strict=True)]
        return metas, values[len(spaces) :]
