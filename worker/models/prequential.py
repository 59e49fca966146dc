"""Prequential metrics: how well models ranked the events whose truth came later.

"Test, then train": every labelled example is judged by the score that it was served with, before
anybody learns from it. Source: Gama, Sebastião, Rodrigues, "On evaluating stream learning
algorithms", Machine Learning 90 (2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.models.days import Days, Delays, Judged
from worker.models.plain import State, fit

BINS = 1_000
"""Bins of a score in [0, 1]: ranks are exact but for ties within a thousandth."""

_CLIP = 1e-6


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model was worth over some labelled examples; None without any, where one class is
    missing, and where nothing is there to divide by.

    ``precision``, ``recall`` and ``f1`` are of scores that reached the threshold in force when they
    were served. ``precision_at_k``, ``entity_precision_at_k`` and ``alert_delay_s`` are those of
    `worker.models.days`. ``brier`` (mean squared error of the probability) and
    ``calibration_error`` (mean distance between probability and share of positives, in ten bins of
    equal width, weighted by their examples) take a score as the middle of its thousandth: they are
    right to 0.001 and 0.0005.
    Sources: Brier, Monthly Weather Review 78 (1950); Naeini, Cooper, Hauskrecht, AAAI (2015).
    """

    labelled: int
    positives: int
    log_loss: float | None
    brier: float | None
    calibration_error: float | None
    roc_auc: float | None
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    precision_at_k: float | None
    entity_precision_at_k: float | None
    alert_delay_s: float | None

    def meant(self, *, is_probability: bool, is_share: bool, is_judged: bool) -> Figures:
        """Return them without those that mean nothing: `OF_PROBABILITIES` of a score that is none,
        `BY_THOUSANDTHS` of one that is not from 0 to 1, `OF_THE_THRESHOLD` where the threshold in
        force was of scores of another scale.
        """
        left_out = (
            *(() if is_probability else OF_PROBABILITIES),
            *(() if is_share else BY_THOUSANDTHS),
            *(() if is_judged else OF_THE_THRESHOLD),
        )
        nothing: dict[str, Any] = dict.fromkeys(left_out)
        return replace(self, **nothing)


OF_PROBABILITIES = ("log_loss", "brier", "calibration_error")
BY_THOUSANDTHS = ("roc_auc", "average_precision")
OF_THE_THRESHOLD = ("precision", "recall", "f1", "alert_delay_s")

MEANINGS = {
    "labelled": "examples with a label",
    "positives": "of them frauds",
    "log_loss": "mean of -ln of the probability that the score gave to the truth, in nats",
    "brier": "mean squared error of the score as a probability, right to 0.001",
    "calibration_error": "mean distance of score and share of frauds, in ten bins, right to 0.0005",
    "roc_auc": "area under the ROC curve; scores are told apart by thousandths",
    "average_precision": "area under precision over recall; the same",
    "precision": "of what was found, the share of frauds",
    "recall": "of the frauds, the share that was found",
    "f1": "harmonic mean of both",
    "precision_at_k": "share of frauds in the `metrics.top` highest scores of a day; mean of days",
    "entity_precision_at_k": "the same of the day's primary entities, each by its highest score",
    "alert_delay_s": "from an entity's first fraud to its first that was found; mean of the found",
}
"""What each of `Figures` says, for people."""


