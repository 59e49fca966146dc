"""State in this process: the embedded run, replay and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from worker.stores import Meta, Writes, lost


@dataclass(slots=True)
class _Space:
    meta: Meta | None = None
    values: dict[str, bytes] = field(default_factory=dict)
    expires_ms: dict[str, int] = field(default_factory=dict)
    ends: list[tuple[int, str]] = field(default_factory=list)  # a heap; what was rewritten is stale


class MemoryStore:
    """A `StateStore` whose state lasts as long as the object; closing it keeps the state.

    Parameters
    ----------
    clock_ms
        Tells the time by which a ``ttl_ms`` runs. Without one nothing expires. A replay gives its
        event time: it must not depend on how fast it runs.

    Examples
    --------
    >>> store = MemoryStore()
    >>> store.flush("cards.1", None, Meta(b"v1", 3, 0, 1), [Writes.of("card:7", b"state")])
    >>> store.load([("cards.1", ["card:7", "card:8"])])[0][1]
    [b'state', None]
    """

    def __init__(self, clock_ms: Callable[[], int] | None = None) -> None:
        self._clock_ms = clock_ms
        self._spaces: dict[str, _Space] = {}

    def meta(self, space: str) -> Meta | None:
        """Return where the fold of a space stands, or None where nothing is stored."""
        return self._space(space).meta

    def load(
        self, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[Meta | None, list[bytes | None]]]:
        """Return meta and values of several spaces; see `StateStore.load`."""
        found = []
        for space, keys in asked:
            held = self._space(space)
            self._expire(held)
            found.append((held.meta, [held.values.get(key) for key in keys]))
        return found

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        """Apply all writes and ``meta``, or none; see `StateStore.flush`."""
        assert meta.version != version, "every flush has a new version"
        held = self._space(space)
        if held.meta == meta:
            return
        if _version(held) != version:
            raise lost(space)
        self._expire(held)
        for keys, values, ttl_ms in writes:
            for key, value in zip(keys, values, strict=True):
                self._apply(held, key, value, ttl_ms)
        held.meta = meta
        self._spaces[space] = held

    def drop(self, space: str, version: bytes | None = None) -> int:
        """Delete a whole space; return the number of keys, its meta included."""
        held = self._space(space)
        if version is not None and _version(held) != version:
            raise lost(space)
        self._spaces.pop(space, None)
        return len(held.values) + (held.meta is not None)

    def close(self) -> None:
        """Do nothing: the state belongs to the process."""

    def _space(self, space: str) -> _Space:
        return self._spaces.get(space) or _Space()

    def _apply(self, held: _Space, key: str, value: bytes | None, ttl_ms: int | None) -> None:
        held.expires_ms.pop(key, None)
        if value is None:
            held.values.pop(key, None)
            return
        held.values[key] = value
        if ttl_ms is not None and self._clock_ms is not None:
            end_ms = self._clock_ms() + ttl_ms
            held.expires_ms[key] = end_ms
            heappush(held.ends, (end_ms, key))

    def _expire(self, held: _Space) -> None:
        now_ms = 0 if self._clock_ms is None else self._clock_ms()
        while held.ends and held.ends[0][0] <= now_ms:
            end_ms, key = heappop(held.ends)
            if held.expires_ms.get(key) == end_ms:
                del held.expires_ms[key], held.values[key]


def _version(held: _Space) -> bytes | None:
    return None if held.meta is None else held.meta.version
