"""The one decorator of compiled kernels, and the guard of numbers that both model kinds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit

from worker.contracts.records import Bool, Float64

ABSOLUTE_MAX = 1e30
"""Largest magnitude of a feature or weight that may reach a model.

Squares and scaled products stay finite below it: one infinity or NaN ruins a linear model for ever.
"""

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Return `function` as machine code, cached on disk, with strict IEEE arithmetic.

    Never with fastmath: a reordered sum or a fused multiply-add would no longer equal River.
    Division by zero gives infinity or NaN, as IEEE has it: the check of numba's other mode keeps
    the compiler from dividing four numbers at once.
    """
    return cast(F, njit(cache=True, error_model="numpy")(function))


@compiled
def usable_rows(X: Float64) -> Bool:
    """Return for each row of ``X`` (n, f) whether all its numbers are finite and not absurd.

    >>> usable_rows(np.array([[1.0, 2.0], [np.nan, 2.0], [1.0, -1e31]])).tolist()
    [True, False, False]
    """
    usable = np.empty(X.shape[0], dtype=np.bool_)
    for i in range(X.shape[0]):
        row = True
        for j in range(X.shape[1]):  # to the end, so several numbers at a time
            # NaN compares false and is refused.
            row &= (X[i, j] >= -ABSOLUTE_MAX) & (X[i, j] <= ABSOLUTE_MAX)
        usable[i] = row
    return usable
