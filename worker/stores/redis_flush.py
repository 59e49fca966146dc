"""The guarded write of many keys: a transaction where the server has MSETEX, else a script.

How to write 2,500 keys under a guard (Valkey 9.1, two busy cores, CPU in us a key: server, client):

===========================================  ===========  ===========  =========================
form                                         350 B        1,800 B      why (not)
===========================================  ===========  ===========  =========================
WATCH, MULTI, MSETEX a TTL, EXEC             0.8, 0.6     1.6, 1.2     chosen: Valkey 9.1, Redis 8.4
one script with a SET … PX each              2.7, 1.3     5.0, 4.4     every other server
WATCH, MULTI, a SET … PX each, EXEC          1.9, 1.5     2.6, 2.1     an answer a key to wait for
MSET, no guard                               0.7, 0.6     1.5, 1.2     overwrites another worker
===========================================  ===========  ===========  =========================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha1
from itertools import chain
from typing import Any, NamedTuple

from redis import Redis
from redis import exceptions as redis_errors

from worker.stores import Writes
from worker.stores.redis_servers import connections

# KEYS: meta, then the keys of all groups. ARGV: the bytes with which meta must begin ('' for no
# meta), the new meta, then the groups: how to write ('del', 'keep' or the TTL in ms), how many
# keys, and their values (none for 'del'). SET cannot fail after the first one of a script: the
# server checks memory and read-only state only before a script has written something.
_SCRIPT = b"""
local call, set = redis.call, 'SET'
local meta = call('GET', KEYS[1])
if meta == ARGV[2] then return 2 end
if ARGV[1] == '' then
  if meta then return 0 end
elseif not meta or string.sub(meta, 1, #ARGV[1]) ~= ARGV[1] then
  return 0
end
local key, arg = 2, 3
while arg <= #ARGV do
  local how, count = ARGV[arg], tonumber(ARGV[arg + 1])
  arg = arg + 2
  if how == 'del' then
    for i = 0, count - 1 do call('UNLINK', KEYS[key + i]) end
  else
    if how == 'keep' then
      for i = 0, count - 1 do call(set, KEYS[key + i], ARGV[arg + i]) end
    else
      for i = 0, count - 1 do call(set, KEYS[key + i], ARGV[arg + i], 'PX', how) end
    end
    arg = arg + count
  end
  key = key + count
end
call(set, KEYS[1], ARGV[2])
return 1
"""
_SCRIPT_SHA = sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()


class Guard(NamedTuple):
    """The key ``meta``, the bytes with which it must begin (empty: it must not be there), and what
    it becomes.
    """

    meta: bytes
    expected: bytes
    packed: bytes

    def admits(self, now: bytes | None) -> bool:
        """Return whether a space whose meta is ``now`` may be written."""
        return now is None if not self.expected else (now or b"").startswith(self.expected)


class HalfAppliedError(Exception):
    """The server applied one part of a transaction and refused another, which it never does."""


def has_msetex(server: Redis) -> bool:
    """Return whether a server has MSETEX. Changes nothing."""
    try:
        server.execute_command("MSETEX")  # type: ignore[no-untyped-call]
    except redis_errors.NoPermissionError:
        return False
    except redis_errors.ResponseError as error:
        return "wrong number of arguments" in str(error)
    return False


def write_by_transaction(
    server: Redis, guard: Guard, prefix: bytes, writes: Sequence[Writes]
) -> bool:
    """Apply all writes if the guard admits it; return whether they are applied, now or before.

    Raises
    ------
    HalfAppliedError
        Only a part is applied, and the guard's meta: what the space holds is worth nothing.
    """
    with connections([server]) as (connection,):

        def answers(*commands: Sequence[Any]) -> list[Any]:
            connection.send_packed_command(connection.pack_commands(commands))  # type: ignore[no-untyped-call]
            return [connection.read_response() for _ in commands]

        now = answers(("WATCH", guard.meta), ("GET", guard.meta))[1]
        if now == guard.packed or not guard.admits(now):
            answers(("UNWATCH",))
            return bool(now == guard.packed)
        commands = [*_commands(prefix, writes), ("SET", guard.meta, guard.packed)]
        done = answers(("MULTI",), *commands, ("EXEC",))[-1]
        if done is None:  # somebody was faster: this flush, sent before, whose answer was lost?
            return bool(answers(("GET", guard.meta))[0] == guard.packed)
        if any(isinstance(one, Exception) for one in done):
            raise HalfAppliedError
    return True


def write_by_script(server: Redis, guard: Guard, prefix: bytes, writes: Sequence[Writes]) -> bool:
    """Apply all writes if the guard admits it; return whether they are applied, now or before.

    A script blocks the server: 0.8 s for 100,000 keys of 400 B (loading them takes 0.2 s).
    """
    keys: list[bytes] = []
    args: list[bytes | int] = []
    kept, gone = _sorted(prefix, writes)
    for ttl_ms, names, values in kept:
        keys += names
        args += [b"keep" if ttl_ms is None else b"%d" % ttl_ms, len(names), *values]
    # Deletes come last: a full server lets a script that has deleted something write on.
    command = [len(keys) + len(gone) + 1, guard.meta, *keys, *gone, guard.expected, guard.packed]
    command += [*args, b"del", len(gone)]
    try:
        return bool(server.execute_command(b"EVALSHA", _SCRIPT_SHA, *command))  # type: ignore[no-untyped-call]
    except redis_errors.NoScriptError:
        # A restarted server has forgotten the script; it ran nothing. EVAL stores it again.
        return bool(server.execute_command(b"EVAL", _SCRIPT, *command))  # type: ignore[no-untyped-call]


def _commands(prefix: bytes, writes: Sequence[Writes]) -> Iterator[tuple[Any, ...]]:
    kept, gone = _sorted(prefix, writes)
    for ttl_ms, names, values in kept:
        pairs = chain.from_iterable(zip(names, values, strict=True))
        if ttl_ms is None:
            yield ("MSET", *pairs)
        else:
            yield ("MSETEX", len(names), *pairs, "PX", ttl_ms)
    if gone:
        yield ("UNLINK", *gone)


def _sorted(
    prefix: bytes, writes: Sequence[Writes]
) -> tuple[list[tuple[int | None, list[bytes], list[bytes]]], list[bytes]]:
    """Return what is kept, as TTL, keys and values, and the keys that are to go."""
    kept: list[tuple[int | None, list[bytes], list[bytes]]] = []
    gone: list[bytes] = []
    for group in writes:
        # A TTL that the server refuses would stop it half way.
        assert group.ttl_ms is None or 0 < group.ttl_ms < 1 << 53
        names = [prefix + key.encode() for key in group.keys]
        values = [value for value in group.values if value is not None]
        if len(values) < len(names):
            told = list(zip(names, group.values, strict=True))
            gone += [name for name, value in told if value is None]
            names = [name for name, value in told if value is not None]
        if names:
            kept.append((group.ttl_ms, names, values))
    return kept, gone
