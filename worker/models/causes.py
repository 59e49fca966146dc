"""Several causes of one event: a head per entity that can be to blame, joined by noisy-or."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any  # keys and values of River's dicts

from river import base

from worker.models.bins import LearnedBins

LOGIT_MAX = 20.0
"""Logits are cut there: no head is ever sure, so each can still be blamed."""

EPSILON = 1e-8


class Causes(base.Classifier):
    """An event is bad if any cause is at work: P = 1 - (1 - p_card) (1 - p_terminal) ...

    Each head is a logistic regression over the bins of its own features. A bad event teaches a head
    by its share of the blame, the probability p / P that this cause was at work; a good event
    teaches all heads that they were not. That is the gradient of the joint likelihood. Weights move
    by AdaGrad.

    Parameters
    ----------
    heads
        Features of each head, by the name of the head.
    bins, warm_up
        As of `LearnedBins`, which all heads share.
    lr, intercept_lr, intercept_init
        AdaGrad's rate of the weights; constant rate and start of each head's intercept.
    weight_positive
        Weight of a positive example.
    """

    def __init__(
        self,
        heads: Mapping[str, Sequence[str]],
        bins: int = 32,
        warm_up: int = 1000,
        lr: float = 0.05,
        intercept_lr: float = 0.01,
        intercept_init: float = -4.0,
        weight_positive: float = 1.0,
    ) -> None:
        if not heads or not all(heads.values()):
            raise ValueError("heads are a mapping of names to features, at least one each")
        self.heads = {name: list(features) for name, features in heads.items()}
        self.lr = lr
        self.intercept_lr = intercept_lr
        self.intercept_init = intercept_init
        self.weight_positive = weight_positive
        self.bins = LearnedBins(bins=bins, warm_up=warm_up)
        self.weights: dict[str, dict[str, float]] = {name: {} for name in heads}
        self.squares: dict[str, dict[str, float]] = {name: {} for name in heads}
        self.intercepts = dict.fromkeys(heads, float(intercept_init))

    @property
    def reads(self) -> list[str]:
        """Return the features that must be there, each once."""
        return list(dict.fromkeys(f for features in self.heads.values() for f in features))

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        """Teach each head by its share of the blame."""
        self.bins.learn_one(x)
        p = self.predict_heads_one(x)
        scale = w * self.weight_positive if y else w
        whole = _joined(p)
        for name, found in self._active(x).items():
            blame = p[name] / whole if y else 0.0
            slope = (p[name] - blame) * scale
            self.intercepts[name] -= self.intercept_lr * slope
            weights, squares = self.weights[name], self.squares[name]
            for key in found:
                squares[key] = squares.get(key, 0.0) + slope * slope
                step = self.lr / math.sqrt(squares[key] + EPSILON) * slope
                weights[key] = weights.get(key, 0.0) - step

    def predict_heads_one(self, x: dict[Any, Any]) -> dict[str, float]:
        """Return the probability that each cause is at work."""
        return {
            name: _probability(self.weights[name], found, self.intercepts[name])
            for name, found in self._active(x).items()
        }

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[bool | str | int, float]:
        """Return the probability that any cause is at work."""
        whole = _joined(self.predict_heads_one(x))
        return {False: 1.0 - whole, True: whole}

    def _active(self, x: dict[Any, Any]) -> dict[str, list[str]]:
        """Return the names of the bins that each head sees; none during the warm-up."""
        found = list(self.bins.transform_one(x))
        if not found:
            return {name: [] for name in self.heads}
        own = dict(zip(self.bins.edges, found, strict=True))
        return {name: [own[f] for f in features] for name, features in self.heads.items()}


def _probability(weights: dict[str, float], found: list[str], intercept: float) -> float:
    logit = 0.0
    for key in found:
        logit += weights.get(key, 0.0)
    logit = min(max(logit + intercept, -LOGIT_MAX), LOGIT_MAX)
    return 1.0 / (1.0 + math.exp(-logit))


def _joined(p: dict[str, float]) -> float:
    none = 1.0
    for value in p.values():
        none *= 1.0 - value
    return 1.0 - none
