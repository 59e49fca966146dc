"""A share of the negatives stands for all of them: the same on every worker, with the same odds."""

from __future__ import annotations

import numpy as np
import pytest

from worker.arrow import Examples
from worker.contracts.records import unserved
from worker.contracts.settings import ModelSettings
from worker.errors import ConfigError
from worker.models.advance import advance
from worker.models.catalogue import build_model_set
from worker.models.sampling import draws_of
from worker.models.versioned import ModelSet

N = 20_000


def stream() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 2))
    return X, (X[:, 0] + rng.normal(size=N) > 3.0).astype(np.int64)


def build(**words: object) -> ModelSet:
    return build_model_set({"m": ModelSettings(**words)}, ("a", "b"), seed=0)


def run(models: ModelSet, cuts: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Each label comes right after its event; return raw and calibrated scores."""
    X, y = stream()
    parts = []
    for start, stop in zip((0, *cuts), (*cuts, N), strict=True):
        n = stop - start
        ids = [f"e{i}" for i in range(start, stop)]
        examples = Examples(ids, X[start:stop], y[start:stop], np.ones(n),
                            np.full((n, 1), np.nan), np.arange(1, n + 1), np.arange(n),
                            unserved(n, 1))  # fmt: skip
        parts.append(advance(models, X[start:stop], examples, np.arange(n)))
    raw, calibrated = (np.concatenate(column)[:, 0] for column in zip(*parts, strict=True))
    return raw, calibrated


def test_what_is_learned_is_what_a_plain_loop_over_the_drawn_events_learns() -> None:
    """All positives, and negatives by their ids with weight 1 / rate."""
    raw, _ = run(build(preset="logistic", negative_rate=0.1))
    X, y = stream()
    kept = (y == 1) | (draws_of([f"e{i}" for i in range(N)]) < 0.1)
    assert 0.11 < kept.mean() < 0.16
    plain = build(preset="logistic")
    weight = np.where(y == 0, 10.0, 1.0)[kept]
    before = np.flatnonzero(kept) + 1
    expected = plain.score_learn(X, X[kept], y[kept].astype(np.int8), weight, before)
    assert raw.tolist() == expected[:, 0].tolist()


def test_batches_do_not_matter() -> None:
    """Neither in scores nor in state."""
    whole, parts = (build(preset="logistic", negative_rate=0.2) for _ in range(2))
    assert run(parts, (7, 9_000, 9_001))[1].tobytes() == run(whole)[1].tobytes()
    assert parts.state_hash() == whole.state_hash()


@pytest.mark.parametrize("words", [{"preset": "logistic"}, {"river": "naive_bayes.GaussianNB"}])
def test_probabilities_stay_those_of_all_events(words: dict[str, str]) -> None:
    """With and without weights in the estimator: on average as without sampling."""
    raw, calibrated = run(build(**words, negative_rate=0.1))
    of_all, expected = run(build(**words))
    assert calibrated[5_000:].mean() == pytest.approx(expected[5_000:].mean(), rel=0.25)
    if "river" in words:  # it takes no weights: the correction is the calibrator's
        assert raw[5_000:].mean() > 3.0 * of_all[5_000:].mean()


def test_an_anomaly_detector_cannot_be_told() -> None:
    """It learns no labels."""
    with pytest.raises(ConfigError) as caught:
        build(preset="half_space_trees", negative_rate=0.5)
    assert [p.path for p in caught.value.problems] == [("models", "m", "negative_rate")]
