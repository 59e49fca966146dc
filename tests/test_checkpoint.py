"""Flushes from the background: never lost, never doubled, and nothing is asked past them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.checkpoint import Checkpoint, together
from worker.contracts.needs import Needs
from worker.errors import StateDamagedError, StateLostError, StoreAwayError, TransientError
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


class AskedStore(MemoryStore):
    """A memory store that notes which spaces each question is about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def load(
        self, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[Meta | None, list[bytes | None]]]:
        self.asked.append([space for space, _ in asked])
        return super().load(asked)


def filled(*spaces: str) -> tuple[AskedStore, list[Checkpoint]]:
    """Return a store with card 1 and 2 in each space, and who reads them."""
    store = AskedStore()
    for space in spaces:
        cards = [Writes.of(f"card:{i}", f"{space}{i}".encode()) for i in (1, 2)]
        store.flush(space, None, Meta(space.encode(), 0, 0, 0), cards)
    return store, [Checkpoint(store, s, store.meta(s), 1, 1) for s in spaces]


def taking(*keys: str) -> Needs[list[bytes | None]]:
    """Ask for one key after the other."""
    found: list[bytes | None] = []
    for key in keys:
        found += yield [key]
    return found


def test_what_several_need_is_one_question_a_round() -> None:
    """Who needs less has its answer, in its place; who needs nothing is not asked for."""
    store, (a, b, c) = filled("a", "b", "c")
    parts = [(a, taking("card:1", "card:2")), (b, taking()), (c, taking("card:2"))]
    assert together(parts, lambda ask: ask()) == [[b"a1", b"a2"], [], [b"c2"]]
    assert store.asked == [["a", "c"], ["a"]]


def test_who_finds_damage_loses_its_own_space_only() -> None:
    """The others' are as they were; what was made of their answers is of no use."""
    store, (a, b) = filled("a", "b")

    def refusing() -> Needs[list[bytes | None]]:
        yield ["card:1"]
        raise StateDamagedError("card", "a blob", "another")

    with pytest.raises(StateDamagedError):
        together([(a, taking("card:1", "card:2")), (b, refusing())], lambda ask: ask())
    assert store.meta("b") is None
    assert a.load(["card:1"]) == [b"a1"]


def test_a_flush_that_hangs_is_waited_for_in_turns(
    background: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits can say in between that it lives; the flush counts once when it is through."""
    monkeypatch.setattr("worker.checkpoint._AWAIT_S", 0.01)
    store, state = SlowStore(), Counter()
    one = checkpoint(store)
    one.flush(state, 0, background)
    for _ in range(3):
        with pytest.raises(StoreAwayError):
            one.load(["card:1"])
    store.gate.set()
    background.submit(int).result()
    assert one.load(["card:1"]) == [b"0"]
    assert store.flushes == 1
