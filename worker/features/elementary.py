"""Elementary functions of sums, products and roots: the same bits on every processor.

Those of a C library differ in the last place between processors, and features are compared bit by
bit on recovery. Arguments are bounded, so a Taylor series of fixed length is enough.
"""

from __future__ import annotations

import math

import numpy as np

from worker.features.compiling import helper, outlined
from worker.features.expressions.logarithm import log

EARTH_KM = 6371.0088
"""Mean radius of the Earth, (2a + b) / 3 of WGS 84."""

_LN_2 = 0.6931471805599453
_RADIANS = 0.017453292519943295  # of a degree
_HALVINGS_MAX = 1_074  # beyond that nothing is left of 1.0

LINEAR_COUNT = np.array([0.0, *(256.0 * (8.0 * _LN_2 - log(np.arange(255.0, 0.0, -1.0))))])
"""Values that n of 256 bits stand for: 256 ln(256 / (256 − n)).

Source: Whang et al., A linear-time probabilistic counting algorithm for database applications,
1990, equation 2.
"""


@helper
def half_life(halvings: float) -> float:
    """Return 2^(−halvings), for halvings >= 0; relative error below 1e-15."""
    if not halvings < _HALVINGS_MAX:
        return 0.0
    whole = int(halvings)
    y = -(halvings - whole) * _LN_2
    term, total = 1.0, 1.0
    for k in range(1, 19):
        term = term * y / k
        total += term
    return math.ldexp(total, -whole)


@helper
def sine(x: float) -> float:
    """Return sin x, for |x| <= π / 2."""
    term, total, square = x, x, x * x
    for k in range(3, 25, 2):
        term = -term * square / ((k - 1) * k)
        total += term
    return total


@helper
def arcsine(s: float) -> float:
    """Return asin s, for 0 <= s <= 1: four halvings of the angle, then the series of atan."""
    t = s / (1.0 + math.sqrt(1.0 - s * s))
    for _ in range(3):
        t = t / (1.0 + math.sqrt(1.0 + t * t))
    power, total, square = t, t, t * t
    for k in range(3, 19, 2):
        power = -power * square
        total += power / k
    return 16.0 * total


@outlined
def great_circle_km(lat_a: int, lon_a: int, lat_b: int, lon_b: int) -> float:
    """Return the distance of two places in millionths of a degree, by the haversine formula.

    Latitudes beyond a pole are taken for the pole.

    Source: Sinnott, Virtues of the haversine, Sky and Telescope 68, 1984.
    """
    lat_a = min(max(lat_a, -90_000_000), 90_000_000)
    lat_b = min(max(lat_b, -90_000_000), 90_000_000)
    turn = (lon_b - lon_a) % 360_000_000
    turn = turn - 360_000_000 if turn > 180_000_000 else turn
    up = sine((lat_b - lat_a) * 0.5e-6 * _RADIANS)
    side = sine(turn * 0.5e-6 * _RADIANS)
    # cos x = 1 − 2 sin²(x / 2)
    a = sine(lat_a * 0.5e-6 * _RADIANS)
    b = sine(lat_b * 0.5e-6 * _RADIANS)
    square = up * up + (1.0 - 2.0 * a * a) * (1.0 - 2.0 * b * b) * side * side
    return 2.0 * EARTH_KM * arcsine(math.sqrt(min(max(square, 0.0), 1.0)))
