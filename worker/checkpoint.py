"""The store's side of one shard: what is known of it, and the one guarded write per flush."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

from worker.contracts.needs import Needs
from worker.contracts.settings import Settings
from worker.errors import StateDamagedError, StoreAwayError
from worker.faults import fault
from worker.features.spec import FeatureSpec
from worker.pending import EVENTS, QUEUE
from worker.shard import SHARD
from worker.stores import Meta, StateStore, Writes, lost

_CRC_RESIDUE = 0x2144DF1C  # CRC-32 of any bytes followed by their own CRC-32, low byte first
_OUTAGE_MS = 7 * 86_400_000
_AWAIT_S = 5.0
_CRC = struct.Struct("<I")

T = TypeVar("T")
Values = list[list[bytes | None]]


def space_of(group: str, spec: FeatureSpec, partition: int) -> str:
    """Return the name of a shard's keys: what keeps another state has other keys."""
    return f"{group}.{spec.state_hash[:16]}.{partition}"


def updates_space_of(group: str, spec: FeatureSpec, partition: int) -> str:
    """Return the name of the keys of secondary entities, by partition of `entity-updates`."""
    return f"{group}.{spec.state_hash[:16]}.updates-{partition}"


def ttls_ms_of(settings: Settings, spec: FeatureSpec) -> tuple[int, int]:
    """Return how long the store keeps entities and pending events: twice the need, and for as long
    as no worker may run.
    """
    horizon_ms = 0 if settings.labels is None else settings.labels.horizon
    return 2 * spec.forget_ms + _OUTAGE_MS, 2 * horizon_ms + _OUTAGE_MS


class Folded(Protocol):
    """A fold of logs up to its positions: a shard, or the secondary entities of one partition."""

    events_next: int
    labels_next: int

    def take_writes(self) -> Sequence[tuple[str, list[str], Sequence[bytes | None]]]:
        """Return kind, names and values of all that has changed, and call it clean.

        A value of None is to be deleted.
        """

    def evict(self) -> None:
        """Bring memory back within bounds; the store has everything that was taken."""


