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
    """Welford's update as StandardScaler.learn_one has it; SPREAD is VARIANCE ** 0.5, kept.

    Loops are split so that all but the one with ``pow`` run four features at a time.
    """
    counts, means, variances = features[COUNT], features[MEAN], features[VARIANCE]
    for i in range(x.shape[0]):
        counts[i] += 1.0
        old_mean = means[i]
        means[i] = old_mean + (x[i] - old_mean) / counts[i]
        if with_std:
            product = (x[i] - old_mean) * (x[i] - means[i])
            variances[i] += (product - variances[i]) / counts[i]
    if with_std:
        for i in range(x.shape[0]):
            features[SPREAD, i] = math.pow(variances[i], half)


@compiled
def _scale(x: Float64, features: Float64, with_std: bool, z: Float64) -> None:
    means, spreads = features[MEAN], features[SPREAD]
    for i in range(x.shape[0]):
        distance = x[i] - means[i]
        if not with_std:
            z[i] = distance
        else:
            scaled = distance / spreads[i]
            z[i] = scaled if spreads[i] != 0.0 else 0.0


@compiled
def _logit(z: Float64, features: Float64, intercept: float) -> float:
    total = 0.0
    for i in range(z.shape[0]):
        total += features[WEIGHT, i] * z[i]
    return total + intercept


@compiled
def sigmoid(logit: float) -> float:
    if logit < -30.0:
        return 0.0
    if logit > 30.0:
        return 1.0
    return 1.0 / (1.0 + math.exp(-logit))


@compiled
def loss_gradient(positive: bool, logit: float, weight: float, constants: Float64) -> float:
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
def step_adagrad(
    i: int, gradient: float, square: float, squares: Float64, weights: Float64, c: Float64
) -> None:
    """Move weight i by River's AdaGrad; ``square`` is the gradient's, by libm's ``pow``."""
    squares[i] += square
    weights[i] -= c[RATE] / math.pow(squares[i] + c[EPSILON], c[HALF]) * gradient


@compiled
def _step_adam(gradient: Float64, rate: float, features: Float64, c: Float64) -> None:
    """Move the weights by River's Adam; ``rate`` is corrected for the start already."""
    firsts, seconds, weights = features[MOMENT_1], features[MOMENT_2], features[WEIGHT]
    for i in range(gradient.shape[0]):
        g = gradient[i]
        firsts[i] = c[BETA_1] * firsts[i] + (1.0 - c[BETA_1]) * g
        seconds[i] = c[BETA_2] * seconds[i] + (1.0 - c[BETA_2]) * (g * g)
        root = math.pow(seconds[i], c[HALF]) + c[EPSILON]
        weights[i] -= rate * firsts[i] / root


@compiled
def _step(z: Float64, slope: float, features: Float64, optimizer: int, c: Float64, n: int) -> None:
    """Move the weights against the gradient ``z * slope + l2 * weight``; n steps came before."""
    rate = c[RATE]
    if optimizer == ADAM:
        rate = c[RATE] * math.pow(1.0 - math.pow(c[BETA_2], n + 1.0), c[HALF])
        rate /= 1.0 - math.pow(c[BETA_1], n + 1.0)
    for i in range(z.shape[0]):
        z[i] *= slope  # from here on z is the gradient
        if c[L2] != 0.0:
            z[i] += features[WEIGHT, i] * c[L2]
    if optimizer == SGD:
        for i in range(z.shape[0]):
            features[WEIGHT, i] -= rate * z[i]
    elif optimizer == ADAGRAD:
        squares, weights = features[MOMENT_2], features[WEIGHT]
        for i in range(z.shape[0]):
            step_adagrad(i, z[i], math.pow(z[i], c[TWO]), squares, weights, c)
    else:
        _step_adam(z, rate, features, c)


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
            slope = loss_gradient(positive[done], logit, weight[done], constants)
            intercept[0] -= constants[INTERCEPT_RATE] * slope
            _step(z, slope, features, optimizer, constants, counters[STEPS])
            counters[STEPS] += 1
            counters[SCALER_SEEN] = 1
            done += 1
        if i == X.shape[0]:
            break
        if scorable[i]:
            _scale(X[i], features, with_std, z)
            scores[i] = sigmoid(_logit(z, features, intercept[0]))
            counters[SCALER_SEEN] = 1
        else:
            scores[i] = math.nan
