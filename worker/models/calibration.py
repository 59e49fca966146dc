"""From a model's raw score to one that keeps its meaning while the model learns.

A calibrator is part of the versioned model: it is a fold of the training log, whose examples carry
the raw scores they were served with. What learns labels takes what today's model says of them, just
before it learns them: labels come weeks late, and what was served then was another model's. A score
is calibrated by what was learned before it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.contracts.decisions import UNTAUGHT
from worker.contracts.records import Float64, Int64
from worker.errors import StateLostError
from worker.features.compiling import digest_of, helper, kernel
from worker.models import sketch_kernels as sketches
from worker.models.canonical import state_hash
from worker.models.compiled import ABSOLUTE_MAX, compiled
from worker.models.sketch import QuantileSketch

Int8 = NDArray[np.int8]

CLIP = 1e-9
"""Distance from 0 and 1 of the raw scores whose logarithm is taken."""

LEVELS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Tail scores whose rate is held by feedback, and with them all between."""

_PRIOR = (10.0, 10.0, 1.0)  # precision of the identity map: soon outweighed
LABELS_MIN = 100.0
"""Labels from which the map is trusted; with fewer every probability is `UNTAUGHT`."""

LABELS = 3  # where the map keeps their number, after a, b and c; the class seen until both are
_ONLY_GENUINE, _ONLY_FRAUDS = -1.0, -2.0
_SLOPE_MIN = 0.02  # keeps the order of scores
_BETA = struct.Struct("<4s10d")
_BETA_MAGIC = b"RWB1"


class Calibrator(Protocol):
    """Maps raw scores, and learns from examples with the raw score they were served with."""

    @property
    def learns_from_events(self) -> bool:
        """Return whether it learns every observed event, with the score that it was served."""

    @property
    def learns_from_labels(self) -> bool:
        """Return whether it learns labels, with what the model says just before it learns them."""

    def calibrate_learn(
        self, raw: Float64, learn_raw: Float64, y: Int8, weight: Float64, before: Int64
    ) -> Float64:
        """Return the calibrated scores; example j is learned before event ``before[j]`` is one.

        All examples are given; those without a raw score (NaN) and of another kind are passed over.
        """

    def state_hash(self) -> str:
        """Return a hash of what was learned."""

    def to_bytes(self) -> bytes:
        """Return what was learned."""

    def restore(self, state: bytes) -> None:
        """Take what `to_bytes` gave; StateLostError for anything else."""


class Identity:
    """``none``: the calibrated score is the raw one."""

    learns_from_events = learns_from_labels = False

    def calibrate_learn(
        self, raw: Float64, learn_raw: Float64, y: Int8, weight: Float64, before: Int64
    ) -> Float64:
        """Return a copy of the raw scores."""
        return raw.copy()

    def state_hash(self) -> str:
        """Return the same hash always."""
        return state_hash("none")

    def to_bytes(self) -> bytes:
        """Return nothing."""
        return b""

    def restore(self, state: bytes) -> None:
        """Take nothing."""
        if state:
            raise StateLostError("calibrator none", "no state", "some")


