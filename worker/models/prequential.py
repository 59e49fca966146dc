"""Prequential metrics: how well models ranked the events whose truth came later.

"Test, then train": every labelled example is judged by the score that it was served with, before
anybody learns from it. Source: Gama, Sebastião, Rodrigues, "On evaluating stream learning
algorithms", Machine Learning 90 (2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.models.plain import State, fit

BINS = 1_000
"""Bins of a score in [0, 1]: ranks are exact but for ties within a thousandth."""

_CLIP = 1e-6


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model was worth over some labelled examples; None without any, and where one class is
    missing.

    ``brier`` (mean squared error of the probability) and ``calibration_error`` (mean distance
    between probability and share of positives, in ten bins of equal width, weighted by their
    examples) take a score as the middle of its thousandth: they are right to 0.001 and 0.0005.
    Sources: Brier, Monthly Weather Review 78 (1950); Naeini, Cooper, Hauskrecht, AAAI (2015).
    """

    labelled: int
    positives: int
    log_loss: float | None
    brier: float | None
    calibration_error: float | None
    roc_auc: float | None
    average_precision: float | None


class Prequential:
    """Figures of one model: of everything, and of the last whole block of labelled examples.

    Parameters
    ----------
    block
        Labelled examples to a block.

    Examples
    --------
    >>> metrics = Prequential(block=4)
    >>> metrics.add(np.array([0.1, 0.9, 0.2, 0.8]), np.array([0, 1, 0, 1]))
    >>> metrics.total().roc_auc, metrics.recent().average_precision
    (1.0, 1.0)
    """

    def __init__(self, block: int = 10_000) -> None:
        self._block = block
        self._bins = np.zeros((3, 2, BINS + 1), np.int64)  # all, last block, block in hand; y; bin
        self._loss = np.zeros(3)

    def add(self, scores: Float64, y: Int64) -> None:
        """Count labelled examples, ``y`` 0 or 1, by their scores in [0, 1]."""
        start = 0
        while start < len(y):
            stop = min(len(y), start + self._block - int(self._bins[2].sum()))
            self._count(scores[start:stop], y[start:stop])
            if int(self._bins[2].sum()) == self._block:
                self._bins[1], self._loss[1] = self._bins[2], self._loss[2]
                self._bins[2], self._loss[2] = 0, 0.0
            start = stop

    def total(self) -> Figures:
        """Return the figures of all examples."""
        return _figures(self._bins[0], float(self._loss[0]))

    def recent(self) -> Figures:
        """Return the figures of the last whole block; of the block in hand where none is whole."""
        which = 1 if self._bins[1].any() else 2
        return _figures(self._bins[which], float(self._loss[which]))

    def to_state(self) -> State:
        """Return the counts as plain values."""
        return {"bins": self._bins.copy(), "loss": self._loss.copy()}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        fit(state["bins"], self._bins)
        fit(state["loss"], self._loss)

    def _count(self, scores: Float64, y: Int64) -> None:
        places = (np.clip(scores, 0.0, 1.0) * BINS).astype(np.int64)
        shape = self._bins[0].shape
        counts = np.bincount(np.ravel_multi_index((y, places), shape), minlength=math.prod(shape))
        loss = log_losses(scores, y)
        for which in (0, 2):
            self._bins[which] += counts.reshape(shape)
            # One by one, as accumulate does: the sum may not depend on how a batch is cut.
            self._loss[which] = np.add.accumulate(np.append(self._loss[which], loss))[-1]


def log_losses(scores: Float64, y: Int64) -> Float64:
    """Return −ln of the probability that each score gave to what turned out true, in nats.

    >>> log_losses(np.array([0.5, 1.0]), np.array([1, 0])).round(2).tolist()
    [0.69, 13.82]
    """
    p = np.clip(scores, _CLIP, 1 - _CLIP)
    return -np.log(np.where(y == 1, p, 1 - p))


def _figures(bins: Int64, loss: float) -> Figures:
    negatives, positives = bins.astype(np.float64)
    n, p = float(negatives.sum()), float(positives.sum())
    count = int(n + p)
    if not count:
        return Figures(0, 0, None, None, None, None, None)
    errors = loss / count, *_errors(negatives, positives)
    if n == 0 or p == 0:
        return Figures(count, int(p), *errors, None, None)
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    roc_auc = float((positives * (below + negatives / 2)).sum() / (n * p))
    hits, all_ = np.cumsum(positives[::-1]), np.cumsum((positives + negatives)[::-1])
    precision = np.divide(hits, all_, out=np.zeros_like(hits), where=all_ > 0)
    average_precision = math.fsum((precision * positives[::-1] / p).tolist())
    return Figures(count, int(p), *errors, roc_auc, average_precision)


def _errors(negatives: Float64, positives: Float64) -> tuple[float, float]:
    """Return Brier score and calibration error of counts per bin."""
    score = np.minimum((np.arange(BINS + 1) + 0.5) / BINS, 1.0)
    count = negatives + positives
    squares = negatives * score**2 + positives * (1 - score) ** 2
    tenth = np.minimum(np.arange(BINS + 1) * 10 // BINS, 9)
    distance = np.abs(np.bincount(tenth, score * count) - np.bincount(tenth, positives))
    return float(squares.sum() / count.sum()), float(distance.sum() / count.sum())
