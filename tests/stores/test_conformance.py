"""What every store promises, held by each implementation."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores.reading import read
from worker.errors import StateLostError
from worker.stores import Meta, StateStore, Writes

_FIRST = Meta(b"v1", 10, 4, 3)
_SECOND = Meta(b"v2", 20, 5, 6)


def test_an_empty_space_has_no_meta_and_no_values(store: StateStore, space: str) -> None:
    """A space that nobody wrote is read as empty under no version."""
    assert store.meta(space) is None
    assert read(store, space, None, ["card:1", "card:2"]) == [None, None]


def test_a_flush_is_read_back(store: StateStore, space: str) -> None:
    """Values come back in the order of the keys asked for, and meta as written."""
    store.flush(
        space, None, _FIRST, [Writes.of("card:1", b"one"), Writes.of("card:2", b"two", 60_000)]
    )
    assert read(store, space, b"v1", ["card:2", "card:3", "card:1", "card:2"]) == [
        b"two", None, b"one", b"two",
    ]  # fmt: skip
    assert store.meta(space) == _FIRST


def test_a_load_of_no_keys_still_checks_the_version(store: StateStore, space: str) -> None:
    """Asking for nothing tells whether the space is where one believes it."""
    store.flush(space, None, _FIRST, [])
    assert read(store, space, b"v1", []) == []
    with pytest.raises(StateLostError):
        read(store, space, b"v0", [])


def test_spaces_are_loaded_together_at_any_version(
    store: StateStore, space: str, open_store: Callable[[], StateStore]
) -> None:
    """Meta and values of each space in the order asked, also of a space that nobody wrote."""
    other = f"{space}-other"
    store.flush(space, None, _FIRST, [Writes.of("card:1", b"one"), Writes.of("card:2", b"two")])
    store.flush(other, None, _SECOND, [Writes.of("card:1", b"three")])
    try:
        asked = [(other, ["card:1"]), (space, ["card:2", "card:9", "card:1"]), (f"{space}-no", [])]
        expected = [(_SECOND, [b"three"]), (_FIRST, [b"two", None, b"one"]), (None, [])]
        assert open_store().load(asked) == expected
        assert store.load(asked[1:2]) == expected[1:2]
        assert store.load([]) == []
    finally:
        store.drop(other)


def test_a_value_of_none_deletes_and_an_absent_key_is_no_error(
    store: StateStore, space: str
) -> None:
    """Deleting works for keys that are there and for those that are not."""
    store.flush(space, None, _FIRST, [Writes.of("card:1", b"one"), Writes.of("card:2", b"two")])
    store.flush(space, b"v1", _SECOND, [Writes.of("card:1", None), Writes.of("card:9", None)])
    assert read(store, space, b"v2", ["card:1", "card:2", "card:9"]) == [None, b"two", None]


@pytest.mark.parametrize("version", [None, b"v0", b"v", b"v11", b""])
def test_another_version_is_lost_and_nothing_is_written(
    store: StateStore, space: str, version: bytes | None
) -> None:
    """Load and flush refuse every version but the one stored, prefixes included."""
    store.flush(space, None, _FIRST, [Writes.of("card:1", b"one")])
    with pytest.raises(StateLostError):
        read(store, space, version, ["card:1"])
    with pytest.raises(StateLostError):
        store.flush(
            space, version, _SECOND, [Writes.of("card:1", None), Writes.of("card:2", b"two")]
        )
    assert read(store, space, b"v1", ["card:1", "card:2"]) == [b"one", None]
    assert store.meta(space) == _FIRST


def test_a_version_where_nothing_is_stored_is_lost(store: StateStore, space: str) -> None:
    """A store that has forgotten everything is noticed on load and on flush."""
    with pytest.raises(StateLostError):
        read(store, space, b"v1", ["card:1"])
    with pytest.raises(StateLostError):
        store.flush(space, b"v1", _SECOND, [Writes.of("card:1", b"one")])
    assert store.meta(space) is None


def test_a_repeated_flush_succeeds_and_changes_nothing(store: StateStore, space: str) -> None:
    """A caller who does not know whether a flush arrived may send it again, first or later."""
    first = (space, None, _FIRST, [Writes.of("card:1", b"one")])
    store.flush(*first)
    store.flush(*first)
    second = (space, b"v1", _SECOND, [Writes.of("card:1", b"more"), Writes.of("card:2", b"two")])
    store.flush(*second)
    store.flush(*second)
    assert read(store, space, b"v2", ["card:1", "card:2"]) == [b"more", b"two"]
    assert store.meta(space) == _SECOND


def test_a_flush_repeated_after_another_writer_is_lost(
    open_store: Callable[[], StateStore], space: str
) -> None:
    """The second try of a flush must not undo what came after its first."""
    mine, other = open_store(), open_store()
    flush = (space, None, _FIRST, [Writes.of("card:1", b"mine")])
    mine.flush(*flush)
    other.flush(space, b"v1", _SECOND, [Writes.of("card:1", b"other")])
    with pytest.raises(StateLostError):
        mine.flush(*flush)
    assert read(other, space, b"v2", ["card:1"]) == [b"other"]


def test_the_same_version_with_other_positions_is_lost(store: StateStore, space: str) -> None:
    """Only the very same flush counts as repeated."""
    store.flush(space, None, _FIRST, [])
    with pytest.raises(StateLostError):
        store.flush(space, b"v0", Meta(b"v1", 11, 4, 3), [])


def test_of_concurrent_writers_exactly_one_wins_each_round(
    open_store: Callable[[], StateStore], space: str
) -> None:
    """Four writers at one version: one flush is applied whole, the others are told."""
    stores = [open_store() for _ in range(4)]
    version: bytes | None = None

    def attempt(writer: int) -> bytes | None:
        meta = Meta(os.urandom(16), writer, writer, writer)
        writes = [Writes.of(f"card:{i}", b"%d" % writer) for i in range(50)]
        try:
            stores[writer].flush(space, version, meta, writes)
        except StateLostError:
            return None
        return meta.version

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            results = list(pool.map(attempt, range(4)))
            winners = [i for i, result in enumerate(results) if result is not None]
            assert len(winners) == 1
            version = results[winners[0]]
            values = read(stores[0], space, version, [f"card:{i}" for i in range(50)])
            assert set(values) == {b"%d" % winners[0]}


_KEYS = st.sampled_from(["card:1", "card:é", "pend:a b", "card:*[x]{y}"])
_WRITES = st.lists(
    st.builds(
        Writes.of, _KEYS, st.none() | st.binary(max_size=40), st.none() | st.just(10**9)
    ),
    max_size=4, unique_by=lambda writes: writes.keys[0],
)  # fmt: skip
_STEPS = st.lists(st.tuples(st.integers(0, 2), st.booleans(), _WRITES), max_size=12)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=_STEPS)
def test_any_schedule_of_writers_equals_a_guarded_dict(
    open_store: Callable[[], StateStore], steps: list[tuple[int, bool, list[Writes]]]
) -> None:
    """Three writers that sometimes read the version first see what a plain dict predicts."""
    opened = open_store()
    name = f"cards.{os.urandom(8).hex()}.1"
    current: bytes | None = None
    known: list[bytes | None] = [None, None, None]
    values: dict[str, bytes] = {}
    for number, (writer, reads, writes) in enumerate(steps):
        if reads:
            meta = opened.meta(name)
            known[writer] = None if meta is None else meta.version
        new = Meta(b"%d" % number, number, 0, -1)
        if known[writer] != current:
            with pytest.raises(StateLostError):
                opened.flush(name, known[writer], new, writes)
            continue
        opened.flush(name, known[writer], new, writes)
        known[writer] = current = new.version
        for key, value in [(one.keys[0], one.values[0]) for one in writes]:
            values.pop(key, None)
            if value is not None:
                values[key] = value
    keys = ["card:1", "card:é", "pend:a b", "card:*[x]{y}"]
    assert read(opened, name, current, keys) == [values.get(key) for key in keys]
    assert opened.drop(name) == len(values) + (current is not None)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    version=st.binary(max_size=255),
    value=st.binary(max_size=300),
    offset=st.sampled_from([0, -1, 1, 2**31, 2**63 - 1]),
)
def test_any_bytes_survive(
    open_store: Callable[[], StateStore], version: bytes, value: bytes, offset: int
) -> None:
    """Zero bytes, line ends and anything else come back from values and versions unchanged."""
    opened = open_store()
    name = f"cards.{os.urandom(8).hex()}.2"
    meta = Meta(version, offset, 0, offset)
    opened.flush(name, None, meta, [Writes.of("card:1", value)])
    assert opened.meta(name) == meta
    assert read(opened, name, version, ["card:1"]) == [value]
    opened.drop(name)


def test_ten_megabytes_are_one_flush(store: StateStore, space: str) -> None:
    """A full dirty set of 20,000 keys of 512 bytes goes in one piece and comes back."""
    keys = [f"card:{i}" for i in range(20_000)]
    values = [i.to_bytes(4, "big") * 128 for i in range(20_000)]
    store.flush(space, None, _FIRST, [Writes(keys, values, 86_400_000)])
    assert read(store, space, b"v1", keys) == values


def test_drop_deletes_one_space_only_and_counts(
    open_store: Callable[[], StateStore], space: str
) -> None:
    """Neighbours stay, even where the name reads as a pattern that matches them."""
    opened = open_store()
    pattern, neighbour = f"{space}[ab]*", f"{space}ab"
    opened.flush(pattern, None, _FIRST, [Writes.of(f"card:{i}", b"x") for i in range(2_500)])
    opened.flush(neighbour, None, _FIRST, [Writes.of("card:1", b"y")])
    assert opened.drop(pattern) == 2_501
    assert opened.drop(pattern) == 0
    assert opened.meta(pattern) is None
    assert read(opened, neighbour, b"v1", ["card:1"]) == [b"y"]
    assert opened.drop(neighbour) == 2


def test_spaces_do_not_share_versions(store: StateStore, space: str) -> None:
    """A flush of one shard leaves the other shards where they were."""
    store.flush(space, None, _FIRST, [Writes.of("card:1", b"x")])
    other = f"{space}0"
    assert store.meta(other) is None
    assert read(store, other, None, ["card:1"]) == [None]


def test_close_twice_is_harmless(store: StateStore) -> None:
    """Closing is idempotent."""
    store.close()
    store.close()


def test_a_space_is_dropped_only_at_the_version_that_is_named(
    store: StateStore, space: str
) -> None:
    """Who was overtaken by another owner deletes nothing of the other's."""
    store.flush(space, None, Meta(b"v1", 1, 1, 1), [Writes.of("card:1", b"one")])
    with pytest.raises(StateLostError):
        store.drop(space, b"v0")
    assert read(store, space, b"v1", ["card:1"]) == [b"one"]
    assert store.drop(space, b"v1") == 2
    assert store.meta(space) is None
