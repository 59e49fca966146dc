"""Machine code of `worker.models.causes`."""

from __future__ import annotations

import math
from collections.abc import Callable

from worker.contracts.records import Bool, Float64, Int64
from worker.features.compiling import digest_of, kernel
from worker.models import binned_kernels
from worker.models import compiled as compiling
from worker.models.binned_kernels import place_bins
from worker.models.compiled import compiled

SOURCES = (compiling, binned_kernels)

LOGIT_MAX = 20.0
"""Logits are cut there: no head is ever sure, so each can still be blamed."""

EPSILON = 1e-8

# Entries of `constants`.
RATE, INTERCEPT_RATE, WEIGHT_POSITIVE = range(3)


@compiled
def _join(
    weights: Float64, intercepts: Float64, members: Int64, starts: Int64, places: Int64,
    has_edges: bool, p: Float64,
) -> float:  # fmt: skip
    """Write the probability of each head into ``p`` and return that of any."""
    none = 1.0
    for h in range(intercepts.shape[0]):
        logit = 0.0
        if has_edges:
            for m in range(starts[h], starts[h + 1]):
                logit += weights[h, places[members[m]]]
        logit = min(max(logit + intercepts[h], -LOGIT_MAX), LOGIT_MAX)
        p[h] = 1.0 / (1.0 + math.exp(-logit))
        none *= 1.0 - p[h]
    return 1.0 - none


@compiled
def _learn(
    positive: bool, scale: float, whole: float, p: Float64, weights: Float64, squares: Float64,
    intercepts: Float64, members: Int64, starts: Int64, places: Int64, has_edges: bool,
    constants: Float64,
) -> None:  # fmt: skip
    """Teach each head by its share of the blame."""
    if positive:
        scale *= constants[WEIGHT_POSITIVE]
    for h in range(intercepts.shape[0]):
        blame = p[h] / whole if positive else 0.0
        slope = (p[h] - blame) * scale
        intercepts[h] -= constants[INTERCEPT_RATE] * slope
        if not has_edges:
            continue
        for m in range(starts[h], starts[h + 1]):
            place = places[members[m]]
            squares[h, place] += slope * slope
            root = math.sqrt(squares[h, place] + EPSILON)
            weights[h, place] -= constants[RATE] / root * slope


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
        intercepts: Float64,
        members: Int64,
        starts: Int64,
        constants: Float64,
        places: Int64,
        p: Float64,
        scores: Float64,
    ) -> None:
        """Fill ``scores`` (n, 1 + heads): NaN where an event is not scorable.

        ``members[starts[h]:starts[h + 1]]`` are the features of head h; ``weights`` and ``squares``
        have a row per head, in the places of `place_bins`. ``learn_X`` and its columns hold the
        usable examples only; ``places`` and ``p`` are scratch.
        """
        sources  # noqa: B018  # see worker.features.compiling
        done = 0
        for i in range(X.shape[0] + 1):
            while done < before.shape[0] and before[done] <= i:
                if has_edges:
                    place_bins(learn_X[done], edges, crosses, places)
                whole = _join(weights, intercepts, members, starts, places, has_edges, p)
                _learn(
                    positive[done], weight[done], whole, p, weights, squares, intercepts, members,
                    starts, places, has_edges, constants,
                )  # fmt: skip
                done += 1
            if i == X.shape[0]:
                break
            if not scorable[i]:
                scores[i, :] = math.nan
                continue
            if has_edges:
                place_bins(X[i], edges, crosses, places)
            whole = _join(weights, intercepts, members, starts, places, has_edges, p)
            scores[i, 0] = whole
            scores[i, 1:] = p

    return score_learn


score_learn = _make_score_learn(digest_of(*SOURCES))
