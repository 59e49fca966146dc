"""The operators of expressions, found through `OPERATORS`. They are functions with a sign."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from worker.features.expressions.function import Form, Function
from worker.features.expressions.values import KINDS, Values, finite, is_missing, truth

_ARITHMETIC: tuple[Form, ...] = ((("number", "number"), "number"),)
_LOGIC: tuple[Form, ...] = ((("boolean", "boolean"), "boolean"),)
_EQUALITY: tuple[Form, ...] = tuple(((kind, kind), "boolean") for kind in KINDS)
_ORDER: tuple[Form, ...] = tuple(((kind, kind), "boolean") for kind in ("number", "time"))


class Add(Function):
    """Sum of two numbers.

    >>> Add.of(1.0, 2.0)
    3.0
    """

    name = "+"
    forms = _ARITHMETIC

    @staticmethod
    def of(a: float, b: float) -> float:
        """Return a + b."""
        return a + b

    @staticmethod
    def run(a: Values, b: Values) -> Values:
        """Return a + b."""
        return finite(a + b)


class Subtract(Function):
    """Difference of two numbers, or of two times in seconds.

    >>> Subtract.of(3.0, 2.0), Subtract.of(3_500, 1_000)
    (1.0, 2.5)
    """

    name = "-"
    forms = (*_ARITHMETIC, (("time", "time"), "number"))

    @staticmethod
    def of(a: float, b: float) -> float:
        """Return a - b; times are integers of ms."""
        return (a - b) / 1000 if isinstance(a, int) else a - b

    @staticmethod
    def run(a: Values, b: Values) -> Values:
        """Return a - b."""
        if np.asarray(a).dtype == np.float64:
            return finite(a - b)
        return np.where(is_missing(a) | is_missing(b), np.nan, (a - b) / 1000)


class Multiply(Function):
    """Product of two numbers.

    >>> Multiply.of(3.0, 2.0)
    6.0
    """

    name = "*"
    forms = _ARITHMETIC

    @staticmethod
    def of(a: float, b: float) -> float:
        """Return a · b."""
        return a * b

    @staticmethod
    def run(a: Values, b: Values) -> Values:
        """Return a · b."""
        return finite(a * b)


class Divide(Function):
    """Quotient of two numbers; missing where the second is 0.

    >>> Divide.of(3.0, 2.0)
    1.5
    """

    name = "/"
    forms = _ARITHMETIC

    @staticmethod
    def of(a: float, b: float) -> float:
        """Return a / b."""
        return a / b

    @staticmethod
    def run(a: Values, b: Values) -> Values:
        """Return a / b."""
        return finite(np.true_divide(a, b))


class Remainder(Function):
    """Remainder of a division, with the sign of the second number; missing where that is 0.

    >>> Remainder.of(57.5, 10.0), Remainder.of(-1.0, 10.0)
    (7.5, 9.0)
    """

    name = "%"
    forms = _ARITHMETIC

    @staticmethod
    def of(a: float, b: float) -> float:
        """Return a mod b."""
        return a % b

    @staticmethod
    def run(a: Values, b: Values) -> Values:
        """Return a mod b."""
        return finite(np.remainder(a, b))


class Negative(Function):
    """The number with the other sign, written -x.

    >>> Negative.of(2.0)
    -2.0
    """

    name = "-x"
    forms = ((("number",), "number"),)

    @staticmethod
    def of(x: float) -> float:
        """Return −x."""
        return -x

    @staticmethod
    def run(x: Values) -> Values:
        """Return −x."""
        return np.negative(x)


class _Comparison(Function):
    compares: ClassVar[Callable[[Any, Any], Any]]

    @classmethod
    def of(cls, a: Any, b: Any) -> bool:
        """Return whether it holds."""
        return bool(cls.compares(a, b))

    @classmethod
    def run(cls, a: Values, b: Values) -> Values:
        """Return where it holds; unknown where one side is missing."""
        return truth(cls.compares(a, b), is_missing(a) | is_missing(b))


class Equal(_Comparison):
    """Whether two values of one kind are equal.

    >>> Equal.of("web", "web")
    True
    """

    name = "=="
    forms = _EQUALITY
    compares = operator.eq


class Unequal(_Comparison):
    """Whether two values of one kind differ.

    >>> Unequal.of("web", "web")
    False
    """

    name = "!="
    forms = _EQUALITY
    compares = operator.ne


class Less(_Comparison):
    """Whether a number or time is below another.

    >>> Less.of(1.0, 2.0)
    True
    """

    name = "<"
    forms = _ORDER
    compares = operator.lt


class AtMost(_Comparison):
    """Whether a number or time is at most another.

    >>> AtMost.of(2.0, 2.0)
    True
    """

    name = "<="
    forms = _ORDER
    compares = operator.le


class Greater(_Comparison):
    """Whether a number or time is above another.

    >>> Greater.of(1.0, 2.0)
    False
    """

    name = ">"
    forms = _ORDER
    compares = operator.gt


class AtLeast(_Comparison):
    """Whether a number or time is at least another.

    >>> AtLeast.of(2.0, 2.0)
    True
    """

    name = ">="
    forms = _ORDER
    compares = operator.ge


class In(Function):
    """Whether a number or text is one of a list: $country in ["FR", "DE"]; also not in.

    >>> In.of("FR", "FR", "DE"), In.of(3.0, 1.0)
    (True, False)
    """

    name = "in"
    forms = (
        (("number", "constant", "..."), "boolean"),
        (("text", "label", "..."), "boolean"),
    )

    @staticmethod
    def of(value: Any, *listed: Any) -> bool:
        """Return whether it is one of them."""
        return value in listed

    @staticmethod
    def run(values: Values, *listed: Any) -> Values:
        """Return which are one of them."""
        found = np.asarray(values) == listed[0]
        for one in listed[1:]:
            found = found | (values == one)
        return truth(found, is_missing(values))


class And(Function):
    """Whether both are true; missing where that depends on a missing one.

    >>> And.of(True, None), And.of(False, None)
    (None, False)
    """

    name = "and"
    forms = _LOGIC
    sees_missing = True

    @staticmethod
    def of(a: bool | None, b: bool | None) -> bool | None:
        """Return Kleene's a ∧ b."""
        if a is False or b is False:
            return False
        return None if a is None or b is None else True

    @staticmethod
    def run(a: Values, b: Values) -> Values:
        """Return Kleene's a ∧ b: false < unknown < true."""
        return np.minimum(a, b)


