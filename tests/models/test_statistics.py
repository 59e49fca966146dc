"""Running statistics of features, against numpy over the whole history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import StateLostError
from worker.models.reasons import FeatureStatistics

NOBODY = np.empty(0, np.int64)


def history(seed: int, n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) * [1.0, 1e6, 1e-6] + [0.0, 1e6, 5.0]


def test_a_flagged_event_sees_what_was_before_it() -> None:
    """Mean, deviation and count of each flagged event are numpy's over the rows before it."""
    X = history(1)
    flagged = np.array([0, 1, 2, 57, 58, 299])
    seen = FeatureStatistics(3).update(X, flagged)
    assert seen.count.tolist() == flagged.tolist()
    assert not seen.mean[0].any()
    assert not seen.std[:2].any()
    for k, i in enumerate(flagged.tolist()[1:], 1):
        np.testing.assert_allclose(seen.mean[k], X[:i].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(seen.std[k], X[:i].std(axis=0), rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=8), seed=st.integers(0, 3))
def test_any_cut_into_batches_gives_the_same_bits(cuts: list[int], seed: int) -> None:
    """State and snapshots do not depend on where batches end."""
    X, flagged = history(seed), np.array([3, 100, 101, 250])
    whole, parts = FeatureStatistics(3), FeatureStatistics(3)
    expected = whole.update(X, flagged)
    edges = [0, *sorted(cuts), len(X)]
    seen = []
    for i in range(len(edges) - 1):
        start, end = edges[i], edges[i + 1]
        here = flagged[(flagged >= start) & (flagged < end)] - start
        seen.append(parts.update(X[start:end], here))
    assert parts.to_bytes() == whole.to_bytes()
    assert np.concatenate([s.mean for s in seen]).tobytes() == expected.mean.tobytes()
    assert np.concatenate([s.std for s in seen]).tobytes() == expected.std.tobytes()
    assert np.concatenate([s.count for s in seen]).tolist() == expected.count.tolist()


def test_a_constant_has_no_spread() -> None:
    """No rounding error makes a deviation of a value that never changed."""
    statistics = FeatureStatistics(1)
    seen = statistics.update(np.full((5_000, 1), 0.1), np.array([4_999]))
    assert (seen.mean[0, 0], seen.std[0, 0]) == (0.1, 0.0)


def test_a_large_offset_costs_no_digits() -> None:
    """Values around 1e9 that differ by one keep their deviation (a sum of squares would not)."""
    X = 1e9 + np.arange(1_000).reshape(-1, 1) % 2
    seen = FeatureStatistics(1).update(X, np.array([999]))
    assert seen.std[0, 0] == pytest.approx(X[:999].std(), rel=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e300])
def test_a_bad_row_is_left_out(bad: float) -> None:
    """A row with one bad number changes nothing, and does not count."""
    X = history(2)
    hurt = np.insert(X, 40, [[1.0, bad, 1.0]], axis=0)
    clean, dirty = FeatureStatistics(3), FeatureStatistics(3)
    clean.update(X, NOBODY)
    dirty.update(hurt, NOBODY)
    assert dirty.to_bytes() == clean.to_bytes()


def test_the_bytes_go_on_where_they_were() -> None:
    """A state that was written and read gives the same snapshots from there on."""
    X = history(3)
    one = FeatureStatistics(3)
    one.update(X[:100], NOBODY)
    other = FeatureStatistics.from_bytes(one.to_bytes())
    assert other.feature_count == 3
    a, b = (s.update(X[100:], np.array([199])) for s in (one, other))
    assert a.mean.tobytes() == b.mean.tobytes()
    assert a.count.tolist() == b.count.tolist() == [299]


@pytest.mark.parametrize("damage", ["cut", "bit", "count", "magic", "empty", "longer"])
def test_damaged_bytes_are_refused(damage: str) -> None:
    """No damage is read as a state."""
    statistics = FeatureStatistics(3)
    statistics.update(history(4), NOBODY)
    data = bytearray(statistics.to_bytes())
    if damage == "bit":
        data[-1] ^= 1
    if damage == "count":
        data[10] ^= 1
    if damage == "magic":
        data[0] ^= 1
    cut = {"cut": -8, "empty": 0}.get(damage, len(data))
    with pytest.raises(StateLostError):
        FeatureStatistics.from_bytes(bytes(data[:cut]) + b"x" * (damage == "longer"))
