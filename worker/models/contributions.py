"""What features did to a score: differences of scores, and the ways of events through trees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar  # River's estimators have no common typed interface

import numpy as np
from river import anomaly, compose, forest, linear_model, optim, tree

from worker.contracts.records import Float64
from worker.models.reasons import Measure
from worker.models.river_model import RiverModel, last_step

Score = Callable[[Float64], Float64]
"""A number for each row of X (n, f)."""

Contributions = Callable[[Float64, Float64], Float64]
"""What each feature of ``x`` (f,) did, beside the ``usual`` values (f,)."""

N = TypeVar("N")
Split = Callable[[N, int], tuple[int, int, N, N]]


def differences(score: Score, x: Float64, usual: Float64) -> Float64:
    """Return the mean of what the score of ``x`` loses if one feature alone had its usual value,
    and what that of a usual event gains if this feature alone had the value of ``x``.

    Where the score is a sum over features and pairs of features, these are the Shapley values: they
    sum to what the score of ``x`` is above that of the usual event.

    *Source*: the first and last term of the Shapley value, Strumbelj and Kononenko 2014, doi
    10.1007/s10115-013-0679-x.

    >>> differences(lambda X: X[:, 0] * X[:, 1] + X[:, 0], np.array([3.0, 2.0]), np.zeros(2))
    array([6., 3.])
    """
    n = len(x)
    each = np.arange(n)
    # The event, with one feature as usual, the usual, with one feature of the event.
    X = np.concatenate([np.tile(x, (n + 1, 1)), np.tile(usual, (n + 1, 1))])
    X[1 + each, each], X[2 + n + each, each] = usual, x
    scores = score(X)
    lost, gained = scores[0] - scores[1 : n + 1], scores[n + 2 :] - scores[n + 1]
    return (lost + gained) / 2.0  # type: ignore[no-any-return]  # numpy's Any


def of_half_spaces(
    roots: Iterable[N], split: Split[N], height: int, window_size: int, n: int
) -> Float64:
    """Return the Shapley values of ``n`` features in the score of half-space trees.

    They sum to what the score of the event is above that of the usual one. Every way down a tree
    that some mixture of the two goes is walked once; what lies at its end is for the features in
    which it goes with the event, against those in which it goes with the usual one. Less than a
    tenth of a window's mass ends a way, so there are few.

    Parameters
    ----------
    split
        Gives for a node and its depth the mass, the feature, and the children that the event and
        the usual one go to; of a leaf the mass alone counts.

    *Source*: interventional TreeSHAP for one reference, Lundberg et al. 2020, doi
    10.1038/s42256-019-0138-9.
    """
    did = np.zeros(n)

    def walk(node: N, depth: int, sum_: int, here: tuple[int, ...], there: tuple[int, ...]) -> None:
        mass, feature, of_event, of_usual = split(node, depth)
        sum_ += mass << depth
        a, b = len(here), len(there)
        if mass < 0.1 * window_size or depth == height:
            for features, worth, many in ((here, -sum_, a), (there, sum_, b)):
                for i in features:
                    did[i] += worth / (many * math.comb(a + b, a))
        elif of_event == of_usual or feature in here:
            walk(of_event, depth + 1, sum_, here, there)
        elif feature in there:
            walk(of_usual, depth + 1, sum_, here, there)
        else:
            walk(of_event, depth + 1, sum_, (*here, feature), there)
            walk(of_usual, depth + 1, sum_, here, (*there, feature))

    trees = list(roots)
    for root in trees:
        walk(root, 0, 0, (), ())
    return did / (len(trees) * window_size * ((2 << height) - 1))


def of_river(model: RiverModel, names: tuple[str, ...]) -> tuple[Measure, Contributions] | None:
    """Return how the contributions to a River model's score are found; None where only its scores
    can tell.

    Logistic regressions and trees can, behind transformers that keep the names of features too.
    """
    last = last_step(model.estimator)
    if isinstance(last, linear_model.LogisticRegression) and type(last.loss) is optim.losses.Log:
        return "log_odds", lambda x, usual: differences(_log_odds(model, names), x, usual)
    of_one = next((of for kind, of in _WAYS if _scores_as(last, kind)), None)
    if of_one is None:
        return None

    def contributions(x: Float64, usual: Float64) -> Float64:
        rows = [_transformed(model.estimator, names, row) for row in (x, usual)]
        did: dict[str, float] = of_one(last, *rows)
        return np.array([did.get(name, 0.0) for name in names])

    keeps_names = set(_transformed(model.estimator, names, np.zeros(len(names)))) <= set(names)
    return ("score", contributions) if keeps_names else None


def _log_odds(model: RiverModel, names: tuple[str, ...]) -> Score:
    last = last_step(model.estimator)
    return lambda X: np.array(
        [last._raw_dot_one(_transformed(model.estimator, names, x)) for x in X]
    )


def _transformed(estimator: Any, names: tuple[str, ...], x: Float64) -> dict[Any, Any]:
    """Return ``x`` as the last step gets it."""
    row = dict(zip(names, x.tolist(), strict=True))
    while isinstance(estimator, compose.Pipeline):
        row, estimator = estimator._transform_one(row)
    return row


def _of_half_space_trees(
    model: Any, x: dict[str, float], usual: dict[str, float]
) -> dict[str, float]:
    if model._first_window:
        return {}
    place = {name: i for i, name in enumerate(x)}

    def split(node: Any, depth: int) -> tuple[int, int, Any, Any]:
        if depth == model.height:
            return node.r_mass, 0, node, node
        return node.r_mass, place[node.feature], node.next(x), node.next(usual)

    did = of_half_spaces(model.trees, split, model.height, model.window_size, len(x))
    return dict(zip(x, did.tolist(), strict=True))


def _of_tree(model: Any, x: dict[str, float], usual: dict[str, float]) -> dict[str, float]:
    """Return what each split changed of the share of positives, and what a leaf adds that does not
    tell the share of its own.
    """
    if model._root is None:
        return {}
    *splits, leaf = model._root.walk(x)
    shares = [_share(node) for node in [*splits, leaf]]
    did = dict.fromkeys(x, 0.0)
    for split, before, after in zip(splits, shares, shares[1:], strict=False):
        did[split.feature] += after - before

    def told(X: Float64) -> Float64:
        rows = (dict(zip(x, row, strict=True)) for row in X.tolist())
        return np.array([leaf.prediction(row, tree=model).get(True, 0.0) for row in rows])

    here, there = (np.array(list(row.values())) for row in (x, usual))
    for name, more in zip(x, differences(told, here, there).tolist(), strict=True):
        did[name] += more
    return did


def _share(node: Any) -> float:
    """Return the share of positives among what the leaves below a node have learned."""
    leaves = [leaf.stats for leaf in node.iter_leaves()]
    total = sum(sum(stats.values()) for stats in leaves)
    return sum(stats.get(True, 0.0) for stats in leaves) / total if total else 0.0


def _of_forest(model: Any, x: dict[str, float], usual: dict[str, float]) -> dict[str, float]:
    """Return the mean over the trees, weighted as their votes are."""
    did, total = dict.fromkeys(x, 0.0), 0.0
    for one, metric in zip(model, model._metrics, strict=True):
        votes = metric.get()
        weight = votes if votes > 0.0 and not model.disable_weighted_vote else 1.0
        total += weight
        for name, more in _of_tree(one, x, usual).items():
            did[name] += weight * more
    return {name: more / total for name, more in did.items()} if total else {}


_WAYS: tuple[tuple[Any, Callable[..., dict[str, float]]], ...] = (
    (anomaly.HalfSpaceTrees, _of_half_space_trees),
    (tree.HoeffdingTreeClassifier, _of_tree),
    (forest.ARFClassifier, _of_forest),
)


def _scores_as(estimator: Any, kind: Any) -> bool:
    """Return whether an estimator is of a kind and scores as it does."""
    name = "score_one" if kind is anomaly.HalfSpaceTrees else "predict_proba_one"
    return isinstance(estimator, kind) and getattr(type(estimator), name) is getattr(kind, name)
