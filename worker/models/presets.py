"""Model presets: one factory each. A new one is a function and its entry in `PRESETS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import (
    Annotated,
    Any,  # River's estimators have no common typed interface
    Literal,
)

from pydantic import Field
from river import compose, forest, linear_model, optim, preprocessing

from worker.models.bins import LearnedBins
from worker.models.blend import Blend
from worker.models.causes import Causes
from worker.models.checking import AboveZero, Count, Share, ZeroOrMore
from worker.models.paths import Builder, Path
from worker.models.unsupervised import half_space_trees, mahalanobis, series

_OPTIMIZERS: dict[str, Callable[[float], Any]] = {
    "sgd": optim.SGD,
    "adagrad": optim.AdaGrad,
    "adam": optim.Adam,
}

WarmUp = Annotated[int, Field(ge=8, le=1_000_000)]
Pair = Annotated[Sequence[str], Field(min_length=2, max_length=2)]
Features = Annotated[Sequence[str], Field(min_length=1)]
Named = Annotated[Mapping[str, Mapping[str, Any] | None], Field(min_length=1, max_length=1)]


def logistic(
    *,
    optimizer: Literal["sgd", "adagrad", "adam"] = "sgd",
    lr: AboveZero = 0.01,
    l2: ZeroOrMore = 0.0,
    intercept_lr: ZeroOrMore = 0.01,
    weight_positive: AboveZero = 1.0,
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
    return compose.Pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(
            optimizer=_OPTIMIZERS[optimizer](lr),
            loss=optim.losses.Log(weight_pos=weight_positive),
            l2=l2,
            intercept_lr=intercept_lr,
        ),
    )


def binned_logistic(
    *,
    bins: Annotated[int, Field(ge=2, le=256)] = 32,
    warm_up: WarmUp = 1000,
    crosses: Annotated[
        Sequence[Pair], Field(description="pairs of features, such as [[amount, hour]]")
    ] = (),
    lr: AboveZero = 0.05,
    intercept_lr: ZeroOrMore = 0.01,
    weight_positive: AboveZero = 1.0,
) -> Any:
    """Return `LearnedBins | LogisticRegression(AdaGrad)`: any curve of each feature, and pairs.

    Good for labels of both classes and features that act by thresholds or not monotonously;
    ``crosses`` add pairs that act together. Each bin has its own weight and its own rate, so rare
    bins still learn. The first ``warm_up`` examples make the bins and teach the intercept only. It
    has a compiled twin: about 4 µs to score and 5 µs to learn an example of 90 features, 24 bytes
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


def causes(
    *,
    heads: Annotated[
        Mapping[str, Features],
        Field(min_length=1, description="a mapping of heads to lists of features, one or more"),
    ],
    bins: Annotated[int, Field(ge=4, le=256)] = 32,
    warm_up: WarmUp = 1000,
    lr: AboveZero = 0.2,
    intercept_lr: ZeroOrMore = 0.01,
    intercept_init: float = -4.0,
    weight_positive: AboveZero = 1.0,
) -> Any:
    """Return `Causes`: one head per entity that can be to blame, joined by noisy-or.

    Good where a bad event has one of several causes, such as a stolen card or a tampered terminal:
    each head learns from the events that it explains, and is not taught what another one did. The
    heads' probabilities are scores of their own, called ``MODEL.HEAD``, which label features may
    use. Bins grow with what comes: their edges are made anew whenever twice as many examples were
    learned, half of them for the positive ones. Label features weighted by what the other head did
    not explain (`1 - raw:MODEL.HEAD`) help it most. It has a compiled twin: about 1.5 µs to score
    and to learn two heads of 15 features each, 16 bytes a head and bin, 33 kB a feature for the
    edges.

    Parameters
    ----------
    heads
        Features of each head, such as ``{card: [amount, ...], terminal: [risk_7d, ...]}``.
    bins, warm_up
        Bins of a feature, about; and the labelled examples before there are any.
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


def adaptive_forest(
    *,
    n_trees: Count = 10,
    max_features: Annotated[
        Literal["sqrt", "log2"] | Count | Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="sqrt, log2, a whole number, a share above 0, or null for all"),
    ] = "sqrt",
    grace_period: Count = 50,
    seed: int = 0,
) -> Any:
    """Return `ARFClassifier`: an ensemble of trees that are replaced where their error drifts.

    Good for labels of both classes and features that act together in ways nobody named; the score
    is the trees' mean vote. Costs about 2 ms an event with 10 trees and 90 features, and memory
    that grows with what the trees learn.

    Parameters
    ----------
    n_trees
        Size of the ensemble.
    max_features
        Features that a split may choose from: a whole number, a share, ``sqrt`` or ``log2`` of how
        many there are, or all (None).
    grace_period
        Examples that a leaf sees between two attempts to split.
    seed
        Of the resampling; the configuration's ``seed`` if not given.

    Examples
    --------
    >>> model = adaptive_forest(n_trees=5, seed=1)
    >>> for i in range(1000):
    ...     model.learn_one({"amount": float(i % 9)}, 2 < i % 9 < 6)
    >>> model.predict_proba_one({"amount": 4.0})[True] > 0.8
    True
    """
    return forest.ARFClassifier(
        n_models=n_trees,
        max_features=max_features,  # type: ignore[arg-type]  # a share and None serve too
        grace_period=grace_period,
        seed=seed,
    )


def blend(
    *,
    models: Annotated[
        Sequence[str | Named],
        Field(min_length=2, description="two or more, each a name alone or as {name: params}"),
    ],
    rate: AboveZero = 0.5,
    share: Share = 0.001,
    seed: int = 0,
) -> Any:
    """Return `Blend`: several classifiers as one, with weights that are learned online.

    Good where it is not known which model suits, or where that changes: the score is the weighted
    mean of the members' probabilities, and weights follow their log loss. Costs what its members
    cost as River runs them: members have no twins here.

    Parameters
    ----------
    models
        Names of presets or paths of River's classifiers, each alone or as ``{name: params}``.
    rate, share
        How fast weights follow the loss, and how much of them is dealt out evenly at each label.
    seed
        Of the members that take one; the configuration's ``seed`` if not given.

    Examples
    --------
    >>> model = blend(models=["naive_bayes.GaussianNB", {"logistic": {"lr": 0.1}}])
    >>> for i in range(400):
    ...     model.learn_one({"amount": float(i % 9)}, i % 9 > 5)
    >>> model.predict_proba_one({"amount": 8.0})[True] > 0.9
    True
    """
    builder = Builder(seed)
    members = [_member(one, builder, ("models", i)) for i, one in enumerate(models)]
    builder.refuse()
    return Blend(members, rate=rate, share=share)


def _member(one: str | Named, builder: Builder, path: Path) -> Any | None:
    """Return one member of a blend, or None after noting problems."""
    params: Mapping[str, Any] | None
    name, params = (one, {}) if isinstance(one, str) else next(iter(one.items()))
    if name not in PRESETS or (not isinstance(one, str) and len(one) > 1):
        return builder.pipeline(one, {}, path)
    here = path if isinstance(one, str) else (*path, name)
    return builder.preset(PRESETS[name], name, params or {}, here, here)


PRESETS: dict[str, Callable[..., Any]] = {
    "logistic": logistic,
    "binned_logistic": binned_logistic,
    "adaptive_forest": adaptive_forest,
    "blend": blend,
    "causes": causes,
    "half_space_trees": half_space_trees,
    "mahalanobis": mahalanobis,
    "series": series,
}
