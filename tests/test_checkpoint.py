"""Flushes from the background: never lost, never doubled, and nothing is asked past them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.checkpoint import Checkpoint
from worker.errors import StateLostError, TransientError
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore


class SlowStore(MemoryStore):
    """A memory store whose flushes wait for a gate, and fail while ``failing`` counts down."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.failing = 0
        self.flushes = 0

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        assert self.gate.wait(10)
        self.flushes += 1
        if self.failing:
            self.failing -= 1
            raise TransientError("store", "an answer", "none")
        super().flush(space, version, meta, writes)


class Counter:
    """A state of one key that counts what was added to it."""

    def __init__(self) -> None:
        self.events_next = self.labels_next = 0
        self.evicted = 0

    def take_writes(self) -> list[tuple[str, list[str], list[bytes | None]]]:
        return [("card", ["1"], [b"%d" % self.events_next])]

    def evict(self) -> None:
        self.evicted += 1


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Return the one thread that flushes."""
    with ThreadPoolExecutor(1) as made:
        yield made


def checkpoint(store: MemoryStore) -> Checkpoint:
    return Checkpoint(store, "s", store.meta("s"), 10**9, 10**9)


def test_a_flush_in_the_background_is_not_waited_for(background: ThreadPoolExecutor) -> None:
    """The worker goes on while the gate is shut; a load waits, and finds what was written."""
    store, state = SlowStore(), Counter()
    one = checkpoint(store)
    state.events_next = 7
    assert one.flush(state, 3, background) == 1
    assert not one.is_settled
    assert store.flushes == 0
    store.gate.set()
    assert one.load(["card:1"]) == [b"7"]
    assert one.is_settled
    meta = store.meta("s")
    assert meta is not None and (meta.events_offset, meta.journal_offset) == (7, 3)


def test_memory_is_freed_only_when_the_store_has_it(background: ThreadPoolExecutor) -> None:
    """Evicting earlier would load an older state again."""
    store, state = SlowStore(), Counter()
    one = checkpoint(store)
    one.flush(state, 0, background)
    one.evict(state)
    assert state.evicted == 0
    store.gate.set()
    one.load([])
    assert state.evicted == 0  # a batch may be under way
    one.evict(state)
    assert state.evicted == 1
    one.flush(state, 0)
    assert state.evicted == 2


def test_a_flush_that_failed_is_repeated_before_anything_else(
    background: ThreadPoolExecutor,
) -> None:
    """The error comes out where the store is asked next; then the same write goes again."""
    store, state = SlowStore(), Counter()
    one = checkpoint(store)
    store.gate.set()
    store.failing = 2
    state.events_next = 1
    one.flush(state, 0, background)
    for _ in range(2):
        with pytest.raises(TransientError):
            one.load(["card:1"])
    state.events_next = 2
    assert one.load(["card:1"]) == [b"1"]
    one.flush(state, 0)
    assert one.load(["card:1"]) == [b"2"]
    assert store.flushes == 4


def test_a_store_that_another_worker_wrote_is_noticed_late_but_surely(
    background: ThreadPoolExecutor,
) -> None:
    """Its flush changed the version: ours is refused, and the next call says so."""
    store, state = SlowStore(), Counter()
    one = checkpoint(store)
    MemoryStore.flush(store, "s", None, Meta(b"other", 9, 9, 9), [])
    store.gate.set()
    one.flush(state, 0, background)
    with pytest.raises(StateLostError):
        one.load(["card:1"])
    meta = store.meta("s")
    assert meta is not None and meta.version == b"other"


def test_a_background_flush_that_came_through_counts_as_settled(
    background: ThreadPoolExecutor,
) -> None:
    """Nobody needs to ask the store for it: an idle worker does not flush again and again."""
    store, state = SlowStore(), Counter()
    one = checkpoint(store)
    one.flush(state, 0, background)
    store.gate.set()
    background.submit(int).result()
    assert one.is_settled
    assert store.flushes == 1
