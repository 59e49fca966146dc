"""Functions that look at what is missing, or choose."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.features.expressions.function import Function
from worker.features.expressions.values import KINDS, TRUE, Values, is_missing, truth


class Coalesce(Function):
    """The first argument that is not missing; missing where all are.

    >>> Coalesce.of(None, 3.0, 4.0)
    3.0
    """

    name = "coalesce"
    forms = tuple(((kind, kind, "..."), kind) for kind in KINDS)
    sees_missing = True

    @staticmethod
    def of(*values: Any) -> Any:
        """Return the first that is not None."""
        return next((value for value in values if value is not None), None)

    @staticmethod
    def run(first: Values, *others: Values) -> Values:
        """Return the first that is not missing."""
        for other in others:
            first = np.where(is_missing(first), other, first)
        return first


class IsMissing(Function):
    """Whether a value of any kind is missing; never missing itself.

    >>> IsMissing.of(None), IsMissing.of(0.0)
    (True, False)
    """

    name = "is_missing"
    forms = tuple(((kind,), "boolean") for kind in KINDS)
    sees_missing = True

    @staticmethod
    def of(value: Any) -> bool:
        """Return whether it is None."""
        return value is None

    @staticmethod
    def run(values: Values) -> Values:
        """Return whether each is missing."""
        return truth(is_missing(values), False)


class If(Function):
    """if(condition, a, b): a where the condition is true, b where it is false or missing.

    >>> If.of(True, 1.0, 2.0), If.of(None, 1.0, 2.0)
    (1.0, 2.0)
    """

    name = "if"
    forms = tuple((("boolean", kind, kind), kind) for kind in KINDS)
    sees_missing = True

    @staticmethod
    def of(condition: bool | None, then: Any, otherwise: Any) -> Any:
        """Return one of the two."""
        return then if condition else otherwise

    @staticmethod
    def run(condition: Values, then: Values, otherwise: Values) -> Values:
        """Return one of the two for each row."""
        return np.where(np.asarray(condition) == TRUE, then, otherwise)
