"""The store in this process: what is its own."""

from __future__ import annotations

from tests.stores.reading import read
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore


def test_a_value_expires_by_the_clock_that_was_given() -> None:
    """One millisecond before its end a value is there, at its end it is not."""
    now_ms = [1_000]
    store = MemoryStore(lambda: now_ms[0])
    store.flush(
        "s", None, Meta(b"a", 0, 0, 0), [Writes.of("x:1", b"1", 500), Writes.of("x:2", b"2")]
    )
    now_ms[0] = 1_499
    assert read(store, "s", b"a", ["x:1", "x:2"]) == [b"1", b"2"]
    now_ms[0] = 1_500
    assert read(store, "s", b"a", ["x:1", "x:2"]) == [None, b"2"]


def test_a_later_write_without_an_end_stays() -> None:
    """Writing a key again forgets its former end."""
    now_ms = [0]
    store = MemoryStore(lambda: now_ms[0])
    store.flush("s", None, Meta(b"a", 0, 0, 0), [Writes.of("x:1", b"1", 10)])
    store.flush("s", b"a", Meta(b"b", 0, 0, 0), [Writes.of("x:1", b"2")])
    now_ms[0] = 10
    assert read(store, "s", b"b", ["x:1"]) == [b"2"]


def test_without_a_clock_nothing_expires() -> None:
    """A replay must not depend on how long it runs."""
    store = MemoryStore()
    store.flush("s", None, Meta(b"a", 0, 0, 0), [Writes.of("x:1", b"1", 1)])
    assert read(store, "s", b"a", ["x:1"]) == [b"1"]


def test_what_has_expired_is_freed_by_the_next_flush() -> None:
    """A replay's memory does not grow with its length: 100 keys written, two of them there."""
    now_ms = [0]
    store = MemoryStore(lambda: now_ms[0])
    version = None
    for i in range(100):
        now_ms[0] = 10 * i
        store.flush("s", version, Meta(b"%d" % i, 0, 0, 0), [Writes.of(f"x:{i}", b"1", 15)])
        version = b"%d" % i
    held = store._spaces["s"]
    assert list(held.values) == list(held.expires_ms) == ["x:98", "x:99"]
    assert len(held.ends) == 2
