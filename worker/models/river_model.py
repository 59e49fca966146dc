"""Any River estimator behind the interface of a model: a plain loop of score_one and learn_one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any  # River's estimators have no common typed interface

import numpy as np
from river import base, compose

from worker.contracts.records import Float64
from worker.models.batch import Batch, Row
from worker.models.canonical import state_hash
from worker.models.plain import State, reading
from worker.models.structure import from_plain, to_plain
from worker.models.versioned import Counts


class RiverModel:
    """A River classifier (learns labels) or anomaly detector (learns every observed event).

    The scores equal those of a plain River loop, float for float. What a loop would die of is
    skipped, the same way on every replica, and counted:

    * an example with a number that is not finite, or absurd (beyond 1e30);
    * an exception while learning. What the estimator changed before it raised stays changed; the
      same examples raise at the same point everywhere, so replicas stay equal;
    * a score that is not finite, or that raised, is served as 0.0.

    A weight is passed on only when it is not 1 and the last step declares ``w``; elsewhere the
    example is learned unweighted and counted.

    Parameters
    ----------
    estimator
        Any estimator that `kind_of` knows. It is taken over, not copied.
    """

    def __init__(self, estimator: Any) -> None:
        kind = kind_of(estimator)
        assert kind is not None, type(estimator)
        self.estimator = estimator
        self.counts = Counts()
        self.heads: tuple[str, ...] = tuple(getattr(estimator, "heads", ()))
        self._is_classifier = kind == "classifier"
        self._takes_weight = takes_weight(estimator)

    @property
    def learns_from_labels(self) -> bool:
        """Return True for a classifier, False for an anomaly detector."""
        return self._is_classifier

    def score_learn(self, batch: Batch) -> Float64:
        """Return the score of each event, each learned-before example learned before it."""
        chosen, skipped = batch.examples(self._is_classifier)
        self.counts.skipped_examples += skipped
        scores = np.zeros((len(batch.X), 1 + len(self.heads)))
        scorable = batch.scorable.tolist()
        done = 0
        stops = np.searchsorted(batch.learn_before[chosen], np.arange(len(scores)), side="right")
        for i, stop in enumerate(stops.tolist()):
            self._learn(batch, chosen[done:stop].tolist())
            done = stop
            scores[i] = self._score(batch.rows[i], scorable[i])
        self._learn(batch, chosen[done:].tolist())
        return scores if self.heads else scores[:, 0]

    def state_hash(self) -> str:
        """Return a hash of the estimator's state."""
        return state_hash(self.estimator)

    def to_state(self) -> State:
        """Return the estimator as plain values; TypeError where it has no such form."""
        return {"kind": "river_model", "estimator": to_plain(self.estimator)}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave; the estimator must be of the class that this one is."""
        with reading("river_model", state):
            estimator = from_plain(state["estimator"])
            assert type(estimator) is type(self.estimator), type(estimator)
            self.estimator = estimator

    def to_river(self) -> Any:
        """Return the estimator itself, not a copy."""
        return self.estimator

    def _score(self, x: Row, scorable: bool) -> list[float]:
        """Return the score and those of the heads; zeros where there is none."""
        score = self._raw_score(x) if scorable else math.nan
        if math.isfinite(score):
            parts = self.estimator.predict_heads_one(x) if self.heads else {}
            return [score, *parts.values()]
        self.counts.failed_scores += 1
        return [0.0] * (1 + len(self.heads))

    def _raw_score(self, x: Row) -> float:
        try:
            if self._is_classifier:
                return float(self.estimator.predict_proba_one(x).get(True, 0.0))
            return float(self.estimator.score_one(x))
        except MemoryError:  # depends on the machine: replicas would differ
            raise
        except Exception:  # whatever an estimator raises, it does so on every replica
            return math.nan

    def _learn(self, batch: Batch, examples: list[int]) -> None:
        for j in examples:
            weight = float(batch.learn_weight[j])
            if weight != 1.0 and not self._takes_weight:
                self.counts.unweighted_examples += 1
                weight = 1.0
            self._learn_one(batch.learn_rows[j], int(batch.learn_y[j]), weight)

    def _learn_one(self, x: Row, y: int, weight: float) -> None:
        arguments: tuple[Any, ...] = (x, bool(y)) if self._is_classifier else (x,)
        words = {} if weight == 1.0 else {"w": weight}
        try:
            self.estimator.learn_one(*arguments, **words)
        except MemoryError:
            raise
        except Exception:  # see the class: skipped identically on every replica
            self.counts.failed_examples += 1


def kind_of(estimator: Any) -> str | None:
    """Return ``classifier``, ``detector``, or None for what can be neither scored nor learned here.

    The last step of a pipeline decides.

    >>> from river import anomaly, linear_model, preprocessing
    >>> kind_of(preprocessing.StandardScaler() | linear_model.LogisticRegression())
    'classifier'
    >>> kind_of(anomaly.HalfSpaceTrees()), kind_of(linear_model.LinearRegression())
    ('detector', None)
    """
    last = last_step(estimator)
    if isinstance(last, base.Classifier):
        return "classifier"
    if isinstance(last, base.AnomalyDetector):
        return "detector"
    if isinstance(last, base.AnomalyFilter) and kind_of(last.anomaly_detector) == "detector":
        return "detector"
    return None


def last_step(estimator: Any) -> Any:
    """Return the last step of a pipeline, of pipelines in it too; any other estimator itself."""
    while isinstance(estimator, compose.Pipeline) and len(estimator):
        estimator = list(estimator.steps.values())[-1]
    return estimator


def takes_weight(estimator: Any) -> bool:
    """Return whether ``learn_one`` of the last step declares ``w``.

    A River pipeline passes ``w`` on to every step that declares it. Wrappers which take any keyword
    hand it to estimators that may not know it, so they count as not taking it.

    >>> from river import naive_bayes, preprocessing, tree
    >>> takes_weight(preprocessing.StandardScaler() | tree.HoeffdingTreeClassifier())
    True
    >>> takes_weight(naive_bayes.GaussianNB())
    False
    """
    learn: Callable[..., Any] = type(last_step(estimator)).learn_one
    return "w" in inspect.signature(learn).parameters
