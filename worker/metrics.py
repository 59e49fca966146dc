"""Metrics of served scores, exact over all labelled events."""

from __future__ import annotations

import numpy as np

from worker.contracts.records import Float64, Int64


def roc_auc(y: Int64, scores: Float64) -> float | None:
    """Return the area under the ROC curve; ties count half. None where only one class is there.

    Source: the Mann-Whitney statistic, Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747.

    >>> import numpy as np
    >>> roc_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    positives, negatives = _curve(y, scores)
    if not len(positives) or positives[-1] == 0 or negatives[-1] == 0:
        return None
    width = np.diff(negatives, prepend=0)
    height = positives - np.diff(positives, prepend=0) / 2
    return float(np.sum(width * height) / (positives[-1] * negatives[-1]))


def average_precision(y: Int64, scores: Float64) -> float | None:
    """Return the sum of precision over the steps of recall, without interpolation.

    None where no event is positive. Equal scores are one step.

    >>> import numpy as np
    >>> round(average_precision(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])), 4)
    0.8333
    """
    positives, negatives = _curve(y, scores)
    if not len(positives) or positives[-1] == 0:
        return None
    precision = positives / (positives + negatives)
    return float(np.sum(np.diff(positives, prepend=0) * precision) / positives[-1])


def brier(y: Int64, scores: Float64) -> float | None:
    """Return the mean squared error of the scores as probabilities. None without events.

    >>> brier(np.array([0, 1]), np.array([0.5, 1.0]))
    0.125
    """
    return float(np.mean((scores - y) ** 2)) if len(y) else None


def calibration_error(y: Int64, scores: Float64) -> float | None:
    """Return the mean distance between score and share of positives, in ten bins of equal width.

    Bins count by their events. None without events. Source: Naeini, Cooper, Hauskrecht, AAAI 2015.

    >>> calibration_error(np.array([0, 1]), np.array([0.25, 1.0]))
    0.125
    """
    if not len(y):
        return None
    place = np.clip(scores * 10, 0, 9).astype(np.int64)
    return float(np.abs(np.bincount(place, scores - y)).sum() / len(y))


def _curve(y: Int64, scores: Float64) -> tuple[Float64, Float64]:
    """Return counts of positives and negatives at or above each distinct score, descending."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.empty(0, np.bool_)
    positives = np.cumsum(y[order] == 1).astype(np.float64)
    return positives[last], np.arange(1, len(y) + 1)[last] - positives[last]
