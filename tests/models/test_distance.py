"""The robust distance equals plain linear algebra, forgets, and is not moved by outliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.models.batch import Batch
from worker.models.distance import RobustDistance
from worker.models.twins import twin_of

NAMES = ("m", "b", "z")


def stream(seed: int, n: int) -> np.ndarray:
    """Correlated columns of very different sizes."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=n)
    X = rng.normal(size=(n, 3))
    X[:, 1] = 3.0 * common + X[:, 1]
    X[:, 2] = -common + 0.3 * X[:, 2]
    return X * [1e6, 1.0, 1e-6] + [5e6, 0.0, 1.0]


def run(model: Any, X: np.ndarray) -> np.ndarray:
    n = len(X)
    y = np.full(n, -1, np.int8)
    return model.score_learn(Batch(NAMES, X, X, y, np.ones(n), np.arange(1, n + 1)))


def oracle(X: np.ndarray, window: int, warm_up: int) -> np.ndarray:
    """Return the scores by numpy's solver, from the definition; the factor lags 32 examples."""
    first = np.sort(X[:warm_up], axis=0)
    middle = first[75 * warm_up // 100] - first[25 * warm_up // 100]
    U = (X - first[warm_up // 2]) / (middle / 1.35)
    mean, C, S, count, scores = np.zeros(3), np.eye(3), np.eye(3) * 1.001, warm_up, []

    def squared(u: np.ndarray) -> float:
        return float((u - mean) @ np.linalg.solve(S, u - mean))

    for i in [*range(warm_up), *range(warm_up, len(X))]:
        if i >= warm_up:
            scores.append(np.sqrt(squared(U[i]) / 3))
        distance = squared(U[i])
        most = 3 + 3 * np.sqrt(6)
        d = (U[i] - mean) * (1.0 if distance <= most else np.sqrt(most / distance))
        count += 1
        rate = 1 / min(count, window)
        mean = mean + rate * d
        C = (1 - rate) * (C + rate * np.outer(d, d))
        if count % 32 == 0:
            S = C + 0.001 * np.eye(3)
    return np.concatenate([np.zeros(warm_up), scores])


@pytest.mark.parametrize(("window", "warm_up"), [(300, 50), (10_000, 17)])
def test_scores_equal_plain_linear_algebra(window: int, warm_up: int) -> None:
    """Median, winsorised exponentially weighted covariance, solve: the definition, step by step."""
    X = stream(1, 2_000)
    X[::90] *= 50.0
    twin = twin_of(RobustDistance(window, warm_up), NAMES)
    np.testing.assert_allclose(run(twin, X), oracle(X, window, warm_up), rtol=1e-8)


def test_the_twin_equals_the_plain_form_and_goes_on_from_it() -> None:
    """Same scores and arrays, bit for bit; plain → twin → plain in mid-stream changes nothing."""
    X = stream(2, 400)
    plain, twin = RobustDistance(warm_up=30), twin_of(RobustDistance(warm_up=30), NAMES)
    expected = []
    for i, row in enumerate(X.tolist()):
        x = dict(zip(NAMES, row, strict=True))
        expected.append(plain.score_one(x))
        plain.learn_one(x)
        if i in (20, 200):
            plain = twin_of(plain, NAMES).to_river()
    assert run(twin, X).tolist() == expected
    again = twin.to_river()
    assert all(again.arrays[k].tobytes() == plain.arrays[k].tobytes() for k in plain.arrays)


def test_a_broken_bond_is_found_though_each_value_is_usual() -> None:
    """Two features that move together and once do not: the distance is far out, theirs alone are
    not.
    """
    twin = twin_of(RobustDistance(), NAMES)
    run(twin, stream(3, 3_000))
    odd = np.array([[5e6, 3.0, 1.0 + 1e-6]])  # column b high, and z not low
    assert run(twin, odd)[0] > 2.0
    assert run(twin, np.array([[5e6, 3.0, 1.0 - 1e-6]]))[0] < 1.0


def test_outliers_barely_change_what_is_usual() -> None:
    """With one example in twenty 1,000 spreads away they still score far above all others."""
    X = stream(4, 4_000)
    X[10::20] = X[10::20] * 1_000.0
    scores = run(twin_of(RobustDistance(), NAMES), X)[2_000:]
    is_outlier = np.arange(2_000, 4_000) % 20 == 10
    assert scores[is_outlier].min() > 3.0 * scores[~is_outlier].max()
    assert 0.5 < np.median(scores[~is_outlier]) < 1.5


def test_a_level_that_moved_becomes_usual() -> None:
    """After some windows at a new level, 20 spreads away, scores are as before."""
    X = stream(5, 6_000)
    X[2_000:, 0] += 20e6
    scores = run(twin_of(RobustDistance(window=500), NAMES), X)
    assert scores[2_000:2_010].min() > 5.0
    assert np.median(scores[5_000:]) < 1.3


def test_a_constant_and_doubled_feature_do_no_harm() -> None:
    """No spread and no rank: the scores stay finite, and another value of the constant is far."""
    X = stream(6, 2_000)
    X[:, 0], X[:, 2] = 7.25, X[:, 1]
    twin = twin_of(RobustDistance(), NAMES)
    assert np.isfinite(run(twin, X)).all()
    assert run(twin, np.array([[9.25, 0.0, 0.0]]))[0] > 5.0
    assert np.isfinite(run(twin, np.array([[1e30, -1e30, 1e30], [0.0, 0.0, 0.0]]))).all()


@pytest.mark.parametrize("words", [{"warm_up": 9}, {"window": 50}])
def test_what_makes_no_sense_is_refused(words: dict[str, int]) -> None:
    """A warm-up that is too short, or longer than the window."""
    with pytest.raises(ValueError, match="warm_up"):
        RobustDistance(**words)
