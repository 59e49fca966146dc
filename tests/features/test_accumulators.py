"""The integer arithmetic of squares, against Python's unbounded integers."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from tests.features.streams import UNHURRIED
from worker.features import accumulators, kernels

high_square = njit(lambda v: accumulators.high_square(v))
shifted_squares = njit(lambda n, s, low, high, r: accumulators.shifted_squares(n, s, low, high, r))
divide = njit(lambda a, b, inverse: kernels.divide(a, b, inverse))

UNITS = st.integers(-(2**40), 2**40)


def limbs(values: list[int]) -> tuple[int, int]:
    """Return Σ v² as two limbs: modulo 2^64 as a signed number, and the sum of the high parts."""
    low = sum(v * v for v in values) % 2**64
    return low - 2**64 if low >= 2**63 else low, sum(v * v // 2**40 for v in values)


@UNHURRIED
@given(UNITS)
@example(2**40)
@example(-(2**40))
@example(2**31)
@example(2**31 - 1)
def test_the_high_limb_of_a_square_is_exact(v: int) -> None:
    """⌊v² / 2^40⌋ for every value that a decoder lets through."""
    assert high_square(v) == v * v // 2**40


@UNHURRIED
@given(st.lists(UNITS, min_size=1, max_size=50), st.integers(-5, 5))
@example([2**40, -(2**40)], 0)
@example([2**40] * 50, 0)
def test_shifted_squares_are_rounded_once(values: list[int], away: int) -> None:
    """Σ (v − r)² comes out as the nearest double (or one beside it) of the exact integer."""
    reference = round(sum(values) / len(values)) + away
    truth = sum((v - reference) ** 2 for v in values)
    found = shifted_squares(len(values), sum(values), *limbs(values), reference)
    assert abs(int(found) - truth) <= truth * 2**-52


@UNHURRIED
@given(st.integers(2**40 - 1000, 2**40), st.integers(1, 200_000))
def test_equal_values_have_no_squares_about_themselves(v: int, n: int) -> None:
    """Nothing is left of the largest values when they are all the same."""
    low = v * v * n % 2**64
    low = low - 2**64 if low >= 2**63 else low
    assert shifted_squares(n, v * n, low, (v * v // 2**40) * n, v) == 0.0


@UNHURRIED
@given(st.integers(0, 2**45), st.integers(1, 2**35), st.integers(-1, 1))
def test_division_by_a_reciprocal_is_exact(a: int, b: int, beside: int) -> None:
    """At every time in ms up to the year 3000, at multiples of the divisor and beside them."""
    for dividend in (a, max(a // b * b + beside, 0)):
        assert divide(dividend, b, 1.0 / b) == dividend // b
