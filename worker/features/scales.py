"""How many units make one: decimals are held as integers of their resolution."""

from __future__ import annotations


def scale_of(resolution: float | None) -> tuple[float, float]:
    """Return (multiply, divide) that turn units of a power of ten into values.

    >>> scale_of(0.01), scale_of(None), scale_of(10.0)
    ((1.0, 100.0), (1.0, 1.0), (10.0, 1.0))
    """
    if resolution is None:
        return 1.0, 1.0
    if resolution >= 1.0:
        return float(round(resolution)), 1.0
    return 1.0, float(round(1.0 / resolution))