class Prequential:
    """Figures of one score: of everything, and of lately.

    Lately is the last whole block of labelled examples; by day, and of delays, seven days.

    Parameters
    ----------
    top, days
        As in `worker.models.days.Days`.
    block
        Labelled examples to a block.

    Examples
    --------
    >>> metrics = Prequential(block=4)
    >>> score, day, entity = np.array([0.1, 0.9, 0.2, 0.8]), np.zeros(4, np.int64), np.arange(4)
    >>> metrics.add(Judged(np.array([0, 1, 0, 1]), score, score >= 0.85, day, entity))
    >>> metrics.total().roc_auc, metrics.recent().precision, metrics.recent().recall
    (1.0, 1.0, 0.5)
    """

    def __init__(self, top: int = 100, days: int = 35, block: int = 10_000) -> None:
        self._block = block
        # Of all, of the last block, of the block in hand; y; then the bin, or whether it reached.
        self._bins = np.zeros((3, 2, BINS + 1), np.int64)
        self._reached = np.zeros((3, 2, 2), np.int64)
        self._loss = np.zeros(3)
        self._days, self._delays = Days(top, days), Delays(days)

    def add(self, part: Judged) -> None:
        """Count labelled examples by their scores; those beyond 0 and 1 fall on these."""
        self._days.add(part)
        self._delays.add(part)
        start = 0
        while start < len(part):
            stop = min(len(part), start + self._block - int(self._bins[2].sum()))
            self._count(part.of(slice(start, stop)))
            if int(self._bins[2].sum()) == self._block:
                for counts in (self._bins, self._reached, self._loss):
                    counts[1], counts[2] = counts[2], 0
            start = stop

    def total(self) -> Figures:
        """Return the figures of all examples."""
        return self._figures(0)

    def recent(self) -> Figures:
        """Return the figures of the last whole block; of the block in hand where none is whole."""
        return self._figures(1 if self._bins[1].any() else 2)

    def to_state(self) -> State:
        """Return the counts as plain values."""
        return {
            "bins": self._bins.copy(), "reached": self._reached.copy(), "loss": self._loss.copy(),
            "days": self._days.to_state(), "delays": self._delays.to_state(),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        fit(state["bins"], self._bins)
        fit(state["reached"], self._reached)
        fit(state["loss"], self._loss)
        self._days.restore(state["days"])
        self._delays.restore(state["delays"])

    def _figures(self, which: int) -> Figures:
        recent = which > 0
        return Figures(
            *_ranked(self._bins[which], float(self._loss[which])), *_decided(self._reached[which]),
            *self._days.precisions(recent=recent), self._delays.mean_s(recent=recent),
        )  # fmt: skip

    def _count(self, part: Judged) -> None:
        y, scores = part.y, part.score
        places = (np.clip(scores, 0.0, 1.0) * BINS).astype(np.int64)
        shape = self._bins[0].shape
        counts = np.bincount(np.ravel_multi_index((y, places), shape), minlength=math.prod(shape))
        reached = np.bincount(2 * y + part.reached, minlength=4).reshape(2, 2)
        loss = log_losses(scores, y)
        for which in (0, 2):
            self._bins[which] += counts.reshape(shape)
            self._reached[which] += reached
            # One by one, as accumulate does: the sum may not depend on how a batch is cut.
            self._loss[which] = np.add.accumulate(np.append(self._loss[which], loss))[-1]


def log_losses(scores: Float64, y: Int64) -> Float64:
    """Return −ln of the probability that each score gave to what turned out true, in nats.

    >>> log_losses(np.array([0.5, 1.0]), np.array([1, 0])).round(2).tolist()
    [0.69, 13.82]
    """
    p = np.clip(scores, _CLIP, 1 - _CLIP)
    return -np.log(np.where(y == 1, p, 1 - p))


def _decided(counts: Int64) -> tuple[float | None, float | None, float | None]:
    """Return precision, recall and F1 of counts by y and by whether the threshold was reached."""
    hits, alerts, frauds = int(counts[1, 1]), int(counts[:, 1].sum()), int(counts[1].sum())
    return (
        hits / alerts if alerts else None,
        hits / frauds if frauds else None,
        2 * hits / (alerts + frauds) if alerts + frauds else None,
    )


def _ranked(
    bins: Int64, loss: float
) -> tuple[int, int, float | None, float | None, float | None, float | None, float | None]:
    """Return the figures of counts by y and score, from ``labelled`` to ``average_precision``."""
    negatives, positives = bins.astype(np.float64)
    n, p = float(negatives.sum()), float(positives.sum())
    count = int(n + p)
    if not count:
        return 0, 0, None, None, None, None, None
    errors = loss / count, *_errors(negatives, positives)
    if n == 0 or p == 0:
        return count, int(p), *errors, None, None
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    roc_auc = float((positives * (below + negatives / 2)).sum() / (n * p))
    hits, all_ = np.cumsum(positives[::-1]), np.cumsum((positives + negatives)[::-1])
    precision = np.divide(hits, all_, out=np.zeros_like(hits), where=all_ > 0)
    average_precision = math.fsum((precision * positives[::-1] / p).tolist())
    return count, int(p), *errors, roc_auc, average_precision


def _errors(negatives: Float64, positives: Float64) -> tuple[float, float]:
    """Return Brier score and calibration error of counts per bin."""
    score = np.minimum((np.arange(BINS + 1) + 0.5) / BINS, 1.0)
    count = negatives + positives
    squares = negatives * score**2 + positives * (1 - score) ** 2
    tenth = np.minimum(np.arange(BINS + 1) * 10 // BINS, 9)
    distance = np.abs(np.bincount(tenth, score * count) - np.bincount(tenth, positives))
    return float(squares.sum() / count.sum()), float(distance.sum() / count.sum())