class Or(Function):
    """Whether one of two is true; missing where that depends on a missing one.

    >>> Or.of(True, None), Or.of(False, None)
    (True, None)
    """

    name = "or"
    forms = _LOGIC
    sees_missing = True

    @staticmethod
    def of(a: bool | None, b: bool | None) -> bool | None:
        """Return Kleene's a ∨ b."""
        if a is True or b is True:
            return True
        return None if a is None or b is None else False

    @staticmethod
    def run(a: Values, b: Values) -> Values:
        """Return Kleene's a ∨ b: false < unknown < true."""
        return np.maximum(a, b)


class Not(Function):
    """Whether a boolean is false; missing where it is missing.

    >>> Not.of(True)
    False
    """

    name = "not"
    forms = ((("boolean",), "boolean"),)

    @staticmethod
    def of(a: bool) -> bool:
        """Return ¬ a."""
        return not a

    @staticmethod
    def run(a: Values) -> Values:
        """Return ¬ a."""
        return np.int8(2) - a


_CLASSES: tuple[type[Function], ...] = (
    Add, Subtract, Multiply, Divide, Remainder, Negative, Equal, Unequal, Less, AtMost, Greater,
    AtLeast, In, And, Or, Not,
)  # fmt: skip
OPERATORS: dict[str, type[Function]] = {c.name: c for c in _CLASSES}
"""Every operator by its sign."""
