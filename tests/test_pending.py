"""Pending events: a cache over the store that never forgets what it has not written."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Label
from worker.pending import EARLY_MAX, Pending


def waiting(pending: Pending, ids: list[str]) -> None:
    n = len(ids)
    pending.add(
        ids, np.arange(n, dtype=np.int64), np.full(n, 0.5), np.full((n, 1), 0.7), np.ones((n, 2))
    )


def test_entries_survive_the_store() -> None:
    """What is taken for the store and loaded again is the same entry."""
    pending = Pending(10, 100)
    waiting(pending, ["a", "b"])
    pending.mark("b", 1, 1)
    again = Pending(10, 100)
    taken = pending.take_dirty()
    again.load([i for i, _ in taken], [v for _, v in taken])
    entry = again.waiting("a")
    assert entry is not None
    assert entry.x is not None
    assert (entry.time_ms, entry.score, entry.x.tolist()) == (0, 0.5, [1.0, 1.0])
    assert entry.raw.tolist() == [0.7]
    assert again.is_labelled("b")
    assert again.waiting("b") is None


def test_features_of_another_spec_are_not_taken_for_ours() -> None:
    """An event that was scored before the features changed waits on, without an x."""
    before = Pending(10, 100, "aaaaaaaaaaaaaaaa")
    waiting(before, ["a"])
    after = Pending(10, 100, "bbbbbbbbbbbbbbbb")
    after.load(["a"], [before.take_dirty()[0][1]])
    entry = after.waiting("a")
    assert entry is not None
    assert (entry.time_ms, entry.x) == (0, None)


def test_eviction_takes_clean_entries_only() -> None:
    """An entry that the store does not have is never dropped, whatever the bound."""
    pending = Pending(10, 1)
    waiting(pending, ["a", "b"])
    pending.take_dirty()
    waiting(pending, ["c", "d"])
    pending.evict()
    assert pending.missing(["a", "b", "c", "d"]) == ["a", "b"]


def test_a_loaded_value_does_not_replace_a_newer_one() -> None:
    """Loading is for what memory lacks."""
    pending = Pending(10, 10)
    pending.mark("a", 1, 1)
    pending.load(["a"], [None])
    assert pending.is_labelled("a")


def test_early_labels_are_bounded_and_counted() -> None:
    """The oldest early label goes when there are too many."""
    pending = Pending(10, 10)
    for i in range(EARLY_MAX + 1):
        pending.park(Label(str(i), 1, i))
    assert len(pending.early) == EARLY_MAX
    assert "0" not in pending.early
    assert pending.dropped_early == 1


def test_early_labels_are_forgotten_after_their_time() -> None:
    """A label whose event never comes does not stay for ever."""
    pending = Pending(10, 10)
    pending.park(Label("a", 1, 5))
    pending.forget_before(5)
    assert "a" in pending.early
    pending.forget_before(6)
    assert not pending.early