class Tail:
    """``tail``: the share of the model's own last scores that lie below this one.

    0.99 is a score that one event in a hundred exceeds, today as tomorrow. Equal scores do not
    count as below, so a model that says the same of every event has the score 0. Until ``window``
    scores were seen no score is called rarer than 5 in what was seen, and within the first 1,024
    events all are 0. What drifts faster than the window is held by feedback: in the long run one
    event in a hundred reaches 0.99 whatever happens. Good for scores without labels;
    costs 0.3 µs an event and 25 kB.

    Parameters
    ----------
    window
        Events that count; older ones fade. It must hold 50 above the threshold for a steady rate.

    Examples
    --------
    >>> tail = Tail(10_000)
    >>> raw = np.random.default_rng(1).normal(size=20_000) * 1e-6
    >>> nothing = np.empty(0)
    >>> _ = tail.calibrate_learn(nothing, raw, np.full(20_000, -1, np.int8),
    ...                          np.ones(20_000), np.zeros(20_000, np.int64))
    >>> none = (nothing, nothing.astype(np.int8), nothing, nothing.astype(np.int64))
    >>> tail.calibrate_learn(np.array([-1e-6, 0.0, 2.33e-6]), *none).round(2).tolist()
    [0.16, 0.5, 0.99]
    """

    learns_from_events, learns_from_labels = True, False

    def __init__(self, window: int) -> None:
        self._sketch = QuantileSketch(window, LEVELS)

    def calibrate_learn(
        self, raw: Float64, learn_raw: Float64, y: Int8, weight: Float64, before: Int64
    ) -> Float64:
        """Return the tail ranks of the scores; observed events (y = -1) are learned."""
        out = np.empty(len(raw))
        _tail(raw, learn_raw, y, before, *self._sketch.arrays, out)
        return out

    def state_hash(self) -> str:
        """Return a hash of the sketch."""
        return state_hash(self._sketch.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the sketch."""
        return self._sketch.to_bytes()

    def restore(self, state: bytes) -> None:
        """Take a sketch; its window goes on as it was saved."""
        self._sketch = QuantileSketch.from_bytes(state)


class Probability:
    """``probability``: the share of frauds among events that score like this one.

    Online beta calibration: log odds = a ln s - b ln(1 - s) + c, with a, b > 0, so the order of
    scores stays. The map begins as the identity, corrected for class weights, and follows the
    labels by second-order steps that forget: a label that is ``window`` labels old counts 1/e. It
    begins when labels of both classes have come. What a model says that has learned nothing means
    nothing: with fewer than 100 labels from then on every event has the probability 0.000001, which
    says that nothing is known; no budget takes it for a score.
    Weights of labels count as numbers of labels: a negative sampled at rate r has weight 1/r. Needs
    scores in [0, 1] and labels of both classes; costs 0.1 µs an event and 84 bytes.

    Parameters
    ----------
    window
        Labels that count; at least some hundred of the rarer class should be among them.
    odds_factor
        By how much class weights and sampling raise the odds that the model learns.

    *Source*: Kull, Silva Filho and Flach 2017, doi 10.1214/17-EJS1338SI (the map); the steps are an
    extended Kalman filter for logistic regression with exponential forgetting.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chance = rng.random(5_000)
    >>> raw, y = chance / (2.0 - chance), (rng.random(5_000) < chance).astype(np.int8)
    >>> halved = Probability(10_000)
    >>> out = halved.calibrate_learn(raw, raw, y, np.ones(5_000), np.arange(1, 5_001))
    >>> out[0].round(9), bool(abs(out[4_000:] - chance[4_000:]).mean() < 0.05)
    (np.float64(1e-06), True)
    """

    learns_from_events, learns_from_labels = False, True

    def __init__(self, window: int, odds_factor: float = 1.0) -> None:
        self._theta = np.array([1.0, 1.0, -math.log(odds_factor), 0.0])
        self._start = self._theta.copy()
        self._precision = np.array([_PRIOR[0], 0.0, 0.0, _PRIOR[1], 0.0, _PRIOR[2]])
        self._forget = 1.0 / window

    def calibrate_learn(
        self, raw: Float64, learn_raw: Float64, y: Int8, weight: Float64, before: Int64
    ) -> Float64:
        """Return probabilities; labelled examples (y = 0 or 1) are learned."""
        out = np.empty(len(raw))
        _probability(
            raw, learn_raw, y, weight, before,
            self._theta, self._start, self._precision, self._forget, out,
        )  # fmt: skip
        return out

    def state_hash(self) -> str:
        """Return a hash of the map and its certainty."""
        return state_hash(self._theta, self._precision)

    def to_bytes(self) -> bytes:
        """Return the map and its certainty."""
        return _BETA.pack(_BETA_MAGIC, *self._theta.tolist(), *self._precision.tolist())

    def restore(self, state: bytes) -> None:
        """Take a map and its certainty."""
        if len(state) != _BETA.size or state[:4] != _BETA_MAGIC:
            raise StateLostError("calibrator probability", f"{_BETA.size} bytes", f"{len(state)}")
        values = _BETA.unpack(state)[1:]
        self._theta[:], self._precision[:] = values[:4], values[4:]


CALIBRATORS: dict[str, type[Identity] | type[Probability] | type[Tail]] = {
    "none": Identity,
    "probability": Probability,
    "tail": Tail,
}


def _make_tail(sources: str) -> Callable[..., None]:
    @kernel
    def tail(
        raw: Float64, learn_raw: Float64, y: Int8, before: Int64, table: Float64,
        scratch: Float64, buffer: Float64, counters: Int64, facts: Float64, levels: Float64,
        out: Float64,
    ) -> None:  # fmt: skip
        sources  # noqa: B018  # see worker.features.compiling
        done = 0
        for i in range(raw.shape[0] + 1):
            while done < before.shape[0] and before[done] <= i:
                if y[done] < 0 and math.isfinite(learn_raw[done]):
                    sketches.add(learn_raw[done], table, scratch, buffer, counters, facts, levels)
                done += 1
            if i < raw.shape[0]:
                out[i] = sketches.rank(raw[i], table, counters, facts, levels)

    return tail


_tail = _make_tail(digest_of(sketches))


@compiled
def _probability(
    raw: Float64, learn_raw: Float64, y: Int8, weight: Float64, before: Int64, theta: Float64,
    start: Float64, precision: Float64, forget: float, out: Float64,
) -> None:  # fmt: skip
    done = 0
    for i in range(raw.shape[0] + 1):
        while done < before.shape[0] and before[done] <= i:
            w = weight[done]
            if y[done] >= 0 and 0.0 < w <= ABSOLUTE_MAX and math.isfinite(learn_raw[done]):
                _step(learn_raw[done], y[done], w, theta, start, precision, forget)
            done += 1
        if i < raw.shape[0]:
            out[i] = _beta(raw[i], theta)


@helper
def _clipped(raw: float) -> float:
    return min(max(raw, CLIP), 1.0 - CLIP)


@helper
def _beta(raw: float, theta: Float64) -> float:
    if theta[LABELS] < LABELS_MIN:
        return UNTAUGHT
    score = _clipped(raw)
    logit = theta[0] * math.log(score) - theta[1] * math.log(1.0 - score) + theta[2]
    return 1.0 / (1.0 + math.exp(-logit))


@helper
def _step(
    raw: float, y: int, weight: float, theta: Float64, start: Float64, p: Float64, forget: float
) -> None:
    """One weighted Newton step on the log loss of one label.

    ``p`` is the precision's upper triangle: 00, 01, 02, 11, 12, 22. Forgetting moves it, and the
    map with the same small weight, towards where they started: without labels of one class the map
    cannot run away.
    """
    if theta[LABELS] <= 0.0:
        mine, other = (_ONLY_FRAUDS, _ONLY_GENUINE) if y == 1 else (_ONLY_GENUINE, _ONLY_FRAUDS)
        if theta[LABELS] != other:
            theta[LABELS] = mine
            return
        theta[LABELS] = 0.0
    theta[LABELS] += 1.0
    score = _clipped(raw)
    u, v = math.log(score), -math.log(1.0 - score)
    chance = 1.0 / (1.0 + math.exp(-(theta[0] * u + theta[1] * v + theta[2])))
    keep = 1.0 - forget
    information = weight * max(chance * (1.0 - chance), 1e-6)
    p[0] = keep * p[0] + forget * _PRIOR[0] + information * u * u
    p[1] = keep * p[1] + information * u * v
    p[2] = keep * p[2] + information * u
    p[3] = keep * p[3] + forget * _PRIOR[1] + information * v * v
    p[4] = keep * p[4] + information * v
    p[5] = keep * p[5] + forget * _PRIOR[2] + information
    error = weight * (y - chance)
    a = error * u + forget * _PRIOR[0] * (start[0] - theta[0])
    b = error * v + forget * _PRIOR[1] * (start[1] - theta[1])
    c = error + forget * _PRIOR[2] * (start[2] - theta[2])
    # The step solves p * step = (a, b, c) by Cramer's rule.
    m00, m01, m02 = p[3] * p[5] - p[4] * p[4], p[2] * p[4] - p[1] * p[5], p[1] * p[4] - p[2] * p[3]
    m11, m12, m22 = p[0] * p[5] - p[2] * p[2], p[1] * p[2] - p[0] * p[4], p[0] * p[3] - p[1] * p[1]
    determinant = p[0] * m00 + p[1] * m01 + p[2] * m02
    if determinant > 0.0:
        theta[0] = max(_SLOPE_MIN, theta[0] + (m00 * a + m01 * b + m02 * c) / determinant)
        theta[1] = max(_SLOPE_MIN, theta[1] + (m01 * a + m11 * b + m12 * c) / determinant)
        theta[2] += (m02 * a + m12 * b + m22 * c) / determinant
