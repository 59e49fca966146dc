"""A natural logarithm of sums and products only, so that every machine has the same bits.

`numpy.log` and `math.log` choose their code by the processor, and differ in the last place. A
worker that resumes on another machine compares its features with the journal bit by bit.
"""

from __future__ import annotations

import math

import numpy as np

from worker.contracts.records import Float64

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ODD = (
    6.666666666666735130e-01, 2.857142874366239149e-01, 1.818357216161805012e-01,
    1.479819860511658591e-01,
)  # fmt: skip
_EVEN = (3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01)


def log(x: Float64) -> Float64:
    """Return the natural logarithm within 1 ulp; NaN for x <= 0 and for NaN. x is finite.

    Source: FreeBSD's e_log.c (Sun Microsystems, 1993): x = 2^k (1 + f) with sqrt(1/2) < 1 + f <=
    sqrt(2), s = f / (2 + f), log(1 + f) = f - f²/2 + s (f²/2 + R(s²)).

    >>> log(np.array([1.0, 0.0, -1.0]))
    array([ 0., nan, nan])
    """
    fraction, k = np.frexp(np.where(x > 0.0, x, np.nan))
    low = fraction < math.sqrt(0.5)
    f = np.where(low, 2.0 * fraction, fraction) - 1.0
    k = k - low.astype(np.float64)
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (_EVEN[0] + w * (_EVEN[1] + w * _EVEN[2]))
    odd = z * (_ODD[0] + w * (_ODD[1] + w * (_ODD[2] + w * _ODD[3])))
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (half + (odd + even)) + k * _LN2_LOW)) - f)


def log1p(x: Float64) -> Float64:
    """Return log(1 + x) within 4 ulp, of a small x as well; NaN for x <= -1 and for NaN.

    Source: Kahan's correction of log(u), u = 1 + x rounded, by x / (u - 1).

    >>> log1p(np.array([0.0, -1.0]))
    array([ 0., nan])
    """
    u = 1.0 + x
    rest = u - 1.0
    same = rest == 0.0
    corrected = log(u) * (x / np.where(same, 1.0, rest))
    return np.where(same, x, corrected)
