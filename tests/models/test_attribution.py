"""What features did to a score: exact for linear models, the model's own scores for the rest."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from worker.contracts.settings import ModelSettings
from worker.models.attribution import Attribution, Explaining
from worker.models.catalogue import build_model_set
from worker.models.reasons import FeatureStatistics, reasons_for
from worker.models.sampling import draws_of
from worker.models.versioned import ModelSet

FEATURES = 6
NAMES = tuple(f"f{i}" for i in range(FEATURES))
DECLARED: dict[str, dict[str, Any]] = {
    "linear": {"preset": "logistic"},
    "linear of a share of the negatives": {"preset": "logistic", "negative_rate": 0.4},
    "forest": {"preset": "half_space_trees", "params": {"n_trees": 25}},
    "tree": {"river": ["preprocessing.StandardScaler", {"tree.HoeffdingTreeClassifier": {
        "grace_period": 50}}]},
    "binned": {"preset": "binned_logistic", "params": {
        "bins": 8, "warm_up": 500, "lr": 0.3, "crosses": [["f0", "f1"], ["f1", "f4"]]}},
    "forest without a scaler": {"river": ["preprocessing.StandardScaler",
                                          {"anomaly.HalfSpaceTrees": {"n_trees": 25, "seed": 1}}]},
    "tree of shares": {"river": ["preprocessing.StandardScaler", {"tree.HoeffdingTreeClassifier": {
        "grace_period": 50, "tau": 0.3, "leaf_prediction": "mc"}}]},
    "trees": {"river": {"forest.ARFClassifier": {
        "n_models": 3, "seed": 1, "leaf_prediction": "mc"}}},
    "bayes": {"river": "naive_bayes.GaussianNB"},
    "causes": {"preset": "causes", "params": {"bins": 16, "warm_up": 200, "heads": {
        "card": ["f0", "f1", "f2", "f4"], "terminal": ["f1", "f3", "f5"]}}},
    "blend": {"preset": "blend", "params": {"models": ["logistic", "naive_bayes.GaussianNB"]}},
    "mahalanobis": {"preset": "mahalanobis"},
    "series": {"preset": "series"},
    "sampled forest": {"preset": "half_space_trees", "params": {"scaling": "sampled"}},
    "adaptive forest": {"preset": "adaptive_forest", "params": {"n_trees": 2}},
}  # fmt: skip
ONE_IS_ENOUGH = ("causes", "adaptive forest")
IDS = [f"e{i}" for i in range(3_000)]
NOTHING = (
    np.empty((0, FEATURES)), np.empty(0, np.int8), np.empty(0), np.empty(0, np.int64)
)  # fmt: skip


class Words:
    """A feature as reasons see it."""

    entity = field = window_ms = typical = typical_count = None
    delay_ms = 0
    aggregation = "field"

    def __init__(self, name: str) -> None:
        self.name = self.words = name


def world(
    name: str, n: int = 3_000, **settings: Any
) -> tuple[ModelSet, np.ndarray, np.ndarray, np.ndarray]:
    """Return a taught model, its events, their labels, and the sign of each feature's effect.

    Frauds are of all features together; for models of separate causes one feature is enough.
    """
    rng = np.random.default_rng(4)
    X = rng.normal(size=(n, FEATURES))
    effect = np.array([1.0, -1.2, 0.8, -0.9, 1.1, -0.7])
    together = X @ effect + rng.normal(size=n) > 1
    y = (X * np.sign(effect)).max(axis=1) > 1.8 if name in ONE_IS_ENOUGH else together
    y = y.astype(np.int8)
    models = build_model_set({"m": ModelSettings(**DECLARED[name], **settings)}, NAMES, seed=1)
    labels = y if models.learns_from_labels else np.full(n, -1, np.int8)
    before = np.zeros(n, np.int64)
    models.score_learn(X[:0], X, labels, np.ones(n), before, draws_of(IDS[:n]))
    return models, X, labels, effect


PLANTED = (
    "linear", "binned", "forest", "tree", "causes", "blend", "mahalanobis", "series",
    "sampled forest", "adaptive forest",
)  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_anomaly_is_among_the_first_three_reasons(name: str) -> None:
    """Of the events with one strange feature that score above 95 % of all, 95 % name it; of each
    feature there are some.
    """
    models, X, _, effect = world(name)
    rng, statistics = np.random.default_rng(9), FeatureStatistics(FEATURES)
    statistics.update(X, np.empty(0, np.int64))
    high, found = np.quantile(models.score(X)[:, 0], 0.95), 0
    planted = np.zeros(FEATURES, np.int64)
    for turn in range(360):
        column = turn % FEATURES
        x = rng.normal(size=(1, FEATURES))
        x[0, column] = 8.0 * np.sign(effect[column])
        seen = statistics.update(x, np.zeros(1, np.int64))
        if models.score(x)[0, 0] <= high:
            continue
        made = Attribution(models, is_inline=False)
        did = made.of(x, models.score(x), np.zeros(1, np.int64), seen.mean, *NOTHING)[0]
        reasons = reasons_for(
            [Words(n) for n in NAMES], x[0], seen.mean[0], seen.std[0], 3_000, 3, did, made.measure
        )
        planted[column] += 1
        found += NAMES[column] in [reason.feature for reason in reasons]
    assert planted.min() >= 1, planted
    assert found / planted.sum() >= 0.95


@pytest.mark.parametrize("name", ["linear", "binned"])
@pytest.mark.parametrize("compiled", [True, False])
def test_contributions_are_the_shapley_values_of_the_log_odds(name: str, compiled: bool) -> None:
    """Of all orders in which usual values become those of the event, the mean; they sum to the log
    odds above a usual event's.
    """
    models, X, _, _ = world(name, 1_500, compiled=compiled)
    usual = X[:50].mean(axis=0)

    def log_odds(rows: np.ndarray) -> np.ndarray:
        scores = models.score(rows)[:, 0]
        return np.log(scores / (1.0 - scores))

    orders = list(itertools.permutations(range(FEATURES)))[::24]
    orders += [order[::-1] for order in orders]
    for x in X[100:104]:
        did = Attribution(models, is_inline=False).of(
            x[None], models.score(x[None]), np.zeros(1, np.int64), usual[None], *NOTHING
        )[0]
        steps = np.array([np.where(np.isin(range(FEATURES), o[:k]), x, usual)
                          for o in orders for k in range(FEATURES + 1)])  # fmt: skip
        gained = np.diff(log_odds(steps).reshape(len(orders), -1), axis=1)
        shapley = np.zeros(FEATURES)
        for order, gain in zip(orders, gained, strict=True):
            shapley[list(order)] += gain / len(orders)
        assert np.abs(did).max() > 0.1
        assert np.allclose(did, shapley, atol=1e-9)
        assert np.isclose(did.sum(), log_odds(x[None])[0] - log_odds(usual[None])[0])
    assert Attribution(models, is_inline=False).measure == "log_odds"


@pytest.mark.parametrize("name", ["forest", "forest without a scaler"])
def test_contributions_of_half_space_trees_sum_to_the_score(name: str) -> None:
    """With that of a usual event, for the twin and for River, which say the same."""
    twin, X, _, _ = world(name, 1_100)
    river, _, _, _ = world(name, 1_100, compiled=False)
    usual = twin.score(np.zeros((1, FEATURES)))[0, 0]
    for x in np.concatenate([X[:20], 6.0 * X[20:40]]):
        did = [explained(models, x) for models in (twin, river)]
        assert np.allclose(did[0], did[1], rtol=1e-12)
        assert np.isclose(did[0].sum() + usual, twin.score(x[None])[0, 0], rtol=1e-12)


def explained(models: ModelSet, x: np.ndarray) -> np.ndarray:
    made, row = Attribution(models, is_inline=False), np.zeros(1, np.int64)
    return made.of(x[None], models.score(x[None]), row, np.zeros((1, FEATURES)), *NOTHING)[0]


@pytest.mark.parametrize("name", ["tree of shares", "trees"])
def test_contributions_of_trees_sum_to_the_score(name: str) -> None:
    """Where leaves tell their share of positives, with the share of positives of all."""
    models, X, _, _ = world(name)
    did = np.array([explained(models, x) for x in X[:60]])
    rest = models.score(X[:60])[:, 0] - did.sum(axis=1)
    assert np.abs(did).max() > 0.1
    assert np.allclose(rest, rest[0], rtol=1e-9)


@pytest.mark.parametrize("name", DECLARED)
def test_inline_contributions_are_of_the_model_that_scored(name: str) -> None:
    """Learning goes on within a batch; each alert is explained by the model before its own event,
    as a run that stops there would.
    """
    models, X, labels, _ = world(name, 600)
    batch, y = X[:80] * 1.5, labels[:80].copy()
    rows, before = np.array([3, 40, 79]), np.arange(1, 81)
    typical = np.zeros((3, FEATURES))
    examples = (batch, y, np.ones(80), before)
    draws = draws_of(IDS[:80])
    made = Attribution(models, is_inline=True)
    raw = models.score_learn(batch, *examples, draws)
    did = made.of(batch, raw, rows, typical, *examples, draws)
    assert did.any(axis=1).all()
    after = models.state_hash()
    again, _, _, _ = world(name, 600)
    for k, row in enumerate(rows):
        stop = 0 if k == 0 else int(rows[k - 1])
        told = batch[stop:row], y[stop:row], np.ones(row - stop), np.zeros(row - stop, np.int64)
        again.score_learn(batch[:0], *told, draws[stop:row])
        assert again.score(batch[row : row + 1])[0, 0] == raw[row, 0]
        plain = Attribution(again, is_inline=False)
        expected = plain.of(batch, raw, rows[k : k + 1], typical[:1], *NOTHING)
        assert np.array_equal(did[k], expected[0])
    assert models.state_hash() == after


@pytest.mark.parametrize("name", DECLARED)
def test_explaining_changes_nothing(name: str) -> None:
    """Attribution asks the model and leaves its state as it was."""
    models, X, _, _ = world(name, 600)
    before = models.state_hash()
    Attribution(models, is_inline=False).of(X, models.score(X), np.arange(3), X[:3] * 0, *NOTHING)
    assert models.state_hash() == before


def test_a_score_of_another_model_is_not_explained() -> None:
    """Where the model does not give the served score again, it says nothing."""
    models, X, _, _ = world("linear", 600)
    other = models.score(X) * 0.999
    did = Attribution(models, is_inline=False).of(X, other, np.arange(3), X[:3] * 0, *NOTHING)
    assert not did.any()


def test_features_that_a_model_does_not_read_did_nothing() -> None:
    """A model of two features leaves the others at zero."""
    declared = ModelSettings(preset="logistic", features=("f4", "f1"))
    models = build_model_set({"m": declared}, NAMES, seed=0)
    X = np.random.default_rng(0).normal(size=(300, FEATURES))
    models.learn(X, (X[:, 1] > 0).astype(np.int8), np.ones(300))
    made = Attribution(models, is_inline=False)
    did = made.of(X, models.score(X), np.arange(1), X[:1] * 0, *NOTHING)[0]
    assert np.flatnonzero(did).tolist() == [1, 4]
    assert isinstance(models["m"], Explaining)
