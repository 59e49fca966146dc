"""Features of the event alone, from the ``features`` section of a configuration."""

from __future__ import annotations

import re

from worker.errors import Problem
from worker.features.declared import Declared, Path, resolution_of
from worker.features.expressions import Expression, ExpressionError, parse_feature
from worker.features.feature import Feature, category_features, expression_features, own_feature

_FIELD = re.compile(r"\s*\$([A-Za-z_]\w*)\s*")
_HINTS = {
    "text": "as numbers: hashed({0}, 16), or {0} == ... for one value",
    "time": "for calls such as hour({0}), or a difference such as $time - {0}",
}


class RowGrammar:
    """Reads features such as ``amount: $amount`` and ``night: hour($time) < 6``."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared

    def features(self, path: Path, name: str, text: str) -> list[Feature]:
        """Return the features of one entry; none where there are problems."""
        try:
            expression = parse_feature(text, self._declared.schema)
        except ExpressionError as error:
            self._declared.problems.append(Problem(path, error.expected, error.got, error.hint))
            return []
        fields = self._declared.fields
        complete = [self._declared.is_complete(name, fields[name]) for name in expression.fields]
        if not all(complete):
            return []
        field = _FIELD.fullmatch(text)
        if field is not None and field[1] in expression.fields:
            if expression.kind in ("number", "boolean") or expression.classes:
                return self._own(name, field[1], expression)
        elif expression.kind in ("number", "boolean", "category"):
            return expression_features(name, expression)
        got = f"{expression.canonical}, a {expression.kind}"
        hint = _HINTS[expression.kind].format(expression.canonical)
        self._declared.problems.append(Problem(path, "a number, boolean or category", got, hint))
        return []

    def _own(self, name: str, field: str, expression: Expression) -> list[Feature]:
        declared = self._declared.fields[field]
        if declared.type == "category":
            return category_features(name, field, declared.values or ())
        needed = expression if declared.optional else None
        return [own_feature(name, field, resolution_of(declared), needed)]
