"""Model presets: one factory each. A new one is a function and its entry in `PRESETS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any  # River's estimators have no common typed interface

from river import anomaly, compose, linear_model, optim, preprocessing

from worker.models.bins import LearnedBins
from worker.models.causes import Causes

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


def causes(
    *,
    heads: Mapping[str, Sequence[str]],
    bins: int = 32,
    warm_up: int = 1000,
    lr: float = 0.05,
    intercept_lr: float = 0.01,
    intercept_init: float = -4.0,
    weight_positive: float = 1.0,
) -> Any:
    """Return `Causes`: one head per entity that can be to blame, joined by noisy-or.

    Good where a bad event has one of several causes, such as a stolen card or a tampered terminal:
    each head learns from the events that it explains, and is not taught what another one did. The
    heads' probabilities are scores of their own, called ``MODEL.HEAD``, which label features may
    use. It has a compiled twin: about 1 µs to score and to learn two heads of 15 features each,
    16 bytes a head and bin.

    Parameters
    ----------
    heads
        Features of each head, such as ``{card: [amount, ...], terminal: [risk_7d, ...]}``.
    bins, warm_up
        Bins of a feature, made from the first ``warm_up`` labelled examples.
    lr, intercept_lr, intercept_init
        AdaGrad's rate of the weights; constant rate and start of each head's intercept. The start
        is low, as most events have no cause.
    weight_positive
        Weight of a positive example, for rare classes. It raises the scores above probabilities.

    Examples
    --------
    >>> model = causes(heads={"card": ["amount"], "terminal": ["risk"]}, bins=4, warm_up=20, lr=0.5)
    >>> for i in range(2000):
    ...     x = {"amount": float(i % 10), "risk": float(i % 7)}
    ...     model.learn_one(x, x["amount"] == 9.0 or x["risk"] == 6.0)
    >>> blamed = model.predict_heads_one({"amount": 9.0, "risk": 1.0})
    >>> blamed["card"] > 0.8 > 0.2 > blamed["terminal"]
    True
    """
    return Causes(
        heads=heads,
        bins=bins,
        warm_up=warm_up,
        lr=lr,
        intercept_lr=intercept_lr,
        intercept_init=intercept_init,
        weight_positive=weight_positive,
    )


def half_space_trees(
    *, n_trees: int = 10, height: int = 8, window_size: int = 250, seed: int = 0
) -> Any:
    """Return `MinMaxScaler | HalfSpaceTrees`: how sparse the space around an event was lately.

    Good where no labels come: it learns from every event and finds values that are rare in the
    last ``window_size`` events. Weak on anomalies in dense runs and on many irrelevant features.
    Scores lie in 0..1, higher is stranger; they are 0.0 until the first window is full. It has a
    compiled twin: about 1 µs to score and to learn with 10 trees of height 8; memory is 16 bytes a
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


def binned_logistic(
    *,
    bins: int = 32,
    warm_up: int = 1000,
    crosses: Sequence[Sequence[str]] = (),
    lr: float = 0.05,
    intercept_lr: float = 0.01,
    weight_positive: float = 1.0,
) -> Any:
    """Return `LearnedBins | LogisticRegression(AdaGrad)`: any curve of each feature, and pairs.

    Good for labels of both classes and features that act by thresholds or not monotonously;
    ``crosses`` add pairs that act together. Each bin has its own weight and its own rate, so rare
    bins still learn. The first ``warm_up`` examples make the bins and teach the intercept only. It
    has a compiled twin: about 1 µs to score and 2 µs to learn an example of 90 features, 24 bytes
    a bin.

    Parameters
    ----------
    bins
        Bins of a feature at quantiles; both tails are halved three times more.
    warm_up
        Labelled examples from which the bins are made.
    crosses
        Pairs of features, such as ``[[amount, hour]]``: (bins + 6) ** 2 weights each.
    lr, intercept_lr
        AdaGrad's rate of the weights, constant rate of the intercept.
    weight_positive
        Weight of a positive example, for rare classes. It raises the scores above probabilities.

    Examples
    --------
    >>> model = binned_logistic(bins=4, warm_up=20, lr=0.5)
    >>> for i in range(400):  # neither small nor large amounts are bad
    ...     model.learn_one({"amount": float(i % 9)}, i % 9 == 4)
    >>> model.predict_proba_one({"amount": 4.0})[True] > 0.4
    True
    >>> model.predict_proba_one({"amount": 8.0})[True] < 0.1
    True
    """
    return compose.Pipeline(
        LearnedBins(bins=bins, warm_up=warm_up, crosses=crosses),
        linear_model.LogisticRegression(
            optimizer=optim.AdaGrad(lr),
            loss=optim.losses.Log(weight_pos=weight_positive),
            intercept_lr=intercept_lr,
        ),
    )


PRESETS: dict[str, Callable[..., Any]] = {
    "logistic": logistic,
    "binned_logistic": binned_logistic,
    "causes": causes,
    "half_space_trees": half_space_trees,
}
