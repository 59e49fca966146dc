"""Stores: a position-tagged cache of the state of each shard; the log stays the truth.

A *space* is the name of one shard's keys: group, state hash and partition. Implementations:
`redis`, `memory`; each is held to `tests/stores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from worker.errors import StateLostError


@dataclass(frozen=True, slots=True)
class Meta:
    """Where the fold in the store stands. ``version`` is random and new with every write.

    ``partitions`` is P, the number of spaces that belong together: readers find an entity by it.
    """

    version: bytes
    events_offset: int
    labels_offset: int
    journal_offset: int
    partitions: int = 1


class Writes(NamedTuple):
    """Keys of a flush that are kept equally long, and their values, in parallel.

    A value of None deletes the key; a ``ttl_ms`` of None keeps keys until they are deleted. Columns
    and not a tuple a key: a flush has tens of thousands of keys.

    >>> Writes.of("card:1", b"state")
    Writes(keys=['card:1'], values=[b'state'], ttl_ms=None)
    """

    keys: Sequence[str]
    values: Sequence[bytes | None]
    ttl_ms: int | None = None

    @classmethod
    def of(cls, key: str, value: bytes | None, ttl_ms: int | None = None) -> Writes:
        """Return the write of one key."""
        return cls([key], [value], ttl_ms)


class StateStore(Protocol):
    """State of shards by key. One thread may `flush` while another uses the rest, no more.

    Every method may raise `TransientError` (away, slow, read-only, out of memory): retry with a
    bound.
    """

    def meta(self, space: str) -> Meta | None:
        """Return where the fold of a space stands, or None where nothing is stored.

        Raises
        ------
        StateDamagedError
            The space is half dropped: drop it again.
        UnknownLayoutError
            Another version wrote it.
        """

    def load(
        self, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[Meta | None, list[bytes | None]]]:
        """Return meta and the values of keys of several spaces, whoever writes them.

        One round trip; what is of one space is of one moment. A value is None where the key is not
        there. Whose state has another version than it last saw has lost it.
        """

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        """Apply all writes and ``meta`` atomically if the space is still at ``version``.

        No key is in the writes twice.

        Repeating a flush that was applied already is harmless and succeeds.

        Raises
        ------
        StateLostError
            The space is at another version; nothing was written.
        """

    def drop(self, space: str, version: bytes | None = None) -> int:
        """Delete a whole space; return the number of keys. For repair, never in the loop.

        With a ``version``, only if the space is still at it, or half dropped. What a new owner
        writes meanwhile is not touched.

        Raises
        ------
        StateLostError
            The space is at another version; nothing was deleted.
        """

    def close(self) -> None:
        """Give back sockets. Idempotent."""


def lost(space: str) -> StateLostError:
    """Return the error of who finds a space at another version than it last saw."""
    return StateLostError(f"store {space}", "the version last seen", "another")
