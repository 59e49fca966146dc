"""What a function of the expressions is.

A missing argument makes the result missing, and so does a result that is not a finite number,
unless the function says otherwise.
"""

from __future__ import annotations

from typing import Any, ClassVar

from worker.features.expressions.values import Values

Form = tuple[tuple[str, ...], str]
"""Kinds of the arguments ("..." repeats the last one; "constant" is a number, "label" a text and
"zone" a time zone, all written out) and the kind of the result.
"""


class Function:
    """Base of all functions and operators.

    ``of`` is the definition, for one row in plain Python, of arguments that are not missing (None
    where a function looks at missing ones); it may raise where there is no result. ``run`` is the
    same over arrays as `worker.features.expressions.values` holds them.
    """

    name: ClassVar[str]
    forms: ClassVar[tuple[Form, ...]]
    sees_missing: ClassVar[bool] = False
    takes_zone: ClassVar[bool] = False
    words: ClassVar[str] = ""

    @staticmethod
    def of(*arguments: Any) -> Any:
        """Return the value for one row."""
        raise NotImplementedError

    @staticmethod
    def run(*arguments: Values) -> Values:
        """Return the values of all rows."""
        raise NotImplementedError

    @classmethod
    def classes(cls, constants: tuple[float, ...]) -> tuple[str, ...]:
        """Return the names of the values 0, 1, ... where there are few; none otherwise."""
        del constants
        return ()
