"""Machine code of `LearnedBins | LogisticRegression(AdaGrad)`, as River 0.26 does it.

A weight has a place: bin k of feature i is ``i * width + k``, then follow the squares of the
crosses. ``ranks`` is 0 for a weight that was never touched, else its number in the order in which
they were: River's dicts keep that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from worker.contracts.records import Bool, Float64, Int64
from worker.features.compiling import digest_of, kernel
from worker.models import compiled as compiling
from worker.models import linear_kernels
from worker.models.compiled import compiled
from worker.models.linear_kernels import (
    INTERCEPT_RATE,
    TWO,
    loss_gradient,
    sigmoid,
    step_adagrad,
)

SOURCES = (compiling, linear_kernels)

# Entries of `counters`.
STEPS, TOUCHED = range(2)


@compiled
def place_bins(x: Float64, edges: Float64, crosses: Int64, places: Int64) -> None:
    """Write the place of each weight of ``x``: the number of edges that are not above it."""
    width = edges.shape[1] + 1
    features = edges.shape[0]
    for i in range(features):
        low, rest = 0, edges.shape[1]
        while rest > 0:
            half = rest // 2
            if edges[i, low + half] <= x[i]:
                low += half + 1
                rest -= half + 1
            else:
                rest = half
        places[i] = i * width + low
    for c in range(crosses.shape[0]):
        a, b = crosses[c, 0], crosses[c, 1]
        cell = (places[a] - a * width) * width + places[b] - b * width
        places[features + c] = features * width + c * width * width + cell


@compiled
def place_rows(X: Float64, edges: Float64, crosses: Int64, places: Int64) -> None:
    """Write the places of the weights of every row, (n, features and crosses)."""
    for i in range(X.shape[0]):
        place_bins(X[i], edges, crosses, places[i])


@compiled
def _logit(weights: Float64, places: Int64, active: int, intercept: float) -> float:
    total = 0.0
    for k in range(active):
        total += weights[places[k]]
    return total + intercept


@compiled
def _learn(
    slope: float, weights: Float64, squares: Float64, ranks: Int64, counters: Int64,
    places: Int64, active: int, constants: Float64,
) -> None:  # fmt: skip
    """Move the weights of one example by River's AdaGrad."""
    square = math.pow(slope, constants[TWO])
    for k in range(active):
        p = places[k]
        if ranks[p] == 0:
            counters[TOUCHED] += 1
            ranks[p] = counters[TOUCHED]
        step_adagrad(p, slope, square, squares, weights, constants)


def _make_score_learn(sources: str) -> Callable[..., None]:
    @kernel
    def score_learn(
        X: Float64,
        scorable: Bool,
        learn_X: Float64,
        positive: Bool,
        weight: Float64,
        before: Int64,
        edges: Float64,
        crosses: Int64,
        has_edges: bool,
        weights: Float64,
        squares: Float64,
        ranks: Int64,
        intercept: Float64,
        counters: Int64,
        constants: Float64,
        places: Int64,
        scores: Float64,
    ) -> None:
        """Fill ``scores``: NaN where an event is not scorable. All state arrays change in place.

        ``learn_X`` and its columns hold the usable examples only, in order; ``places`` is scratch
        with an entry for each feature and cross.
        """
        sources  # noqa: B018  # see worker.features.compiling
        active = places.shape[0] if has_edges else 0
        done = 0
        for i in range(X.shape[0] + 1):
            while done < before.shape[0] and before[done] <= i:
                if active:
                    place_bins(learn_X[done], edges, crosses, places)
                logit = _logit(weights, places, active, intercept[0])
                slope = loss_gradient(positive[done], logit, weight[done], constants)
                intercept[0] -= constants[INTERCEPT_RATE] * slope
                _learn(slope, weights, squares, ranks, counters, places, active, constants)
                counters[STEPS] += 1
                done += 1
            if i == X.shape[0]:
                break
            if not scorable[i]:
                scores[i] = math.nan
                continue
            if active:
                place_bins(X[i], edges, crosses, places)
            scores[i] = sigmoid(_logit(weights, places, active, intercept[0]))

    return score_learn


score_learn = _make_score_learn(digest_of(*SOURCES))
