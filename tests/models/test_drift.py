"""Monitors: silent on a calm stream, and they name what moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.models.drift import DETECTORS, DetectorMonitor, FeatureMonitor, Monitor
from worker.models.plain import pack, unpack

NAMES = ("a", "b", "c")
SLOWER = {"kswin": 6}  # a Kolmogorov-Smirnov test at every example, about 1 ms


def rows(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Return normal rows; ``shift`` moves feature b."""
    X = np.random.default_rng(seed).normal(size=(count, 3))
    X[:, 1] += shift
    return X


def scores(count: int, seed: int, mean: float) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, 0.05, count), 0, 1)


def made(name: str) -> Monitor:
    if name == "features":
        return FeatureMonitor(NAMES, 0.25, 500)
    # KSWIN tests at every example: with its default level it has a false alarm a thousand.
    return DetectorMonitor("score", "fraud", name, {"alpha": 1e-6} if name == "kswin" else {})


def feed(monitor: Monitor, count: int, seed: int, moved: bool) -> list[str]:
    """Feed a calm stretch, or one in which feature b and the scores have moved."""
    X = rows(count, seed, 2.0 if moved else 0.0)
    y = np.full(count, -1)
    return monitor.feed(X, scores(count, seed, 0.8 if moved else 0.2), y)


@pytest.mark.parametrize("name", ["features", *DETECTORS])
def test_a_monitor_is_silent_until_the_stream_moves(name: str) -> None:
    """No false alarm in calm examples, an alarm among those that are not."""
    monitor, scale = made(name), SLOWER.get(name, 1)
    assert feed(monitor, 4_000 // scale, 0, moved=False) == []
    assert feed(monitor, 2_000 // scale, 1, moved=True) != []


def test_a_shift_that_stays_is_said_once() -> None:
    """The window in which it was found is the reference of those that follow, back again too."""
    monitor = FeatureMonitor(NAMES, 0.25, 500)
    unknown, none = np.full(500, np.nan), np.full(500, -1)
    shifts = (0.0, 0.0, 2.0, 2.0, 2.0, 0.0, 0.0)
    found = [len(monitor.feed(rows(500, i, s), unknown, none)) for i, s in enumerate(shifts)]
    assert found == [0, 0, 1, 0, 0, 1, 0]


def test_the_features_that_moved_are_named_the_worst_first() -> None:
    """With their PSI; those that did not move are not."""
    monitor = FeatureMonitor(NAMES, 0.25, 500)
    X = rows(500, 1, 1.0)
    X[:, 2] += 3.0
    unknown, none = np.full(500, np.nan), np.full(500, -1)
    monitor.feed(rows(500, 0), unknown, none)
    (words,) = monitor.feed(X, unknown, none)
    assert words.startswith("features drifted: c (PSI ")
    assert ", b (PSI " in words
    assert " a (PSI" not in words


def test_psi_equals_its_formula_on_a_known_shift() -> None:
    """Half of ten equal bins empty, the other half doubled: written out by hand."""
    monitor = FeatureMonitor(("a",), 0.0001, 1_000)
    calm = np.arange(1_000.0).reshape(-1, 1)
    upper = 500.0 + np.repeat(np.arange(500.0), 2).reshape(-1, 1)
    nothing = np.full(1_000, np.nan), np.full(1_000, -1)
    monitor.feed(calm, *nothing)
    (words,) = monitor.feed(upper, *nothing)
    by_hand = 5 * (0.2 - 0.1) * np.log(2) + 5 * (1e-4 - 0.1) * np.log(1e-4 / 0.1)
    assert float(words.split("PSI ")[1][:-1]) == pytest.approx(by_hand, abs=0.05)


@pytest.mark.parametrize("common", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("share", [0.85, 0.95, 1.0])
@pytest.mark.parametrize("other", [-1.0, 1.0])
def test_a_feature_that_has_mostly_one_value_drifts_when_it_has_another(
    common: float, share: float, other: float
) -> None:
    """Flags, capped counts and constants, whether the value was the smallest or the largest."""
    monitor = FeatureMonitor(("a",), 0.25, 500)
    nothing = np.full(500, np.nan), np.full(500, -1)
    calm = np.where(np.arange(500) < share * 500, common, common + other).reshape(-1, 1)
    assert monitor.feed(calm, *nothing) == monitor.feed(calm[::-1], *nothing) == []
    (words,) = monitor.feed(np.full((500, 1), common + other), *nothing)
    p, q = np.maximum([share, 1 - share], 1e-4), np.array([1e-4, 1.0])
    by_hand = ((p - q) * np.log(p / q)).sum()
    assert float(words.split("PSI ")[1][:-1]) == pytest.approx(by_hand, abs=0.01)


def test_errors_are_fed_only_where_the_truth_is_known() -> None:
    """Scores without a label say nothing of errors."""
    monitor = DetectorMonitor("error", "fraud", "adwin", {})
    known, p = np.ones(3_000, np.int64), np.full(3_000, 0.9)
    assert monitor.feed(np.empty((3_000, 0)), p, known) == []
    assert monitor.feed(np.empty((3_000, 0)), 1 - p, -known) == []
    assert monitor.feed(np.empty((3_000, 0)), 1 - p, known) != []


@pytest.mark.parametrize("name", ["features", *DETECTORS])
@pytest.mark.parametrize("cut", [1, 499, 500, 611])
def test_any_split_and_a_restart_in_between_change_nothing(name: str, cut: int) -> None:
    """What is found, and the state, are a fold of the examples alone."""
    half = 2_000 // SLOWER.get(name, 1)
    X = np.concatenate([rows(half, 0), rows(half, 1, 2.0)])
    p = np.concatenate([scores(half, 0, 0.2), scores(half, 1, 0.8)])
    y = np.full(2 * half, -1)
    whole, first, second = made(name), made(name), made(name)
    found: list[Any] = first.feed(X[:cut], p[:cut], y[:cut])
    second.restore(unpack(pack(first.to_state())))
    found += second.feed(X[cut:], p[cut:], y[cut:])
    assert found == whole.feed(X, p, y)
    assert pack(second.to_state()) == pack(whole.to_state())
