"""A small safe language for what an event says of itself: ``log1p($amount)``, ``hour($time) < 6``.

Texts are parsed and checked here and become calls of numpy; nothing of them reaches Python.
"""

from __future__ import annotations

from worker.features.expressions.categories import CATEGORIES
from worker.features.expressions.checking import Schema
from worker.features.expressions.expression import Expression, parse, parse_feature
from worker.features.expressions.functions import FUNCTIONS, OPERATORS
from worker.features.expressions.tokens import ExpressionError

__all__ = [
    "CATEGORIES",
    "FUNCTIONS",
    "OPERATORS",
    "Expression",
    "ExpressionError",
    "Schema",
    "parse",
    "parse_feature",
]
