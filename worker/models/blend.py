"""Several classifiers as one, with weights that are learned online."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any  # River's estimators have no common typed interface

from river import base

PROBABILITY_MIN = 1e-6


class Blend(base.Classifier):
    """The weighted mean of its members' probabilities; a member's weight falls with its log loss.

    After each label a weight is multiplied by exp(-rate * log loss of the member's probability
    before it learned), and ``share`` of all weight is dealt out evenly, so that a member which was
    bad can come back.

    *Source*: Herbster, Warmuth, "Tracking the best expert", Machine Learning 32 (1998), 151.

    Parameters
    ----------
    members
        River classifiers.
    rate, share
        How fast weights follow the loss, and how much of them is dealt out evenly.
    """

    def __init__(self, members: Sequence[Any], rate: float = 0.5, share: float = 0.001) -> None:
        if len(members) < 2 or not all(isinstance(m, base.Classifier) for m in members):
            raise ValueError("a blend is of two classifiers or more")
        if not (rate > 0.0 and 0.0 <= share <= 1.0):
            raise ValueError("rate is above 0, share lies in 0 to 1")
        self.members = list(members)
        self.rate = rate
        self.share = share
        self.weights = [1.0 / len(members)] * len(members)

    def learn_one(self, x: dict[Any, Any], y: Any) -> None:
        """Judge the members by what they say of the example, then teach them."""
        kept = []
        for weight, p in zip(self.weights, self._said(x), strict=True):
            right = max(p if y else 1.0 - p, PROBABILITY_MIN)
            kept.append(weight * math.exp(self.rate * math.log(right)))
        total = sum(kept)
        even = self.share / len(kept)
        self.weights = [(1.0 - self.share) * w / total + even for w in kept]
        for member in self.members:
            member.learn_one(x, y)

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[bool | str | int, float]:
        """Return the weighted mean."""
        p = sum(w * q for w, q in zip(self.weights, self._said(x), strict=True))
        return {False: 1.0 - p, True: p}

    @property
    def reads(self) -> list[str]:
        """Return the features that must be there, each once."""
        steps = [step for m in self.members for step in getattr(m, "steps", {"": m}).values()]
        return list(dict.fromkeys(name for step in steps for name in getattr(step, "reads", ())))

    def _said(self, x: dict[Any, Any]) -> list[float]:
        return [float(m.predict_proba_one(x).get(True, 0.0)) for m in self.members]
