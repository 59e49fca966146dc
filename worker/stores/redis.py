"""State in Redis or Valkey: one MGET per load, one guarded write per flush.

Keys of a space are ``fs:{space}:key``; the braces put a whole space into one slot of a cluster.
``fs:{space}:meta`` holds the version and positions as bytes, see `_pack`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors

from worker.contracts.settings import RedisSettings
from worker.errors import FatalError, StateDamagedError, TransientError, UnknownLayoutError
from worker.stores import Meta, Writes, lost
from worker.stores.redis_flush import (
    Guard,
    HalfAppliedError,
    has_msetex,
    write_by_script,
    write_by_transaction,
)
from worker.stores.redis_servers import Servers, declared_servers, translated

WRITES_MAX = 500_000
"""Writes of one flush: the server takes at most 1,048,576 arguments in a command."""

_DROPPING = b"\x00"
_LAYOUT = 2
_POSITIONS = struct.Struct("<qqqI")
_SCAN_COUNT = 1_000

# KEYS: meta. ARGV: the mark, the bytes with which meta must begin ('' for any). A space is marked
# before its keys go, and they go only while the mark is there: once it is gone, whatever has the
# space's names is a new owner's.
_MARK = b"""
local meta = redis.call('GET', KEYS[1])
if ARGV[2] ~= '' and meta ~= ARGV[1] and
  (not meta or string.sub(meta, 1, #ARGV[2]) ~= ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return meta and 2 or 1
"""
# KEYS: meta, then keys to delete. ARGV: the mark, and anything to delete meta too.
_UNLINK = b"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local count = 0
for i = 2, #KEYS do count = count + redis.call('UNLINK', KEYS[i]) end
if ARGV[2] then redis.call('UNLINK', KEYS[1]) end
return count
"""


class RedisStore:
    """A `StateStore` in a Redis or Valkey server or cluster. Connects at the first use.

    Nothing is ever sent twice by the client: the caller repeats what failed, and the guard of
    `flush` makes that safe.

    Raises
    ------
    ConfigError
        The URL is none, or none of a cluster's.
    FatalError
        From any method: a server refuses the password, or would evict keys.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._servers = declared_servers(settings)
        self._checked: dict[Redis, bool] = {}  # whether it has MSETEX

    def meta(self, space: str) -> Meta | None:
        """Return where the fold of a space stands, or None where nothing is stored."""
        prefix = prefix_of(space)
        name = prefix + b"meta"
        value = self._once(lambda: self._server(prefix).execute_command(b"GET", name))  # type: ignore[no-untyped-call]
        return unpack_meta(space, value)

    def load(
        self, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[Meta | None, list[bytes | None]]]:
        """Return meta and values of several spaces, whoever writes them; see `StateStore.load`."""

        def ask() -> list[tuple[Meta | None, list[bytes | None]]]:
            for space, _ in asked:
                self._server(prefix_of(space))
            return load(self._servers, asked)

        answers: list[tuple[Meta | None, list[bytes | None]]] = self._once(ask)
        return answers

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        """Apply all writes and ``meta``, or nothing; see `StateStore.flush`.

        Raises
        ------
        StateDamagedError
            The server broke a transaction. The space was dropped.
        """
        assert meta.version != version, "every flush has a new version"
        if (count := sum(len(group.keys) for group in writes)) > WRITES_MAX:
            raise FatalError(
                f"flush {space}", f"at most {WRITES_MAX} writes", str(count),
                "lower runner.dirty_max",
            )  # fmt: skip
        prefix = prefix_of(space)
        guard = Guard(prefix + b"meta", b"" if version is None else _head(version), _pack(meta))

        def write() -> bool:
            server = self._server(prefix)
            if self._checked.get(server):  # a call that failed meanwhile forgets it
                try:
                    return write_by_transaction(server, guard, prefix, writes)
                except redis_errors.NoPermissionError:  # nothing was written
                    self._checked[server] = False
            return write_by_script(server, guard, prefix, writes)

        try:
            applied = self._once(write)
        except HalfAppliedError as error:
            self.drop(space)
            raise StateDamagedError(f"store {space}", "all of a flush", "a part of it") from error
        if not applied:
            raise lost(space)

    def drop(self, space: str, version: bytes | None = None) -> int:
        """Delete a whole space; return the number of keys, its meta included.

        Meta becomes a mark first and goes last: a space that is half gone is never taken for a
        whole one nor for an empty one; dropping it again ends it. Looks at every key of the server.
        """
        prefix = prefix_of(space)
        meta = prefix + b"meta"
        head = b"" if version is None else _head(version)
        # One server from the first to the last command: another has another order of keys.
        server = self._once(lambda: self._server(prefix))
        marked = self._send(server, b"EVAL", _MARK, 1, meta, _DROPPING, head)
        if not marked:
            raise lost(space)
        count = self._unlink(server, prefix)
        # Two keys, one of which nobody has: refused while the slot moves and keys are elsewhere.
        self._send(server, b"EVAL", _UNLINK, 2, meta, prefix + b"~", _DROPPING, b"whole")
        return count + int(marked == 2)

    def close(self) -> None:
        """Give back the sockets. Idempotent."""
        self._servers.close()

    def _unlink(self, server: Redis, prefix: bytes) -> int:
        """Delete all keys of a prefix but meta, while the mark is there; return how many."""
        pattern = re.sub(rb"([\\*?\[\]^])", rb"\\\1", prefix) + b"*"
        cursor, count = b"0", 0
        while True:
            scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT)
            cursor, keys = self._send(server, *scan)
            keys = [key for key in keys if key != prefix + b"meta"]
            if keys:
                names = (prefix + b"meta", *keys)
                gone = int(self._send(server, b"EVAL", _UNLINK, len(names), *names, _DROPPING))
                if gone < 0:
                    return count
                count += gone
            if int(cursor) == 0:
                return count

    def _send(self, server: Redis, *command: bytes | int) -> Any:  # Any: replies have no types
        """Send one command once to this server; return the reply."""
        return self._once(lambda: server.execute_command(*command))  # type: ignore[no-untyped-call]

    def _once(self, send: Callable[[], Any]) -> Any:
        try:
            with translated(self._servers):
                return send()
        except TransientError:
            # Behind the same address another server may answer next time, and slots may have moved.
            self._checked.clear()
            self._servers.renew()
            raise

    def _server(self, prefix: bytes) -> Redis:
        """Return the server of a space, once it is known that it throws nothing away."""
        server = self._servers.of(prefix)
        if server not in self._checked:
            _check_server(server, self._servers.where, prefix)
            self._checked[server] = has_msetex(server)
        return server


def load(
    servers: Servers, asked: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[Meta | None, list[bytes | None]]]:
    """Return meta and values of several spaces in one round trip; see `StateStore.load`."""
    groups = []
    for space, keys in asked:
        prefix = prefix_of(space)
        groups.append([prefix + b"meta", *(prefix + key.encode() for key in keys)])
    answers = zip(asked, servers.mget(groups), strict=True)
    return [(unpack_meta(space, values[0]), values[1:]) for (space, _), values in answers]


def _check_server(server: Redis, where: str, prefix: bytes) -> None:
    """Refuse a server that throws keys away when it is full, for state would lack them silently;
    and one that this user may only read, before everything was read.
    """
    try:
        memory: dict[str, Any] = server.info("memory")
    except redis_errors.NoPermissionError:
        memory = {}  # Managed servers may forbid it: their policy is the operator's to know.
    policy = memory.get("maxmemory_policy", "noeviction")
    if int(memory.get("maxmemory", 0)) > 0 and policy != "noeviction":
        raise FatalError(
            where, "maxmemory-policy noeviction", str(policy),
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
        )  # fmt: skip
    try:
        server.execute_command("UNLINK", prefix + b"~")  # type: ignore[no-untyped-call]  # nobody has it
    except redis_errors.NoPermissionError:
        raise
    except redis_errors.ResponseError:
        pass  # it takes no writes for now, which the next one will say


def prefix_of(space: str) -> bytes:
    """Return what the names of all keys of a space begin with."""
    assert "{" not in space
    assert "}" not in space
    return b"fs:{%b}:" % space.encode()


def _head(version: bytes) -> bytes:
    """Return the bytes with which a meta of this version begins."""
    return bytes((_LAYOUT, len(version))) + version


def _pack(meta: Meta) -> bytes:
    """Return meta: layout u8, version length u8, version, three offsets i64, P u32, little-endian.

    >>> len(_pack(Meta(b"0123456789abcdef", 1, 2, 3)))
    46
    """
    offsets = (meta.events_offset, meta.labels_offset, meta.journal_offset)
    return _head(meta.version) + _POSITIONS.pack(*offsets, meta.partitions)


def unpack_meta(space: str, value: bytes | None) -> Meta | None:
    """Return what a space's ``meta`` key holds.

    Raises
    ------
    StateDamagedError
        The space is half dropped.
    UnknownLayoutError
        Another version wrote it.
    """
    if value is None:
        return None
    if value == _DROPPING:
        raise StateDamagedError(
            f"store {space}", "a whole space", "one half dropped", "drop it again"
        )
    size = value[1] if len(value) > 1 else 0
    if value[:1] != bytes((_LAYOUT,)) or len(value) != 2 + size + _POSITIONS.size:
        raise UnknownLayoutError(
            f"store {space}", f"a meta of layout {_LAYOUT}", "other bytes",
            "another version wrote them: drop the space to rebuild it from the log",
        )  # fmt: skip
    return Meta(value[2 : 2 + size], *_POSITIONS.unpack_from(value, 2 + size))