class Checkpoint:
    """Position and pending write of one shard's state, one of ``partitions``.

    A flush that failed is repeated unchanged until it is known to be applied; what becomes dirty
    meanwhile waits for the next one. So a write whose answer was lost is never taken for another's.
    """

    def __init__(
        self,
        store: StateStore,
        space: str,
        meta: Meta | None,
        entity_ttl_ms: int,
        pending_ttl_ms: int,
        partitions: int = 1,
    ) -> None:
        self._store = store
        self._space = space
        self._version = None if meta is None else meta.version
        self._unsettled: tuple[Meta, list[Writes]] | None = None
        self._running: Future[None] | None = None
        self._ttl_ms = {
            SHARD: None,
            QUEUE: None,
            EVENTS: pending_ttl_ms,
        }
        self._entity_ttl_ms = entity_ttl_ms
        self._partitions = partitions

    @property
    def is_settled(self) -> bool:
        """Return whether no flush waits for its answer."""
        running = self._running
        if running is not None and running.done() and running.exception() is None:
            self._settle()
        return self._unsettled is None

    @property
    def is_new(self) -> bool:
        """Return whether nothing was ever written, as far as this worker knows: its first flush is
        refused where somebody else has.
        """
        return self._version is None and self._unsettled is None

    def load(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys at the version this worker last saw; see `StateStore.load`.

        Raises
        ------
        StateLostError
            The space is at another version: somebody else wrote, or writes were lost.
        StateDamagedError
            A value is not as it was written; the space was dropped. So it is by `guarding`.
        """
        return self.load_all([(self, keys)])[0]

    @staticmethod
    def load_all(asked: Sequence[tuple[Checkpoint, Sequence[str]]]) -> Values:
        """Return the values of keys of several, in one round trip; see `load`."""
        for one, _ in asked:
            one._settle()
        try:
            found = asked[0][0]._store.load([(one._space, keys) for one, keys in asked])
        except StateDamagedError:
            if len(asked) > 1:  # it does not say which
                return [one.load(keys) for one, keys in asked]
            with asked[0][0].guarding():
                raise
        pairs = zip(asked, found, strict=True)
        return [one._taken(keys, *answer) for (one, keys), answer in pairs]

    def _taken(
        self, keys: Sequence[str], meta: Meta | None, values: Sequence[bytes | None]
    ) -> list[bytes | None]:
        if (None if meta is None else meta.version) != self._version:
            raise lost(self._space)
        with self.guarding():
            return [self._opened(k, v) for k, v in zip(keys, values, strict=True)]

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Drop the space when what it holds turns out to be damaged: acquiring it again rebuilds
        it from the log.
        """
        try:
            yield
        except StateDamagedError:
            version, self._version = self._version, None
            if version is not None:
                self._store.drop(self._space, version)
            raise

    def flush(self, state: Folded, journal_next: int, background: Executor | None = None) -> int:
        """Write everything dirty with its positions; return the number of keys written.

        The state must be committed up to its positions: what is written here is never ahead
        of the log. From the ``background`` it may still be on its way when this returns: what came
        of it is learned, and raised, before the store is asked anything else; and memory is brought
        back within bounds by `evict`, which waits for no answer.
        """
        self._settle()
        writes = self._sealed(state.take_writes())
        positions = (state.events_next, state.labels_next, journal_next)
        meta = Meta(os.urandom(16), *positions, self._partitions)
        self._unsettled = (meta, writes)
        if background is None:
            self._settle()
            self.evict(state)
        else:
            self._running = background.submit(self._write, meta, writes)
        return sum(len(group.keys) for group in writes)

    def evict(self, state: Folded) -> None:
        """Bring the state's memory back within bounds, if the store has all that was taken.

        Not between what a batch loads and its processing.
        """
        if self.is_settled:
            state.evict()

    def _sealed(
        self, taken: Sequence[tuple[str, list[str], Sequence[bytes | None]]]
    ) -> list[Writes]:
        """Add a checksum to what has none of its own, as blobs of entities do."""
        writes = []
        for kind, names, values in taken:
            keys = [f"{kind}:{name}" for name in names]
            ttl_ms = self._ttl_ms.get(kind, self._entity_ttl_ms)
            if kind in self._ttl_ms:
                values = [v if v is None else v + _CRC.pack(zlib.crc32(v)) for v in values]
            writes.append(Writes(keys, values, ttl_ms))
        return writes

    def _opened(self, key: str, value: bytes | None) -> bytes | None:
        if value is None or key.partition(":")[0] not in self._ttl_ms:
            return value
        if zlib.crc32(value) != _CRC_RESIDUE:
            raise StateDamagedError(
                f"store {self._space}", "bytes as they were written", "a wrong checksum",
                "the worker rebuilds it from the log",
            )  # fmt: skip
        return value[: -_CRC.size]

    def _settle(self) -> None:
        """Wait until what was taken is known to be in the store, writing it again if need be."""
        if self._unsettled is None:
            return
        meta, writes = self._unsettled
        running, self._running = self._running, None
        if running is None:
            self._write(meta, writes)
        else:
            self._await(running)
        self._version = meta.version
        self._unsettled = None

    def _await(self, running: Future[None]) -> None:
        """Wait for a flush, but not for all that a store which hangs has before it."""
        wait([running], _AWAIT_S)
        if not running.done():
            self._running = running
            raise StoreAwayError(f"flush {self._space}", "an answer", "none yet")
        running.result()

    def _write(self, meta: Meta, writes: Sequence[Writes]) -> None:
        fault("flush_started")
        self._store.flush(self._space, self._version, meta, writes)
        fault("flushed")


def together(
    parts: Sequence[tuple[Checkpoint, Needs[T]]], insist: Callable[[Callable[[], Values]], Values]
) -> list[T]:
    """Run parts to their ends and return what they made; each round of their needs is one trip.

    ``insist`` asks until there is an answer, or raises.

    Raises
    ------
    StateLostError
        A space is at another version or damaged. No part is of use then.
    """
    made: dict[int, T] = {}

    def step(i: int, values: list[bytes | None] | None) -> list[str] | None:
        checkpoint, needs = parts[i]
        with checkpoint.guarding():
            try:
                return next(needs) if values is None else needs.send(values)
            except StopIteration as end:
                made[i] = end.value
                return None

    asked = {i: step(i, None) for i in range(len(parts))}
    while asked := {i: keys for i, keys in asked.items() if keys is not None}:
        pairs = [(parts[i][0], keys) for i, keys in asked.items()]
        values = insist(partial(Checkpoint.load_all, pairs))
        asked = {i: step(i, part) for i, part in zip(asked, values, strict=True)}
    return [made[i] for i in range(len(parts))]
