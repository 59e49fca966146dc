"""Every kind of estimator gives the scores and the state of a plain River loop, float for float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import (
    anomaly,
    compose,
    ensemble,
    linear_model,
    naive_bayes,
    optim,
    preprocessing,
    tree,
)

from worker.contracts.settings import ModelSettings
from worker.models.canonical import state_hash
from worker.models.catalogue import build_model_set

NAMES = ("m", "b", "z", "a")
Declared = tuple[dict[str, Any], Callable[[], Any]]

# What the configuration says, beside the same estimator written in River.
CLASSIFIERS: dict[str, Declared] = {
    "logistic with sgd": (
        {"preset": "logistic", "params": {"optimizer": "sgd", "lr": 0.05}},
        lambda: (
            preprocessing.StandardScaler()
            | linear_model.LogisticRegression(optim.SGD(0.05), loss=optim.losses.Log())
        ),
    ),
    "logistic preset": (
        {"preset": "logistic"},
        lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01)),
    ),
    "pipeline with adagrad and l2": (
        {
            "river": (
                "preprocessing.StandardScaler",
                {
                    "linear_model.LogisticRegression": {
                        "optimizer": {"optim.AdaGrad": {"lr": 0.3}},
                        "l2": 0.01,
                    }
                },
            )
        },
        lambda: (
            preprocessing.StandardScaler()
            | linear_model.LogisticRegression(optim.AdaGrad(0.3), l2=0.01)
        ),
    ),
    "logistic with l1, which has no twin": (
        {
            "river": (
                "preprocessing.StandardScaler",
                {"linear_model.LogisticRegression": {"l1": 0.01}},
            )
        },
        lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(l1=0.01),
    ),
    "hoeffding tree": (
        {"river": "tree.HoeffdingTreeClassifier", "params": {"grace_period": 20}},
        lambda: tree.HoeffdingTreeClassifier(grace_period=20),
    ),
    "naive bayes": ({"river": "naive_bayes.GaussianNB"}, naive_bayes.GaussianNB),
    "bagging of trees, with a seed": (
        {
            "river": {
                "ensemble.BaggingClassifier": {
                    "model": {"tree.HoeffdingTreeClassifier": {"grace_period": 20}},
                    "n_models": 3,
                }
            }
        },
        lambda: ensemble.BaggingClassifier(
            tree.HoeffdingTreeClassifier(grace_period=20), n_models=3, seed=11
        ),
    ),
}
DETECTORS: dict[str, Declared] = {
    "half-space trees": (
        {"preset": "half_space_trees", "params": {"window_size": 50, "scaling": "range"}},
        lambda: preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(window_size=50, seed=11),
    ),
    "one-class svm": (
        {"river": ("preprocessing.StandardScaler", {"anomaly.OneClassSVM": {"nu": 0.2}})},
        lambda: preprocessing.StandardScaler() | anomaly.OneClassSVM(nu=0.2),
    ),
}


def stream(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, len(NAMES))) * [1.0, 100.0, 1e-3, 5.0]
    X[:, 3] = np.round(np.abs(X[:, 3]))
    y = (X[:, 0] + 0.01 * X[:, 1] + rng.normal(size=n) > 1.0).astype(np.int8)
    return X, y


def plain_loop(model: Any, X: np.ndarray, y: np.ndarray, delay: int, *, labels: bool) -> list:
    """Score each event, then learn the one `delay` events back, as a user of River writes it."""
    scores = []
    for i in range(len(X)):
        x = {name: float(v) for name, v in zip(NAMES, X[i], strict=True)}
        scores.append(model.predict_proba_one(x).get(True, 0.0) if labels else model.score_one(x))
        if i >= delay:
            old = {name: float(v) for name, v in zip(NAMES, X[i - delay], strict=True)}
            if labels:
                model.learn_one(old, bool(y[i - delay]))
            else:
                model.learn_one(old)
    return [float(s) for s in scores]


def ours(words: dict[str, Any], X: np.ndarray, y: np.ndarray, delay: int, **more: Any) -> tuple:
    models = build_model_set({"m": ModelSettings(**words, **more)}, NAMES, seed=11)
    n = len(X) - delay
    taught = y[:n] if models.learns_from_labels else np.full(n, -1, np.int8)
    scores = models.score_learn(X, X[:n], taught, np.ones(n), np.arange(delay + 1, len(X) + 1))
    return models["m"], scores[:, 0]


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("delay", [0, 37])
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_a_classifier_equals_the_plain_loop(case: str, delay: int, is_compiled: bool) -> None:
    """Scores and learned state are those of River, with twin or without, labels late or not."""
    words, make = CLASSIFIERS[case]
    X, y = stream(1)
    river = make()
    expected = plain_loop(river, X, y, delay, labels=True)
    model, scores = ours(words, X, y, delay, compiled=is_compiled)
    assert scores.tolist() == expected
    assert state_hash(model.to_river()) == state_hash(river)
    assert len(set(expected)) > 20


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("delay", [0, 37])
@pytest.mark.parametrize("case", DETECTORS)
def test_a_detector_equals_the_plain_loop(case: str, delay: int, is_compiled: bool) -> None:
    """A detector learns every event, and its scores and state are those of River."""
    words, make = DETECTORS[case]
    X, y = stream(2)
    river = make()
    expected = plain_loop(river, X, y, delay, labels=False)
    model, scores = ours(words, X, y, delay, compiled=is_compiled)
    assert scores.tolist() == expected
    assert state_hash(model.to_river()) == state_hash(river)
    assert len(set(expected)) > 20


def test_a_weight_reaches_the_last_step_of_a_pipeline() -> None:
    """Learning with weight 3 equals River's learn_one(x, y, w=3), twin or not."""
    X, y = stream(3, 100)
    river = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1))
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        river.learn_one(dict(zip(NAMES, row, strict=True)), bool(label), w=3.0)
    for is_compiled in (True, False):
        settings = ModelSettings(
            preset="logistic", params={"optimizer": "sgd", "lr": 0.1}, compiled=is_compiled
        )
        models = build_model_set({"m": settings}, NAMES, seed=0)
        models.learn(X, y, np.full(len(X), 3.0))
        assert state_hash(models["m"].to_river()) == state_hash(river)
        assert models.total_counts.unweighted_examples == 0


def test_a_pipeline_of_river_is_a_pipeline() -> None:
    """Steps of a list become a River pipeline in their order."""
    settings = ModelSettings(river=("preprocessing.StandardScaler", "naive_bayes.GaussianNB"))
    model = build_model_set({"m": settings}, NAMES, seed=0)["m"].to_river()
    assert isinstance(model, compose.Pipeline)
    assert list(model.steps) == ["StandardScaler", "GaussianNB"]
