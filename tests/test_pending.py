"""Pending events: a cache over the store that never forgets what it has not written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.test_waiting import LAYOUT, part_of
from worker.contracts.records import Label
from worker.contracts.settings import LabelSettings
from worker.errors import StateDamagedError
from worker.maturity import MaturityQueue
from worker.pending import EARLY_MAX, EVENTS, Pending, rules_of
from worker.waiting import UNKNOWN, Truth, no_truths


def pending_of(*, cached_max: int = 100) -> Pending:
    labels = LabelSettings.model_validate({"horizon": "10ms", "cached_max": cached_max})
    return Pending(rules_of(labels), LAYOUT)


def waiting(pending: Pending, ids: list[str], clock_ms: int = 0) -> None:
    part = part_of(ids)
    n = len(ids)
    number = pending.number + np.arange(n)
    pending.add(part, np.full(n, clock_ms), number, np.ones(n, np.bool_), no_truths(n))
    pending.advance(clock_ms, pending.number + n)


def know(pending: Pending, event_id: str, truth: Truth) -> None:
    pending.know(event_id, pending.value(event_id), truth)


def missing(pending: Pending, ids: list[str]) -> list[str]:
    return pending.missing(ids, 0, 0)


def test_entries_survive_the_store() -> None:
    """What is taken for the store and loaded again is the same."""
    pending = pending_of()
    waiting(pending, ["a", "b"])
    know(pending, "b", Truth(1, 2.0, 0.0))
    again = pending_of()
    ((kind, names, values),) = pending.take_dirty()
    again.load([f"{kind}:{name}" for name in names], values)
    assert again.waiting("a", 0, 2) == pending.waiting("a", 0, 2) is not None
    assert [again.codec.truth(again.value(i)) for i in "ab"] == [UNKNOWN, Truth(1, 2.0, 0.0)]
    waiting(again, ["b"])  # another event with its id
    assert again.codec.truth(again.value("b")) == UNKNOWN
    assert pending.take_dirty() == []


def test_eviction_takes_clean_entries_only() -> None:
    """An entry that the store does not have is never dropped, whatever the bound."""
    pending = pending_of(cached_max=1)
    waiting(pending, ["a", "b"])
    pending.take_dirty()
    waiting(pending, ["c", "d"])
    pending.evict()
    asked = missing(pending, ["a", "b", "c", "d"])
    assert asked == [f"{EVENTS}:a", f"{EVENTS}:b"]


def test_what_cannot_be_found_any_more_is_evicted() -> None:
    """Event time alone empties memory: an eighth beyond the horizon, and not before."""
    pending = pending_of()
    waiting(pending, ["a"], 0)
    know(pending, "a", Truth(1, 1.0, 1.0))
    pending.take_dirty()
    for clock_ms, gone in ((11, []), (12, [f"{EVENTS}:a"])):
        pending.advance(clock_ms, 1)
        pending.evict()
        assert missing(pending, ["a"]) == gone


def test_a_loaded_value_does_not_replace_a_newer_one() -> None:
    """Loading is for what memory lacks."""
    pending = pending_of()
    waiting(pending, ["a"])
    pending.load([f"{EVENTS}:a"], [None])
    assert pending.waiting("a", 0, 1) is not None


def test_early_labels_are_bounded_and_counted() -> None:
    """The oldest early label goes when there are too many."""
    pending = pending_of()
    parked = [pending.park(Label(str(i), 1, i), 0) for i in range(EARLY_MAX + 1)]
    assert parked == [(0, 0)] * EARLY_MAX + [(0, 1)]
    assert len(pending.early) == EARLY_MAX
    assert "0" not in pending.early


def test_the_state_of_a_shard_holds_early_labels_and_numbers() -> None:
    """Restored, it is the same; and it is small whatever waits."""
    pending = pending_of()
    waiting(pending, [f"e{i}" for i in range(50)], 7)
    pending.park(Label("x", 1, 5, 2.0, "desk"), 7)
    again = pending_of()
    again.restore(pending.to_state())
    assert (again.clock_ms, again.number, again.early) == (7, 50, pending.early)


def queue_of(count: int, leave: int = 0) -> tuple[MaturityQueue, dict[str, bytes | None]]:
    queue, store = MaturityQueue("q"), {}
    for i in range(count):
        queue.append(i, i, f"e{i}")
        if i % 100 == 0:
            store.update(zip(*queue.take_dirty(), strict=True))
    queue.forget(leave)
    store.update(zip(*queue.take_dirty(), strict=True))
    return queue, {key: value for key, value in store.items() if value is not None}


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1_500])
@pytest.mark.parametrize("leave", [0, 1, 512, 700])
def test_a_queue_is_restored_from_its_chunks(count: int, leave: int) -> None:
    """All that waits is there in order; chunks that were left behind are deleted."""
    queue, store = queue_of(count, min(count, leave))
    again = MaturityQueue("q", queue.ends)
    owed = again.owed()
    assert len(store) <= len(owed) + (count == min(count, leave))
    for chunk in [key.removeprefix("q:") for key in owed]:
        again.load(chunk, store[chunk])
    assert list(again) == list(queue)
    assert again.ends == queue.ends


def test_a_lost_chunk_is_refused() -> None:
    """Nobody can say which events wait: the space is rebuilt from the log."""
    queue, _ = queue_of(600)
    again = MaturityQueue("q", queue.ends)
    with pytest.raises(StateDamagedError, match="512 events"):
        again.load("0", None)


def test_sampling_takes_its_share_of_ids() -> None:
    """Of 100,000 ids in a row 10 % ± 0.5 % are taken, and the same ones at a higher rate."""
    hashes = np.arange(100_000, dtype=np.uint64) * np.uint64(2_654_435_761)
    rules = pending_of().rules
    tenth = replace(rules, negative_rate=0.1).samples(hashes)
    assert abs(tenth.mean() - 0.1) < 0.005
    assert (tenth <= replace(rules, negative_rate=0.5).samples(hashes)).all()
    assert rules.samples(hashes).all()
