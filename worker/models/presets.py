"""Model presets: one factory each. A new one is a function and its entry in `PRESETS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any  # River's estimators have no common typed interface

from river import anomaly, compose, linear_model, optim, preprocessing

_OPTIMIZERS: dict[str, Callable[[float], Any]] = {
    "sgd": optim.SGD,
    "adagrad": optim.AdaGrad,
    "adam": optim.Adam,
}


def logistic(
    *,
    optimizer: str = "sgd",
    lr: float = 0.01,
    l2: float = 0.0,
    intercept_lr: float = 0.01,
    weight_positive: float = 1.0,
) -> Any:
    """Return `StandardScaler | LogisticRegression`: a supervised baseline that is hard to beat.

    Good for labels that arrive for both classes and features that act mostly on their own; the
    score is a probability. Learns from labelled examples only, in one pass. It has a compiled twin:
    about 0.2 µs to score and 1 to 4 µs to learn an example of 90 features, 56 bytes a feature.

    Parameters
    ----------
    optimizer
        ``sgd`` (River's default), ``adagrad`` or ``adam``. Measured on the demo's stream, average
        precision of its last two thirds: SGD 0.26, AdaGrad at 0.05 0.29, Adam at 0.01 0.09, whose
        steps do not shrink where a class is rare; at 0.001 it has 0.26.
    lr, intercept_lr
        Learning rates of weights and intercept, constant.
    l2
        Strength of the pull of weights towards zero.
    weight_positive
        Weight of a positive example, for rare classes. It raises the scores above probabilities.

    Examples
    --------
    >>> model = logistic(optimizer="sgd", lr=0.1)
    >>> for amount, y in [(1.0, False), (9.0, True), (2.0, False), (8.0, True)] * 50:
    ...     model.learn_one({"amount": amount}, y)
    >>> model.predict_proba_one({"amount": 9.0})[True] > 0.9
    True
    """
    if optimizer not in _OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(_OPTIMIZERS)}, not {optimizer!r}")
    return compose.Pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(
            optimizer=_OPTIMIZERS[optimizer](lr),
            loss=optim.losses.Log(weight_pos=weight_positive),
            l2=l2,
            intercept_lr=intercept_lr,
        ),
    )


def half_space_trees(
    *, n_trees: int = 10, height: int = 8, window_size: int = 250, seed: int = 0
) -> Any:
    """Return `MinMaxScaler | HalfSpaceTrees`: how sparse the space around an event was lately.

    Good where no labels come: it learns from every event and finds values that are rare in the
    last ``window_size`` events. Weak on anomalies in dense runs and on many irrelevant features.
    Scores lie in 0..1, higher is stranger; they are 0.0 until the first window is full. It has a
    compiled twin: about 1 µs to score and to learn with 10 trees of height 8; memory is 24 bytes a
    node, n_trees * 2 ** (height + 1) nodes.

    Parameters
    ----------
    n_trees, height
        Size of the forest.
    window_size
        Events of which the masses are counted before they serve.
    seed
        Of the random splits; the configuration's ``seed`` if not given.

    Examples
    --------
    >>> model = half_space_trees(n_trees=5, height=4, window_size=20, seed=1)
    >>> for amount in [0.0, 100.0, *[10.0 + i % 5 for i in range(58)]]:
    ...     model.learn_one({"amount": amount})
    >>> model.score_one({"amount": 80.0}) > model.score_one({"amount": 12.0})
    True
    """
    return compose.Pipeline(
        preprocessing.MinMaxScaler(),
        anomaly.HalfSpaceTrees(n_trees=n_trees, height=height, window_size=window_size, seed=seed),
    )


PRESETS: dict[str, Callable[..., Any]] = {
    "logistic": logistic,
    "half_space_trees": half_space_trees,
}
