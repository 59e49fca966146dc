"""Machine code of `StandardScaler | LogisticRegression`, operation for operation as River 0.26.

The order of every floating-point operation is River's: sums over features in the order of the
row, ``v ** 0.5`` and ``g ** 2`` by libm's ``pow``. Exponents come in ``constants``: a literal one
would be compiled to a square root or a product, which differ from ``pow`` in about one value in a
thousand.
"""

from __future__ import annotations

import math

from worker.contracts.records import Bool, Float64, Int64
from worker.models.compiled import compiled

# Rows of `features`, the state of each feature.
COUNT, MEAN, VARIANCE, SPREAD, WEIGHT, MOMENT_1, MOMENT_2 = range(7)
# Optimizers, by the value of `optimizer`. AdaGrad keeps its sum of squares in MOMENT_2.
SGD, ADAGRAD, ADAM = range(3)
# Entries of `constants`.
RATE, INTERCEPT_RATE, L2, CLIP, WEIGHT_POSITIVE, WEIGHT_NEGATIVE = range(6)
BETA_1, BETA_2, EPSILON, HALF, TWO = range(6, 11)
# Entries of `counters`.
STEPS, SCALER_SEEN = range(2)


@compiled
def _learn_scaler(x: Float64, features: Float64, with_std: bool, half: float) -> None:
    """Welford's update as StandardScaler.learn_one has it; SPREAD is VARIANCE ** 0.5, kept."""
    for i in range(x.shape[0]):
        features[COUNT, i] += 1.0
        count = features[COUNT, i]
        old_mean = features[MEAN, i]
        features[MEAN, i] = old_mean + (x[i] - old_mean) / count
        if with_std:
            product = (x[i] - old_mean) * (x[i] - features[MEAN, i])
            variance = features[VARIANCE, i]
            features[VARIANCE, i] = variance + (product - variance) / count
            features[SPREAD, i] = math.pow(features[VARIANCE, i], half)


@compiled
def _scale(x: Float64, features: Float64, with_std: bool, z: Float64) -> None:
    for i in range(x.shape[0]):
        if not with_std:
            z[i] = x[i] - features[MEAN, i]
        elif features[VARIANCE, i] != 0.0:
            z[i] = (x[i] - features[MEAN, i]) / features[SPREAD, i]
        else:
            z[i] = 0.0


@compiled
def _logit(z: Float64, features: Float64, intercept: float) -> float:
    total = 0.0
    for i in range(z.shape[0]):
        total += features[WEIGHT, i] * z[i]
    return total + intercept


@compiled
def _sigmoid(logit: float) -> float:
    if logit < -30.0:
        return 0.0
    if logit > 30.0:
        return 1.0
    return 1.0 / (1.0 + math.exp(-logit))


@compiled
def _loss_gradient(positive: bool, logit: float, weight: float, constants: Float64) -> float:
    """Derivative of the log loss, times the example's weight, clipped."""
    sign = 1.0 if positive else -1.0
    class_weight = constants[WEIGHT_POSITIVE] if positive else constants[WEIGHT_NEGATIVE]
    margin = logit * sign
    if margin > 18.0:
        gradient = class_weight * math.exp(-margin) * -sign
    elif margin < -18.0:
        gradient = class_weight * -sign
    else:
        gradient = class_weight * -sign / (math.exp(margin) + 1.0)
    gradient *= weight
    if constants[CLIP] < gradient:
        gradient = constants[CLIP]
    if -constants[CLIP] > gradient:
        gradient = -constants[CLIP]
    return gradient  # type: ignore[no-any-return]  # an element of an array


@compiled
def _step(z: Float64, slope: float, features: Float64, optimizer: int, c: Float64, n: int) -> None:
    """Move the weights against the gradient ``z * slope + l2 * weight``; n steps came before."""
    rate = c[RATE]
    if optimizer == ADAM:
        rate = c[RATE] * math.pow(1.0 - math.pow(c[BETA_2], n + 1.0), c[HALF])
        rate /= 1.0 - math.pow(c[BETA_1], n + 1.0)
    for i in range(z.shape[0]):
        g = z[i] * slope
        if c[L2] != 0.0:
            g += features[WEIGHT, i] * c[L2]
        if optimizer == SGD:
            features[WEIGHT, i] -= rate * g
        elif optimizer == ADAGRAD:
            features[MOMENT_2, i] += math.pow(g, c[TWO])
            root = math.pow(features[MOMENT_2, i] + c[EPSILON], c[HALF])
            features[WEIGHT, i] -= rate / root * g
        else:
            first = c[BETA_1] * features[MOMENT_1, i] + (1.0 - c[BETA_1]) * g
            second = c[BETA_2] * features[MOMENT_2, i] + (1.0 - c[BETA_2]) * (g * g)
            features[MOMENT_1, i] = first
            features[MOMENT_2, i] = second
            root = math.pow(second, c[HALF]) + c[EPSILON]
            features[WEIGHT, i] -= rate * first / root


@compiled
def score_learn(
    X: Float64,
    scorable: Bool,
    learn_X: Float64,
    positive: Bool,
    weight: Float64,
    before: Int64,
    features: Float64,
    intercept: Float64,
    counters: Int64,
    constants: Float64,
    optimizer: int,
    with_std: bool,
    z: Float64,
    scores: Float64,
) -> None:
    """Fill ``scores``: NaN where an event is not scorable. All state arrays change in place.

    ``learn_X`` and its columns hold the usable examples only, in order; ``z`` is scratch (f,).
    """
    done = 0
    for i in range(X.shape[0] + 1):
        while done < before.shape[0] and before[done] <= i:
            x = learn_X[done]
            _learn_scaler(x, features, with_std, constants[HALF])
            _scale(x, features, with_std, z)
            logit = _logit(z, features, intercept[0])
            slope = _loss_gradient(positive[done], logit, weight[done], constants)
            intercept[0] -= constants[INTERCEPT_RATE] * slope
            _step(z, slope, features, optimizer, constants, counters[STEPS])
            counters[STEPS] += 1
            counters[SCALER_SEEN] = 1
            done += 1
        if i == X.shape[0]:
            break
        if scorable[i]:
            _scale(X[i], features, with_std, z)
            scores[i] = _sigmoid(_logit(z, features, intercept[0]))
            counters[SCALER_SEEN] = 1
        else:
            scores[i] = math.nan
